// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"time"

	"github.com/google/uuid"
)

// BudgetTerms are what a budget is set to. What is absent stays as it is; a new budget is for a month unless it says otherwise.
type BudgetTerms struct {
	AmountNanoUSD *int64  `json:"amount_nanousd,omitempty"` // of each period
	Period        *string `json:"period,omitempty"`         // day, week, month or never
	Notices       *[]int  `json:"notices,omitempty"`        // percent of the credit at which the webhook is told
}

// Budget is what a key or a tenant may spend, and how that stands.
type Budget struct {
	ID            int64      `json:"id"`
	Tenant        string     `json:"tenant"`
	Key           *string    `json:"key"` // null: the budget is the tenant's
	AmountNanoUSD int64      `json:"amount_nanousd"`
	Period        string     `json:"period"`
	TimeZone      string     `json:"time_zone"` // of the tenant
	Notices       []int      `json:"notices"`
	Began         *time.Time `json:"began"`  // null for a budget that never renews
	Renews        *time.Time `json:"renews"` // null for a budget that never renews
	CreditNanoUSD int64      `json:"credit_nanousd"`
	SpentNanoUSD  int64      `json:"spent_nanousd"`
	LeasedNanoUSD int64      `json:"leased_nanousd"` // by processors, and not spent
	LeftNanoUSD   int64      `json:"left_nanousd"`   // neither spent nor leased
	Leases        []Lease    `json:"leases"`         // empty in lists
	Created       time.Time  `json:"created"`
}

// Lease is what one processor holds of a budget.
type Lease struct {
	Holder         uuid.UUID `json:"holder"` // the identity of the processor's journal
	GrantedNanoUSD int64     `json:"granted_nanousd"`
	SpentNanoUSD   int64     `json:"spent_nanousd"`
	Asked          time.Time `json:"asked"`
	Seen           time.Time `json:"seen"` // when the processor was last heard of
}

// TopUp asks to add to the credit of the present period.
type TopUp struct {
	AmountNanoUSD int64  `json:"amount_nanousd"`
	Reference     string `json:"reference"` // of the payment; it is booked once
	Note          string `json:"note,omitempty"`
}

// ToppedUp is the budget after a top-up.
type ToppedUp struct {
	Booked bool   `json:"booked"` // false: the reference had been booked before
	Budget Budget `json:"budget"`
}

// LedgerEntry is a movement of money; of what happens all the time, the sum of an hour.
type LedgerEntry struct {
	ID            int64      `json:"id"`
	Time          time.Time  `json:"time"`           // of the last movement
	Period        *time.Time `json:"period"`         // began then; null for a budget that never renews
	Kind          string     `json:"kind"`           // allowance, adjustment, top_up, grant, return, spend or release
	AmountNanoUSD int64      `json:"amount_nanousd"` // by which the balance changed
	LeasedNanoUSD int64      `json:"leased_nanousd"` // by which what is out in leases changed
	Entries       int64      `json:"entries"`        // movements
	Holder        *uuid.UUID `json:"holder"`         // whose lease; null: none
	Reference     string     `json:"reference"`
	Note          string     `json:"note"`
}

// Release asks to end the leases of a processor whose journal is lost.
type Release struct {
	Forgive bool `json:"forgive,omitempty"` // what may have been spent of them may be spent again
}

// Released is what the leases had left.
type Released struct {
	Holder        uuid.UUID `json:"holder"`
	LeasedNanoUSD int64     `json:"leased_nanousd"`
	Forgiven      bool      `json:"forgiven"`
}
