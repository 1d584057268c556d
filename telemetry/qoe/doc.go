// Package qoe turns a run's events into what its viewers felt: the measures that objectives are written on, and the
// figures, timeline and story of the report. Every number is computed by SQL from what the store holds, none from the
// memory of the generator.
//
// Percentiles are exact, with linear interpolation between the closest ranks and both ends included (Hyndman and Fan's
// definition 7; ClickHouse's quantileExactInclusive; Excel's PERCENTILE.INC).
//
// Names and definitions follow CTA-2066 (Streaming Quality of Experience Events, Properties and Metrics) where it has
// them; each metric says so.
package qoe
