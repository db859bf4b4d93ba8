// SPDX-License-Identifier: GPL-2.0-only

package audit

// Schema names the JSON form of Report.
const Schema = "dio.audit/1"

// The verdicts.
const (
	VerdictClean      = "clean"
	VerdictViolations = "violations"
	VerdictIncomplete = "incomplete"
)

// The severities of a finding.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
	SeverityAdvice  = "advice" // does not change the verdict
)

// Report is the verdict with all that led to it.
type Report struct {
	Schema      string      `json:"schema"`
	Verdict     string      `json:"verdict"`
	Operations  uint64      `json:"operations"`
	Pins        Pins        `json:"pins"`
	Completions Completions `json:"completions"`
	Findings    []Finding   `json:"findings"`
	Coverage    Coverage    `json:"coverage"`
	Lost        Lost        `json:"lost"`
}

// Pins counts FOLL_PIN pins, in pages.
type Pins struct {
	Taken       uint64 `json:"taken"`
	Released    uint64 `json:"released"`
	Outstanding uint64 `json:"outstanding"`
}

// Completions counts asynchronous operations.
type Completions struct {
	Queued    uint64 `json:"queued"`
	Completed uint64 `json:"completed"`
}

// Finding is one broken rule at one place.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity string   `json:"severity"`
	Count    uint64   `json:"count"`
	Module   string   `json:"module"`
	Function string   `json:"function"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Stack    []string `json:"stack"`
	PID      int      `json:"pid"`
	Comm     string   `json:"comm"`
	Pages    uint64   `json:"pages"`
	Explain  string   `json:"explain"`
}
