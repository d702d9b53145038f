// SPDX-License-Identifier: Apache-2.0

package usage

import "context"

// Pricer says what exchanges cost. A [Shipper] and [Intents] ask it before they write rows, each from one goroutine.
type Pricer interface {
	// Price sets the Cost of each record whose PriceVersion is not zero, by the prices of that version; it may be called again with the same records. Where no
	// price is known after all, it sets PriceVersion to zero. With an error, as when the version has to be read and the database does not answer, none of the
	// records may be written yet.
	Price(ctx context.Context, records []Record) error
}

// Reckoning is how tokens and money are reckoned where nobody has counted them.
type Reckoning struct {
	Estimator *Estimator // nil: one that has learned nothing yet
	Pricer    Pricer     // nil: nothing has a price
}

// price has p price records; without a pricer there are no prices.
func price(ctx context.Context, p Pricer, records []Record) error {
	if p == nil {
		for i := range records {
			records[i].Cost = Cost{}
		}
		return nil
	}
	return p.Price(ctx, records)
}
