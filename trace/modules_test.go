// SPDX-License-Identifier: GPL-2.0-only

package trace

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"
)

func TestIsIter(t *testing.T) {
	pointer := func(name string) btf.FuncParam {
		return btf.FuncParam{Type: &btf.Pointer{Target: &btf.Struct{Name: name}}}
	}
	kiocb, iter := pointer("kiocb"), pointer("iov_iter")
	long := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	size := &btf.Typedef{Name: "ssize_t", Type: &btf.Typedef{Name: "__kernel_ssize_t", Type: long}}
	for name, c := range map[string]struct {
		ret    btf.Type
		params []btf.FuncParam
		want   bool
	}{
		"read_iter":           {size, []btf.FuncParam{kiocb, iter}, true},
		"of a plain long":     {long, []btf.FuncParam{kiocb, iter}, true},
		"returns an int":      {&btf.Int{Name: "int", Size: 4}, []btf.FuncParam{kiocb, iter}, false},
		"returns nothing":     {&btf.Void{}, []btf.FuncParam{kiocb, iter}, false},
		"returns a pointer":   {&btf.Pointer{Target: long}, []btf.FuncParam{kiocb, iter}, false},
		"the other way round": {size, []btf.FuncParam{iter, kiocb}, false},
		"with a third":        {size, []btf.FuncParam{kiocb, iter, {Type: long}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &btf.Func{Name: "f", Type: &btf.FuncProto{Return: c.ret, Params: c.params}}
			if isIter(f) != c.want {
				t.Errorf("%v, want %v", !c.want, c.want)
			}
		})
	}
}

// A probe goes by the name alone: of two functions with one name neither is watched.
func TestUnique(t *testing.T) {
	a, b, c, d := iter{"a_read_iter", "a"}, iter{"read_iter", "a"}, iter{"read_iter", "b"}, iter{"blkdev_read_iter", "d"}
	one, more := unique([]iter{a, b, c, d}, func(name string) bool { return name == d.function })
	if !slices.Equal(one, []iter{a}) || !slices.Equal(more, []iter{b, c, d}) {
		t.Errorf("%v and %v", one, more)
	}
}
