// SPDX-License-Identifier: GPL-2.0-only

// Package initramfs assembles a guest's root file system in memory, as
// names only, and writes it as an uncompressed newc cpio archive: the
// kernel unpacks that faster than anything it must inflate first.
//
// Files keep the paths that they have on the host; the shared libraries
// and script interpreters they need come along (AddHost).
package initramfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"
)

// maxFile is the largest file that newc's 32-bit size field can tell.
const maxFile = 1<<32 - 1

// kind of a tree entry.
type kind int

const (
	dir kind = iota
	link
	file
)

type entry struct {
	kind   kind
	mode   fs.FileMode // permission bits and setuid, setgid, sticky
	target string      // link: what it says
	host   string      // file: where its bytes are; "" means data
	data   []byte
	size   int64
	mtime  time.Time
	weak   bool // may be replaced in silence by what the user asked for
}

// Tree is a file system to be. Paths are absolute, in the guest; a path
// through a symbolic link already in the tree lands where the link leads.
// Not safe for concurrent use.
type Tree struct {
	entries map[string]*entry
	elf     elfSearch
}

// New is a Tree with the directories that every system has, /bin, /sbin,
// /lib and /lib64 being links into /usr as on today's distributions.
func New() *Tree {
	t := &Tree{entries: map[string]*entry{"/": {kind: dir, mode: 0o755}}}
	for _, d := range []string{"/dev", "/proc", "/sys", "/run", "/etc", "/mnt", "/usr/bin", "/usr/sbin",
		"/usr/lib", "/usr/lib64", "/usr/share", "/var/tmp", "/var/log"} {
		t.mustDir(d, 0o755)
	}
	t.mustDir("/tmp", 0o777|fs.ModeSticky)
	t.mustDir("/root", 0o755) // open: what is packed from there, others may run
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		t.entries["/"+l] = &entry{kind: link, mode: 0o777, target: "usr/" + l}
	}
	t.entries["/var/run"] = &entry{kind: link, mode: 0o777, target: "/run"}
	return t
}

func (t *Tree) mustDir(p string, mode fs.FileMode) {
	if err := t.Dir(p, mode); err != nil {
		panic(err) // only with the fixed names above
	}
}

// resolve follows the links among p's parent directories (not p itself).
func (t *Tree) resolve(p string) (string, error) {
	p = path.Clean("/" + p)
	for hops := 0; ; hops++ {
		if hops > 40 {
			return "", fmt.Errorf("%s: too many symbolic links in the guest's tree", p)
		}
		again := false
		for i := 1; i < len(p); i++ {
			if p[i] != '/' {
				continue
			}
			e := t.entries[p[:i]]
			if e != nil && e.kind == file {
				return "", fmt.Errorf("%s: %s is a file in the guest's tree", p, p[:i])
			}
			if e != nil && e.kind == link {
				p = path.Join(joinLink(p[:i], e.target), p[i:])
				again = true
				break
			}
		}
		if !again {
			return p, nil
		}
	}
}

// joinLink is where the link at p, saying target, leads.
func joinLink(p, target string) string {
	if path.IsAbs(target) {
		return path.Clean(target)
	}
	return path.Join(path.Dir(p), target)
}

// Dir adds a directory and its parents; one that is there keeps its mode.
func (t *Tree) Dir(p string, mode fs.FileMode) error {
	p, err := t.resolve(p)
	if err != nil {
		return err
	}
	if e := t.entries[p]; e != nil {
		switch e.kind {
		case dir:
			return nil
		case link:
			return t.Dir(joinLink(p, e.target), mode)
		}
		return fmt.Errorf("%s: a file in the guest's tree, wanted as a directory", p)
	}
	if err := t.Dir(path.Dir(p), 0o755); err != nil {
		return err
	}
	t.entries[p] = &entry{kind: dir, mode: mode}
	return nil
}

// put places e at p, refusing to turn a directory into something else.
func (t *Tree) put(p string, e *entry) error {
	p, err := t.resolve(p)
	if err != nil {
		return err
	}
	if old := t.entries[p]; old != nil {
		if old.kind == dir {
			return fmt.Errorf("%s: a directory in the guest's tree, wanted as something else", p)
		}
		if e.weak && !old.weak {
			return nil
		}
	}
	if err := t.Dir(path.Dir(p), 0o755); err != nil {
		return err
	}
	t.entries[p] = e
	return nil
}

