// SPDX-License-Identifier: GPL-2.0-only

package ioctlapi

import (
	"fmt"
	"math/bits"
	"strings"
)

// Model is what kind of device a dio device plays (enum dio_model).
type Model uint32

const (
	ModelRAM  Model = 0 // a sparse store in memory
	ModelNull Model = 1 // moves nothing; reads leave the buffer as it was
	ModelDisk Model = 2 // latency, jitter, bandwidth, queue depth
	ModelTape Model = 3 // one head that streams, stalls and seeks
	ModelEdu  Model = 4 // hardware, QEMU's edu; no other device can be set to it
)

// Family is how callers' pages are held for O_DIRECT (enum dio_family).
type Family uint32

const (
	FamilyPin Family = 0 // FOLL_PIN, given back by unpin
	FamilyGet Family = 1 // FOLL_GET, given back by put_page
)

// Completion is who finishes a request (enum dio_completion).
type Completion uint32

const (
	CompletionAuto   Completion = 0 // inline without a latency, else worker
	CompletionInline Completion = 1 // the caller; needs latency 0
	CompletionWorker Completion = 2 // a workqueue, after the latency
	CompletionTimer  Completion = 3 // the timer itself where nothing has to be dirtied
)

// Distribution is how the random part of a disk's latency is spread (enum
// dio_distribution).
type Distribution uint32

const (
	DistributionUniform     Distribution = 0 // 0 to Config.JitterNS
	DistributionExponential Distribution = 1 // a long tail, Config.JitterNS on average
)

// FaultID names a bug that the driver can commit (enum dio_fault_id). Its text
// is the name of its class, and of the audit rule that must catch it.
type FaultID uint32

const (
	FaultNone           FaultID = 0
	FaultPinLeak        FaultID = 1
	FaultOverUnpin      FaultID = 2
	FaultDirtyMissing   FaultID = 3
	FaultDirtyNeedless  FaultID = 4
	FaultEarlyComplete  FaultID = 5
	FaultDoubleComplete FaultID = 6
	FaultLostComplete   FaultID = 7
	FaultSyncAsAsync    FaultID = 8

	FaultArrayLeak           FaultID = 9
	FaultZeroPagePin         FaultID = 10
	FaultDirtyUnlocked       FaultID = 11
	FaultDirtyLate           FaultID = 12
	FaultResultRange         FaultID = 13
	FaultWrongOffset         FaultID = 14
	FaultLengthOverflow      FaultID = 15
	FaultCancelAfterComplete FaultID = 16
	FaultCompleteAfterCancel FaultID = 17
	FaultCancelFnMisuse      FaultID = 18
	FaultUseAfterComplete    FaultID = 19
	FaultLongtermMissing     FaultID = 20
	FaultLongtermFile        FaultID = 21
	FaultInfoleak            FaultID = 22
	FaultMemlockUnaccounted  FaultID = 23
	faultCount                       = 24
)

// Holds says whether the driver gives back by itself what the fault put aside,
// after Fault.HoldMS.
func (f FaultID) Holds() bool { return f == FaultLostComplete || f == FaultLongtermMissing }

// Faults are all faults that the driver knows. Some can't be armed on every
// kernel: EOPNOTSUPP.
func Faults() []FaultID {
	ids := make([]FaultID, 0, faultCount-1)
	for id := FaultNone + 1; id < faultCount; id++ {
		ids = append(ids, id)
	}
	return ids
}

var (
	modelNames        = []string{"ram", "null", "disk", "tape", "edu"}
	familyNames       = []string{"pin", "get"}
	completionNames   = []string{"auto", "inline", "worker", "timer"}
	distributionNames = []string{"uniform", "exponential"}
	faultNames        = []string{"none", "pin-leak", "over-unpin", "dirty-missing", "dirty-needless",
		"early-complete", "double-complete", "lost-complete", "sync-as-async",
		"array-leak", "zero-page-pin", "dirty-unlocked", "dirty-late", "result-range", "wrong-offset", "length-overflow",
		"cancel-after-complete", "complete-after-cancel", "cancel-fn-misuse", "use-after-complete",
		"longterm-missing", "longterm-file", "infoleak", "memlock-unaccounted"}
)

func enumString(what string, names []string, v uint32) string {
	if uint64(v) < uint64(len(names)) {
		return names[v]
	}
	return fmt.Sprintf("%s(%d)", what, v)
}

func enumParse(what string, names []string, s string) (uint32, error) {
	for i, n := range names {
		if n == s {
			return uint32(i), nil
		}
	}
	return 0, fmt.Errorf("unknown %s %q: one of %s", what, s, strings.Join(names, ", "))
}

// String is the model's name, as ParseModel takes it, or model(N).
func (m Model) String() string { return enumString("model", modelNames, uint32(m)) }

// String is the family's name, as ParseFamily takes it, or family(N).
func (f Family) String() string { return enumString("family", familyNames, uint32(f)) }

// String is the name of who completes, as ParseCompletion takes it, or completion(N).
func (c Completion) String() string { return enumString("completion", completionNames, uint32(c)) }

// String is the distribution's name, as ParseDistribution takes it, or distribution(N).
func (d Distribution) String() string {
	return enumString("distribution", distributionNames, uint32(d))
}

// String is the fault's name, as ParseFault takes it, or fault(N).
func (f FaultID) String() string { return enumString("fault", faultNames, uint32(f)) }

