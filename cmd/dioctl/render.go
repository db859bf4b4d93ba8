// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
)

// formatValue is --format.
type formatValue string

func (f *formatValue) Set(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("want text or json, not %q", s)
	}
	*f = formatValue(s)
	return nil
}

func (f *formatValue) String() string {
	if f == nil {
		return ""
	}
	return string(*f)
}

// formatFlag is --format of a command whose result has both shapes.
func formatFlag() cli.Flag {
	text := formatValue("text")
	return &cli.GenericFlag{Name: "format", Value: &text, Usage: "`FORMAT` of the result: text or json"}
}

// wantJSON tells whether the command's --format asks for JSON.
func wantJSON(c *cli.Context) bool {
	f, ok := c.Generic("format").(*formatValue)
	return ok && *f == "json"
}

// emit renders a result: v as JSON, or by text.
func emit(c *cli.Context, v any, text func(w io.Writer)) error {
	return emitTo(c.App.Writer, wantJSON(c), v, text)
}

func emitTo(w io.Writer, asJSON bool, v any, text func(w io.Writer)) error {
	if !asJSON {
		text(w)
		return nil
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table writes rows of tab-separated cells as aligned columns.
func table(w io.Writer, rows ...string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(tw, r)
	}
	tw.Flush()
}

// emitLine writes v as one line of JSON, for results that go on.
func emitLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }
