// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dio/engine"
	"dio/ioctlapi"
	"dio/vm/kernel"
)

// bashCompletion asks dioctl itself for the words; where it knows none, bash
// offers files.
const bashCompletion = `# bash completion for dioctl
_dioctl() {
	local IFS=$'\n'
	COMPREPLY=($("${COMP_WORDS[0]}" completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o bashdefault -o default -F _dioctl dioctl
`

const zshCompletion = `# zsh completion for dioctl: by way of bash's
autoload -Uz compinit bashcompinit && compinit && bashcompinit
` + bashCompletion

func completionCommand() *cli.Command {
	script := func(shell, how string, text func(*cli.App) (string, error)) *cli.Command {
		return &cli.Command{Name: shell, Usage: "the script for " + shell, Description: how, Action: func(c *cli.Context) error {
			if err := noOperands(c); err != nil {
				return err
			}
			s, err := text(rootApp(c))
			if err != nil {
				return fmt.Errorf("completion for %s: %w", shell, err)
			}
			_, err = fmt.Fprint(c.App.Writer, s)
			return err
		}}
	}
	fixed := func(s string) func(*cli.App) (string, error) {
		return func(*cli.App) (string, error) { return s, nil }
	}
	return &cli.Command{
		Name:  "completion",
		Usage: "a script that completes dioctl's commands, flags and their values in a shell",
		Subcommands: []*cli.Command{
			script("bash", "For this shell: eval \"$(dioctl completion bash)\"\n"+
				"For all to come: dioctl completion bash >~/.local/share/bash-completion/completions/dioctl", fixed(bashCompletion)),
			script("zsh", "In ~/.zshrc: eval \"$(dioctl completion zsh)\"", fixed(zshCompletion)),
			script("fish", "dioctl completion fish >~/.config/fish/completions/dioctl.fish", (*cli.App).ToFishCompletion),
			{Name: "words", Usage: "what the last of the words can become", ArgsUsage: "-- [WORD...]", Hidden: true, Action: func(c *cli.Context) error {
				for _, w := range complete(rootApp(c).Commands, c.Args().Slice()) {
					fmt.Fprintln(c.App.Writer, w)
				}
				return nil
			}},
		},
	}
}

// rootApp is the whole program: a subcommand's context may name a part of it.
func rootApp(c *cli.Context) *cli.App {
	app := c.App
	for _, up := range c.Lineage() {
		if up.App != nil {
			app = up.App
		}
	}
	return app
}

// complete lists what the last of the words (after dioctl's own name) can
// become. Nothing: it is for a file's name, or a word of the user's choice.
func complete(commands []*cli.Command, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	done, current := words[:len(words)-1], words[len(words)-1]
	var at *cli.Command
	var flag cli.Flag // whose value comes next
	for _, w := range done {
		switch {
		case w == "--":
			return nil // another program's words
		case flag != nil && w == "=":
			// bash makes three words of --flag=value
		case flag != nil:
			flag = nil
		case strings.HasPrefix(w, "-"):
			if at != nil && !strings.Contains(w, "=") {
				flag = wantsValue(at.Flags, strings.TrimLeft(w, "-"))
			}
		default:
			if i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(w) }); i >= 0 {
				at, commands = commands[i], commands[i].Subcommands
			}
		}
	}
	var can []string
	switch {
	case flag != nil:
		if values := flagValues[flag.Names()[0]]; values != nil {
			can = values()
		}
	case strings.HasPrefix(current, "-"):
		if at == nil {
			break
		}
		for _, f := range at.Flags {
			if v, ok := f.(cli.VisibleFlag); ok && v.IsVisible() {
				can = append(can, "--"+f.Names()[0])
			}
		}
	default:
		for _, c := range commands {
			if !c.Hidden {
				can = append(can, c.Name)
			}
		}
		if at != nil && (at.Name == "arm" || at.Name == "clear") {
			can = append(can, faultNames()...)
		}
	}
	can = slices.DeleteFunc(can, func(s string) bool { return !strings.HasPrefix(s, current) })
	slices.Sort(can)
	return slices.Compact(can)
}

// wantsValue is the flag of a name, if the next word is its value.
func wantsValue(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if !slices.Contains(f.Names(), name) {
			continue
		}
		if d, ok := f.(cli.DocGenerationFlag); ok && !d.TakesValue() {
			return nil
		}
		if g, ok := f.(*cli.GenericFlag); ok {
			if b, ok := g.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
				return nil
			}
		}
		return f
	}
	return nil
}

// flagValues are the words that a flag's value can be, where they are known.
var flagValues = map[string]func() []string{
	"format":       func() []string { return []string{"text", "json"} },
	"engine":       engine.Names,
	"read-engine":  engine.Names,
	"write-engine": engine.Names,
	"kernel":       kernelNames,
}

func faultNames() (names []string) {
	for _, id := range ioctlapi.Faults() {
		names = append(names, id.String())
	}
	return names
}

// kernelNames are those that this machine can fetch.
func kernelNames() (names []string) {
	host, err := kernel.ThisHost()
	if err != nil {
		return nil
	}
	for _, row := range kernel.Table(host) {
		names = append(names, row.Name)
	}
	return names
}
