package forecast

import (
	"math"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
)

// Accuracy is how far predicted and actual counts were apart.
type Accuracy struct {
	Bins     int     // compared
	Actual   float64 // play starts in all
	Forecast float64
	MAPE     float64 // mean of |forecast - actual|/actual over the bins where anybody came, per cent
	WAPE     float64 // sum of |forecast - actual| over the sum of actual, per cent: small bins weigh little
	Bias     float64 // sum of (forecast - actual) over the sum of actual, per cent
}

// tally adds up an Accuracy.
type tally struct {
	bins, came                            int
	actual, forecast, absolute, relatives float64
}

func (t *tally) add(forecast, actual float64) {
	t.bins++
	t.actual += actual
	t.forecast += forecast
	t.absolute += math.Abs(forecast - actual)
	if actual > 0 {
		t.came++
		t.relatives += math.Abs(forecast-actual) / actual
	}
}

func (t tally) accuracy() Accuracy {
	a := Accuracy{Bins: t.bins, Actual: t.actual, Forecast: t.forecast}
	if t.came > 0 {
		a.MAPE = 100 * t.relatives / float64(t.came)
		a.WAPE = 100 * t.absolute / t.actual
		a.Bias = 100 * (t.forecast - t.actual) / t.actual
	}
	return a
}

// CompareBin is the bin that reports compare in.
const CompareBin = 5 * time.Second

// Bin is forecast and actual play starts over one stretch of time.
type Bin struct {
	At       time.Duration // its beginning, from T+0
	Forecast float64
	Actual   float64
}

// Compare puts a forecast (points as of a leg) beside the starts seen in each second from T+0, in bins of CompareBin; a last
// bin that is not whole is left out.
func Compare(points []audience.Point, perSecond []float64) ([]Bin, Accuracy) {
	c := newCurve(points)
	var bins []Bin
	var t tally
	width := int(CompareBin / time.Second)
	for i := 0; i+width <= len(perSecond); i += width {
		b := Bin{At: time.Duration(i) * time.Second}
		b.Forecast = c.count(b.At, b.At+CompareBin)
		for _, n := range perSecond[i : i+width] {
			b.Actual += n
		}
		t.add(b.Forecast, b.Actual)
		bins = append(bins, b)
	}
	return bins, t.accuracy()
}
