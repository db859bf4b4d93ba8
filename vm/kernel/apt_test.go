// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeApt puts an apt of its own before this machine's. Its update says what
// the file of the suite's name in dir holds, and fails if there is one.
func fakeApt(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, script := range map[string]string{
		"apt-get": `case "$*" in
*indextargets*) exit 0 ;;
*update*) ;;
*) exit 9 ;;
esac
for suite in new old; do
	case "$*" in */apt/$suite/*) [ ! -e ` + dir + `/$suite ] || { cat ` + dir + `/$suite >&2; exit 100; } ;; esac
done`,
		"apt-cache": `for suite in new old; do
	case "$*" in */apt/$suite/*) kernel=6.1.0-$suite-cloud-amd64 ;; esac
done
case "$*" in
*pkgnames*linux-headers-*) echo linux-headers-$kernel ;;
*pkgnames*linux-image-*) echo linux-image-$kernel ;;
*pkgnames*) printf 'linux-headers-%s\nlinux-image-%s\n' $kernel $kernel ;;
*show*) echo Package: x ;;
esac`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv(mirrorEnv, "http://m.example/debian")
	return dir
}

// A suite that couldn't be asked isn't one that has nothing: the next may hold
// an older kernel.
func TestNextSuiteOnlyForWhatIsNotThere(t *testing.T) {
	row := Row{Name: "6.1", Distro: "debian", Suites: []string{"new", "old"}, Series: "6.1.", Flavour: cloud}
	for name, c := range map[string]struct{ says, want string }{
		"all is well":  {"", "6.1.0-new-cloud-amd64"},
		"no network":   {"E: Failed to fetch http://m.example/debian/dists/new/InRelease  Could not connect\nE: Some index files failed to download. They have been ignored, or old ones used instead.\n", ""},
		"locked":       {"E: Could not get lock lists/lock. It is held by process 7 (apt-get)\n", ""},
		"no suite":     {"E: The repository 'http://m.example/debian new Release' does not have a Release file.\n", "6.1.0-old-cloud-amd64"},
		"suite's gone": {"E: The repository 'http://m.example/debian new Release' no longer has a Release file.\n", "6.1.0-old-cloud-amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fakeApt(t)
			if c.says != "" {
				if err := os.WriteFile(filepath.Join(dir, "new"), []byte(c.says), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f, err := find(context.Background(), bookworm, row, quiet{})
			switch {
			case c.want == "" && (err == nil || !strings.Contains(err.Error(), strings.TrimSpace(strings.Split(c.says, "\n")[0]))):
				t.Errorf("%+v, %v", f, err)
			case c.want != "" && (err != nil || f.release != c.want):
				t.Errorf("%+v, %v; want %s", f, err, c.want)
			}
			if err != nil {
				return
			}
			// It is held until the packages are here, and free then.
			stopped, stop := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer stop()
			if _, err := newApt(stopped, "debian", f.suite, "http://m.example/debian", quiet{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a second apt for %s: %v", f.suite, err)
			}
			f.apt.close()
			a, err := newApt(context.Background(), "debian", f.suite, "http://m.example/debian", quiet{})
			if err != nil {
				t.Fatal(err)
			}
			a.close()
		})
	}
}

// A key that is missing isn't the network's fault; and without it the next suite isn't
// asked, for there it's missing, too.
func TestMissingKey(t *testing.T) {
	row := Row{Name: "6.1", Distro: "debian", Suites: []string{"new", "old"}, Series: "6.1.", Flavour: cloud}
	for name, says := range map[string]string{
		"gpgv": "W: GPG error: http://m.example/debian new InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 0123456789ABCDEF\nE: The repository 'http://m.example/debian new InRelease' is not signed.\n",
		"sqv":  "W: OpenPGP signature verification failed: http://m.example/debian new InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 0123456789ABCDEF, which is needed to verify signature.\nE: The repository 'http://m.example/debian new InRelease' is not signed.\n",
	} {
		dir := fakeApt(t)
		if err := os.WriteFile(filepath.Join(dir, "new"), []byte(says), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := find(context.Background(), bookworm, row, quiet{})
		if err == nil || !strings.Contains(err.Error(), "install debian-archive-keyring") || strings.Contains(err.Error(), "network") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nothing of this machine's apt is run for, or decides about, the private one.
func TestPrivateAptHasTheLastWord(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("no apt here")
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	machine := t.TempDir()
	parts, hooked := filepath.Join(machine, "parts"), filepath.Join(machine, "hooked")
	config := filepath.Join(machine, "machine.conf")
	if err := errors.Join(os.Mkdir(parts, 0o755),
		os.WriteFile(config, []byte("Dir::Etc::parts \""+parts+"\";\n"), 0o600),
		os.WriteFile(filepath.Join(parts, "99hooks"), []byte(`APT::Update::Pre-Invoke { "touch `+hooked+`"; };
APT::Update::Post-Invoke { "touch `+hooked+`"; };
APT::Update::Post-Invoke-Success { "touch `+hooked+`"; };
DPkg::Post-Invoke { "touch `+hooked+`"; };
APT::Architectures { "arm64"; };
Dir::State "/nonexistent";
APT::Default-Release "another-release";
Acquire::http::Proxy "http://proxy.example";
`), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("APT_CONFIG", config)
	a, err := newApt(context.Background(), "debian", "suite", "http://m.example/debian", quiet{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	// Without sources an update needs no network.
	if err := os.WriteFile(filepath.Join(a.dir, "sources.list"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.update(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(hooked); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a hook ran: %v", err)
	}
	dump, err := a.output(context.Background(), "apt-config", "dump")
	if err != nil {
		t.Fatal(err)
	}
	for _, no := range []string{"Invoke:: ", "arm64", "/nonexistent", "another-release"} {
		if strings.Contains(dump, no) {
			t.Errorf("its configuration has %s", no)
		}
	}
	if !strings.Contains(dump, "proxy.example") {
		t.Error("the machine's proxy is lost")
	}
}