// Data adds a file made of b.
func (t *Tree) Data(p string, b []byte, mode fs.FileMode) error {
	return t.put(p, &entry{kind: file, mode: mode, data: b, size: int64(len(b))})
}

// Link adds a symbolic link at p.
func (t *Tree) Link(p, target string) error {
	return t.put(p, &entry{kind: link, mode: 0o777, target: target})
}

// WeakLink adds a symbolic link unless something is at p already; what is
// added there later replaces it.
func (t *Tree) WeakLink(p, target string) error {
	return t.put(p, &entry{kind: link, mode: 0o777, target: target, weak: true})
}

// File adds the host's file at p in the guest, as it is, alone.
func (t *Tree) File(p, host string) error {
	fi, err := os.Stat(host)
	if err != nil {
		return err
	}
	return t.putFile(p, host, fi)
}

func (t *Tree) putFile(p, host string, fi fs.FileInfo) error {
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file, directory or symbolic link: it can't be put in the guest", host)
	}
	if fi.Size() > maxFile {
		return fmt.Errorf("%s: %d bytes are too many for the guest's memory: give its folder by --disk", host, fi.Size())
	}
	mode := fi.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	return t.put(p, &entry{kind: file, mode: mode, host: host, size: fi.Size(), mtime: fi.ModTime()})
}

// Has tells whether something is at p, links followed.
func (t *Tree) Has(p string) bool {
	for range 40 {
		q, err := t.resolve(p)
		if err != nil {
			return false
		}
		e := t.entries[q]
		if e == nil {
			return false
		}
		if e.kind != link {
			return true
		}
		p = joinLink(q, e.target)
	}
	return false
}

// Size is how many bytes the files hold.
func (t *Tree) Size() int64 {
	var n int64
	for _, e := range t.entries {
		n += e.size
	}
	return n
}

// WriteTo writes the archive. The host's files are read now: one that
// changed its size since it was added is an error.
func (t *Tree) WriteTo(w io.Writer) (int64, error) {
	paths := make([]string, 0, len(t.entries))
	for p := range t.entries {
		if p != "/" {
			paths = append(paths, p)
		}
	}
	sort.Strings(paths) // a parent sorts before what it holds
	cw := &countWriter{w: w}
	c := cpio.NewWriter(cw)
	for _, p := range paths {
		if err := writeEntry(c, strings.TrimPrefix(p, "/"), t.entries[p]); err != nil {
			return cw.n, fmt.Errorf("initramfs: %s: %w", p, err)
		}
	}
	if err := c.Close(); err != nil {
		return cw.n, fmt.Errorf("initramfs: %w", err)
	}
	return cw.n, nil
}

func writeEntry(c *cpio.Writer, name string, e *entry) error {
	h := &cpio.Header{Name: name, Mode: cpioMode(e), Size: e.size, ModTime: e.mtime, Links: 1}
	switch {
	case e.kind == dir:
		h.Links = 2
		return c.WriteHeader(h)
	case e.kind == link:
		h.Size = int64(len(e.target))
		if err := c.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(c, e.target)
		return err
	case e.host == "":
		if err := c.WriteHeader(h); err != nil {
			return err
		}
		_, err := c.Write(e.data)
		return err
	}
	f, err := os.Open(e.host)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(c, io.LimitReader(f, e.size))
	if err == nil && n < e.size {
		err = fmt.Errorf("%s shrank from %d to %d bytes while it was read", e.host, e.size, n)
	}
	return err
}

func cpioMode(e *entry) cpio.FileMode {
	m := cpio.FileMode(e.mode & fs.ModePerm)
	for from, to := range map[fs.FileMode]cpio.FileMode{
		fs.ModeSetuid: cpio.ModeSetuid, fs.ModeSetgid: cpio.ModeSetgid, fs.ModeSticky: cpio.ModeSticky,
	} {
		if e.mode&from != 0 {
			m |= to
		}
	}
	return m | map[kind]cpio.FileMode{dir: cpio.TypeDir, link: cpio.TypeSymlink, file: cpio.TypeReg}[e.kind]
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
