// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// source is an archive that this machine's apt already trusts.
type source struct {
	uri, suite, component, origin string
}

// Where Debian's archives are when this machine's apt has none, as on
// Ubuntu: the user says.
const (
	mirrorEnv         = "DIO_DEBIAN_MIRROR"
	securityMirrorEnv = "DIO_DEBIAN_SECURITY_MIRROR"
)

var (
	// ErrNoApt is wrapped where packages can't be had at all.
	ErrNoApt = errors.New("apt is not on this machine")
	// ErrNoMirror is wrapped when no archive is known that has a suite.
	ErrNoMirror = errors.New("no mirror known")
)

const indexFormat = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"

// machineSources asks apt for its own sources, in whatever form they are
// written.
func machineSources(ctx context.Context) ([]source, error) {
	// The origin is known only where lists were fetched; without them apt
	// still tells what its sources say.
	all, err := indexTargets(ctx)
	if err == nil && len(all) == 0 {
		all, err = indexTargets(ctx, "--no-release-info")
	}
	return all, err
}

func indexTargets(ctx context.Context, flags ...string) ([]source, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"indextargets", "Created-By: Packages", "--format", indexFormat}, flags...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%w: kernels are fetched from Debian's or Ubuntu's archives; elsewhere give one by its path: --kernel VMLINUZ --headers DIR", ErrNoApt)
	}
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return parseSources(string(out)), nil
}

