// Package verdict decides GO, NO-GO or INCONCLUSIVE from what was measured. It is pure: figures in, sentence out.
//
// Evidence comes before objectives: when a fault was not confirmed, or telemetry is incomplete, no figure of the run can
// be trusted to say either GO or NO-GO, and the verdict is inconclusive.
package verdict
