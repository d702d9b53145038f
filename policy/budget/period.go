// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"fmt"
	"strings"
	"time"
)

// Period is how often a budget renews.
type Period string

// The periods. Their names are in weir.budget and never change. They begin at midnight in the zone of the tenant: weeks on Mondays, months on their first day.
const (
	Day   Period = "day"
	Week  Period = "week"
	Month Period = "month"
	Never Period = "never"
)

// Periods returns all periods.
func Periods() []Period { return []Period{Day, Week, Month, Never} }

// ParsePeriod checks the name of a period.
func ParsePeriod(s string) (Period, error) {
	var names []string
	for _, p := range Periods() {
		if string(p) == s {
			return p, nil
		}
		names = append(names, string(p))
	}
	return "", fmt.Errorf("period %q is none of %s", shorten(s), strings.Join(names, ", "))
}

// ParseZone returns the time zone of a name such as Europe/Berlin. Empty means UTC.
func ParseZone(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, fmt.Errorf("time zone %q differs between machines: name a place, such as Europe/Berlin", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not known: name a place, such as Europe/Berlin", shorten(name))
	}
	return zone, nil
}

// Around returns when the period that t falls into began, and when the next begins. Those of Never are zero.
func (p Period) Around(t time.Time, zone *time.Location) (start, end time.Time) {
	l := t.In(zone)
	y, m, d := l.Date()
	days := 0
	switch p {
	case Day:
		days = 1
	case Week:
		d -= (int(l.Weekday()) + 6) % 7 // since Monday
		days = 7
	case Month:
		return midnight(y, m, 1, zone), midnight(y, m+1, 1, zone)
	default:
		return time.Time{}, time.Time{}
	}
	return midnight(y, m, d, zone), midnight(y, m, d+days, zone)
}

// midnight returns when a day begins. Where clocks are set forward at midnight, that is an hour later, and a day that an island leaves out begins with the
// one after it.
func midnight(y int, m time.Month, d int, zone *time.Location) time.Time {
	t := time.Date(y, m, d, 0, 0, 0, 0, zone)
	day := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	ly, lm, ld := t.Date()
	local := time.Date(ly, lm, ld, 0, 0, 0, 0, time.UTC)
	since, until := t.ZoneBounds()
	switch {
	case local.Before(day):
		return until
	case local.After(day) || t.Hour() != 0:
		return since
	}
	return t
}