func parseSources(out string) []source {
	var all []source
	seen := map[source]bool{}
	for _, line := range strings.Split(out, "\n") {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 4 || f[0] == "" {
			continue
		}
		if strings.HasPrefix(f[3], "$(") { // not known before an apt-get update
			f[3] = ""
		}
		s := source{uri: strings.TrimSuffix(f[0], "/"), suite: strings.Trim(f[1], "/"), component: f[2], origin: f[3]}
		if !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	return all
}

// mirrorFor is the archive that has the suite, judged by the sources of
// this machine: a suite's security, or other, sister is where its own is.
func mirrorFor(h Host, sources []source, distro, suite string) (string, error) {
	security := strings.HasSuffix(suite, "-security")
	env := mirrorEnv
	if security {
		env = securityMirrorEnv
	}
	if distro == "debian" {
		if m := os.Getenv(env); m != "" {
			return m, nil
		}
	}
	if h.ID == distro {
		for _, want := range []func(s source) bool{
			func(s source) bool { return s.suite == suite },
			// Another release's suite of the same kind.
			func(s source) bool {
				return s.suite == h.Codename+"-security" && security
			},
			func(s source) bool {
				return s.suite == h.Codename && !security
			},
			func(s source) bool {
				return (s.suite == h.Codename+"-updates" || s.suite == h.Codename+"-backports") && !security
			},
		} {
			for _, s := range sources {
				if s.component == "main" && want(s) && (s.origin == "" || strings.EqualFold(s.origin, distro)) {
					return s.uri, nil
				}
			}
		}
	}
	return "", fmt.Errorf("%w: suite %s of %s: this machine's apt sources have none of its archives: add one, or set %s to a mirror's address (and install debian-archive-keyring)",
		ErrNoMirror, suite, distro, env)
}

// apt is a private apt: its own lists, cache and sources, the machine's
// proxy settings and keys, no root needed.
type apt struct {
	dir     string // under the cache, one per suite
	conf    string
	keyring string // the package of the keys that sign the suite
	free    func() // lets other processes have it
}

func (a *apt) close() { a.free() }

// keyrings that verify a distribution's archives, where packages put them.
// Debian's has the keys of all its releases.
var keyrings = map[string][]string{
	"debian": {"/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"},
	"ubuntu": {"/usr/share/keyrings/ubuntu-archive-keyring.gpg"},
}

// newApt is the suite's, which is the caller's alone until close.
func newApt(ctx context.Context, distro, suite, mirror string, p Progress) (_ *apt, err error) {
	a := &apt{dir: filepath.Join(CacheDir(), "apt", suite), keyring: distro + "-archive-keyring"}
	a.conf = filepath.Join(a.dir, "apt.conf")
	if a.free, err = lock(ctx, a.dir+".lock", p); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	signed := ""
	for _, k := range keyrings[distro] {
		if _, err := os.Stat(k); err == nil {
			signed = "[signed-by=" + k + "] "
			break
		}
	}
	conf := fmt.Sprintf(`#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
APT::Default-Release "";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
`, a.dir)
	for name, text := range map[string]string{
		"status":       "",
		"sources.list": fmt.Sprintf("deb %s%s %s main\n", signed, mirror, suite),
		"apt.conf":     conf,
	} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *apt) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// APT_CONFIG's file would be read before the machine's own, which then
	// would have the last word.
	cmd := exec.CommandContext(ctx, name, append([]string{"--config-file=" + a.conf}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

func (a *apt) output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := a.command(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLines(stderr.String(), 4))
	}
	return string(out), nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// update fetches the suite's package lists.
func (a *apt) update(ctx context.Context) error {
	// apt-get exits 0 when a list could not be had and it has none.
	_, err := a.output(ctx, "apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
	if err != nil && strings.Contains(err.Error(), " a Release file.") {
		return fmt.Errorf("fetch the package lists: %w: %w", err, errNotThere)
	}
	// Of gpgv, and of sqv.
	if err != nil && (strings.Contains(err.Error(), "NO_PUBKEY") || strings.Contains(err.Error(), "Missing key")) {
		return fmt.Errorf("fetch the package lists: %w (the key that signs them isn't here: install %s, or a newer one)", err, a.keyring)
	}
	if err != nil {
		return fmt.Errorf("fetch the package lists: %w (%s)", err, probably(a.dir))
	}
	return nil
}

// names are the packages whose names begin with prefix.
func (a *apt) names(ctx context.Context, prefix string) (map[string]bool, error) {
	out, err := a.output(ctx, "apt-cache", "pkgnames", prefix)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, n := range strings.Fields(out) {
		names[n] = true
	}
	return names, nil
}

// stanza is the candidate's control fields, empty when there is none.
func (a *apt) stanza(ctx context.Context, pkg string) (map[string]string, error) {
	out, err := a.output(ctx, "apt-cache", "show", "--no-all-versions", pkg)
	if err != nil {
		return nil, err
	}
	return parseStanza(out), nil
}

// parseStanza reads the first paragraph of control fields.
func parseStanza(text string) map[string]string {
	fields := map[string]string{}
	last := ""
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		switch {
		case strings.TrimSpace(line) == "":
			if len(fields) > 0 {
				return fields
			}
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += "\n" + strings.TrimSpace(line)
		default:
			k, v, _ := strings.Cut(line, ":")
			last = k
			fields[k] = strings.TrimSpace(v)
		}
	}
	return fields
}

// depends are the package names of a Depends field, the alternatives of
// each in their order.
func depends(field string) [][]string {
	var all [][]string
	for _, group := range strings.Split(field, ",") {
		var alts []string
		for _, alt := range strings.Split(group, "|") {
			name := strings.TrimSpace(alt)
			if i := strings.IndexAny(name, " (:["); i >= 0 {
				name = name[:i]
			}
			if name != "" {
				alts = append(alts, name)
			}
		}
		if alts != nil {
			all = append(all, alts)
		}
	}
	return all
}

// ours tells whether a dependency is part of a kernel, as against the
// system that it would be installed on.
func ours(pkg string) bool {
	for _, p := range []string{"linux-image-", "linux-binary-", "linux-modules-", "linux-headers-", "linux-kbuild-"} {
		if strings.HasPrefix(pkg, p) {
			return true
		}
	}
	return false
}

// closure is roots and all that they need of a kernel's own packages.
func (a *apt) closure(ctx context.Context, roots ...string) ([]string, error) {
	known, err := a.names(ctx, "linux-")
	if err != nil {
		return nil, err
	}
	done := map[string]bool{}
	queue := append([]string(nil), roots...)
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		if done[p] {
			continue
		}
		done[p] = true
		st, err := a.stanza(ctx, p)
		if err != nil {
			return nil, err
		}
		// Ubuntu's headers of a flavour need the common ones, which
		// aren't named by prefix of a release alone.
		for _, alts := range append(depends(st["Depends"]), depends(st["Pre-Depends"])...) {
			for _, alt := range alts {
				if ours(alt) && known[alt] {
					queue = append(queue, alt)
					break
				}
			}
		}
	}
	out := make([]string, 0, len(done))
	for p := range done {
		out = append(out, p)
	}
	sort.Strings(out)
	return out, nil
}

// download fetches the packages into dir; what apt says of its progress
// goes to progress.
func (a *apt) download(ctx context.Context, dir string, pkgs []string, progress io.Writer) error {
	cmd := a.command(ctx, "apt-get", append([]string{"-q", "download"}, pkgs...)...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, progress), &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("apt-get download %s: %w: %s (%s)", strings.Join(pkgs, " "), err, lastLines(out.String(), 4), probably(dir))
	}
	return nil
}
