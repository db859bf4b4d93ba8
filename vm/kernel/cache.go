// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"os"
	"path/filepath"
)

// CacheDir is where everything fetched and built is kept for this user:
// $XDG_CACHE_HOME/dio, else ~/.cache/dio. It may not exist yet.
func CacheDir() string {
	d, err := os.UserCacheDir()
	if err != nil { // neither variable is set
		d = filepath.Join(os.TempDir(), "dio-cache")
		return d
	}
	return filepath.Join(d, "dio")
}