// ParseModel is the reverse of Model.String.
func ParseModel(s string) (Model, error) {
	v, err := enumParse("model", modelNames, s)
	return Model(v), err
}

// ParseFamily is the reverse of Family.String.
func ParseFamily(s string) (Family, error) {
	v, err := enumParse("family", familyNames, s)
	return Family(v), err
}

// ParseCompletion is the reverse of Completion.String.
func ParseCompletion(s string) (Completion, error) {
	v, err := enumParse("completion", completionNames, s)
	return Completion(v), err
}

// ParseDistribution is the reverse of Distribution.String.
func ParseDistribution(s string) (Distribution, error) {
	v, err := enumParse("distribution", distributionNames, s)
	return Distribution(v), err
}

// ParseFault is the reverse of FaultID.String, for the faults that can be armed.
func ParseFault(s string) (FaultID, error) {
	v, err := enumParse("fault", faultNames[1:], s)
	if err != nil {
		return FaultNone, err
	}
	return FaultID(v + 1), nil
}

// MarshalText makes JSON carry the name. It never fails.
func (m Model) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// MarshalText makes JSON carry the name. It never fails.
func (f Family) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// MarshalText makes JSON carry the name. It never fails.
func (c Completion) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText makes JSON carry the name. It never fails.
func (d Distribution) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalText makes JSON carry the name. It never fails.
func (f FaultID) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// Features are the bits of Info.Features.
type Features uint64

const (
	FeaturePin      Features = 1 << 0  // FamilyPin
	FeatureGet      Features = 1 << 1  // FamilyGet
	FeatureAsync    Features = 1 << 2  // native AIO and io_uring are told later
	FeatureMmap     Features = 1 << 3  // mmap(2)
	FeatureSplice   Features = 1 << 4  // splice(2)
	FeatureIOPoll   Features = 1 << 5  // RWF_HIPRI, and io_uring set up with IOPOLL
	FeatureNoWait   Features = 1 << 6  // RWF_NOWAIT
	FeatureFaults   Features = 1 << 7  // ArmFault
	FeatureCancel   Features = 1 << 8  // io_cancel(2) of a queued request
	FeatureInject   Features = 1 << 9  // Inject
	FeatureDiscard  Features = 1 << 10 // Discard
	FeatureBuffers  Features = 1 << 11 // RegisterBuffer
	FeatureURingCmd Features = 1 << 12 // io_uring commands: Linux 6.1 and newer
	FeatureRemoval  Features = 1 << 13 // can be unbound while it is used
	FeatureDMA      Features = 1 << 14 // hardware moves the bytes
)

var featureNames = []string{"pin", "get", "async", "mmap", "splice", "iopoll", "nowait", "faults", "cancel", "inject", "discard",
	"buffers", "uring_cmd", "removal", "dma"}

// ConfigFields are the bits of Config.Fields.
type ConfigFields uint64

const (
	ConfigModel           ConfigFields = 1 << 0  // Config.Model
	ConfigFamily          ConfigFields = 1 << 1  // Config.Family
	ConfigCompletion      ConfigFields = 1 << 2  // Config.Completion
	ConfigLatency         ConfigFields = 1 << 3  // Config.LatencyNS
	ConfigCapacity        ConfigFields = 1 << 4  // Config.Capacity
	ConfigStoreLimit      ConfigFields = 1 << 5  // Config.StoreLimit
	ConfigMaxRequest      ConfigFields = 1 << 6  // Config.MaxRequest
	ConfigMaxInFlightFile ConfigFields = 1 << 7  // Config.MaxInFlightFile
	ConfigMaxInFlight     ConfigFields = 1 << 8  // Config.MaxInFlight
	ConfigBandwidth       ConfigFields = 1 << 9  // Config.Bandwidth
	ConfigJitter          ConfigFields = 1 << 10 // Config.JitterNS
	ConfigReposition      ConfigFields = 1 << 11 // Config.RepositionNS
	ConfigSeed            ConfigFields = 1 << 12 // Config.Seed
	ConfigDistribution    ConfigFields = 1 << 13 // Config.Distribution
	ConfigQueueDepth      ConfigFields = 1 << 14 // Config.QueueDepth
)

var configFieldNames = []string{"model", "family", "completion", "latency_ns", "capacity", "store_limit",
	"max_request", "max_in_flight_file", "max_in_flight", "bandwidth", "jitter_ns", "reposition_ns", "seed", "distribution",
	"queue_depth"}

// bitNames names each set bit; a bit without a name is shown as bitN, so that
// what a newer driver offers isn't hidden.
func bitNames(v uint64, names []string) []string {
	out := make([]string, 0, bits.OnesCount64(v))
	for i := range 64 {
		switch {
		case v&(1<<i) == 0:
		case i < len(names):
			out = append(out, names[i])
		default:
			out = append(out, fmt.Sprintf("bit%d", i))
		}
	}
	return out
}

// Names lists the features by name, lowest bit first.
func (f Features) Names() []string { return bitNames(uint64(f), featureNames) }

// String lists the names, with a space between.
func (f Features) String() string { return strings.Join(f.Names(), " ") }

// Has tells whether all of want are there.
func (f Features) Has(want Features) bool { return f&want == want }

// Names lists the fields by their C names, lowest bit first.
func (f ConfigFields) Names() []string { return bitNames(uint64(f), configFieldNames) }

// String lists the names, with a space between.
func (f ConfigFields) String() string { return strings.Join(f.Names(), " ") }
