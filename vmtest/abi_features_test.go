// SPDX-License-Identifier: GPL-2.0-only

package vmtest

import (
	"testing"

	"dio/ioctlapi"
)

// Each device tells exactly what it can do on this kernel.
func TestABIFeatures(t *testing.T) {
	both := ioctlapi.FeaturePin | ioctlapi.FeatureGet | ioctlapi.FeatureAsync | ioctlapi.FeatureSplice | ioctlapi.FeatureIOPoll |
		ioctlapi.FeatureNoWait | ioctlapi.FeatureFaults | ioctlapi.FeatureCancel | ioctlapi.FeatureInject | ioctlapi.FeatureBuffers |
		ioctlapi.FeatureRemoval
	if kernelAtLeast(t, 6, 1) { // for 5.19, which had them first, there's no support
		both |= ioctlapi.FeatureURingCmd
	}
	for _, c := range []struct {
		d      *ioctlapi.Device
		driver string
		want   ioctlapi.Features
	}{
		{openDevice(t), "dio", both | ioctlapi.FeatureMmap | ioctlapi.FeatureDiscard},
		{edu(t, eduPath), "dio-edu", both | ioctlapi.FeatureDMA},
	} {
		info, err := c.d.Info()
		if err != nil || info.DriverName() != c.driver || info.Features != c.want {
			t.Errorf("%s: %q can %v, %v, want %v", c.d.Path(), info.DriverName(), info.Features, err, c.want)
		}
	}
}
