// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// CacheDir is where everything fetched and built is kept for this user:
// $XDG_CACHE_HOME/dio, else ~/.cache/dio. It may not exist yet. What lies in it
// is run, so it is never where others could have prepared it.
func CacheDir() string {
	d, err := os.UserCacheDir()
	if err != nil { // neither variable is set
		home := "/" // as it is for users who have none: root's alone
		if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil && filepath.IsAbs(u.HomeDir) {
			home = u.HomeDir
		}
		d = filepath.Join(home, ".cache")
	}
	return filepath.Join(d, "dio")
}
