// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"dio/ioctlapi"
)

// describe is what a person reads about an error: what failed, and what to do
// next where that is known.
func describe(err error) string {
	msg := err.Error()
	if msg == "" {
		return ""
	}
	if h := hint(err); h != "" {
		return msg + "\n  " + h
	}
	return msg
}

// hinted carries advice that only the place of the failure knows.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// withHint adds advice to an error.
func withHint(err error, hint string) error { return &hinted{err, hint} }

// hint is advice about an error, or "".
func hint(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	path, configuring := "", false
	var api *ioctlapi.Error
	var pathErr *fs.PathError
	switch {
	case errors.As(err, &api):
		path, configuring = api.Path, api.Op != "open"
	case errors.As(err, &pathErr):
		path = pathErr.Path
	}
	onDevice := strings.HasPrefix(path, "/dev/dio")
	switch {
	case onDevice && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)):
		return "load the driver (modprobe dio, or insmod dio.ko), or run this in a VM: dioctl vm run -- dioctl ..."
	case onDevice && errors.Is(err, unix.EACCES):
		return "run it as root, or give the node to a group of yours"
	case configuring && errors.Is(err, unix.EPERM):
		return "run it as root: configuration and faults need CAP_SYS_ADMIN"
	case configuring && errors.Is(err, unix.ENOTTY):
		return "it isn't a dio device, or an older driver is loaded"
	case configuring && errors.Is(err, unix.EINVAL):
		return "a value is out of its range: kmod/uapi/dio.h says which are allowed"
	case configuring && errors.Is(err, unix.EBUSY):
		return "the capacity can't shrink while the device is mapped or requests are in flight"
	case configuring && errors.Is(err, unix.E2BIG):
		return "dioctl is newer than the loaded driver: load the driver that was built with it"
	}
	return ""
}
