// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"

	"github.com/google/uuid"
)

// MaxCharged bounds how many budgets one exchange is charged to: that of its key, of its tenant, and of the tenants above that.
const MaxCharged = 8

// MaxReserved is the most that one exchange may be held to cost: a thousand million dollars, in nano-dollars. Sums of such amounts are checked, and this
// leaves them room.
const MaxReserved = 1_000_000_000_000_000_000

// Account is a budget in one of its periods.
type Account struct {
	Budget int64 // its id; positive
	Period int64 // when the period began, in seconds since 1970; 0 for a budget that never renews
}

// Charges say what an exchange is charged to. They are fixed at its admission and travel in the ticket, so that whoever writes its row charges the same
// budgets, whatever becomes of these in the meantime, and takes the cost out of what was leased for it.
type Charges struct {
	Holder   uuid.UUID // who holds the leases
	Reserved int64     // nano-dollars, at most MaxReserved: what the exchange may cost
	Accounts []Account // at most [MaxCharged]; none: nothing is charged
}

// Charge notes what the exchange is charged to. One [Accountant] may call it, within Reserve.
func (d *Demand) Charge(c Charges) { d.charges = c }

// Charged returns what Charge noted.
func (d *Demand) Charged() Charges { return d.charges }

// Layout, behind the tags; where there are none of these, behind a zero in the place of their number:
//
//	holder (16) | reserved | n | n × (budget | period)
func appendCharges(b []byte, c *Charges, tagged bool) []byte {
	if len(c.Accounts) == 0 {
		return b
	}
	if !tagged {
		b = append(b, 0)
	}
	b = append(b, c.Holder[:]...)
	b = binary.AppendUvarint(b, uint64(max(c.Reserved, 0))) //nolint:gosec // not negative
	n := min(len(c.Accounts), MaxCharged)
	b = binary.AppendUvarint(b, uint64(n)) //nolint:gosec // it is small
	for _, a := range c.Accounts[:n] {
		b = binary.AppendUvarint(b, uint64(a.Budget)) //nolint:gosec // positive
		b = binary.AppendVarint(b, a.Period)
	}
	return b
}

// rest reads what may follow on the channels: tags, charges.
func (r *ticketReader) rest(t *Ticket) {
	if len(r.b) == 0 || r.failed {
		return
	}
	if r.b[0] == 0 {
		r.byte()
		t.Charges = r.charges()
		return
	}
	if t.Tags = r.tags(); len(r.b) > 0 {
		t.Charges = r.charges()
	}
}

func (r *ticketReader) charges() (c Charges) {
	copy(c.Holder[:], r.bytes(len(c.Holder)))
	c.Reserved = r.id()
	n := r.uvarint()
	if n == 0 || n > MaxCharged {
		r.failed = true
	}
	for i := uint64(0); i < n && !r.failed; i++ {
		a := Account{Budget: r.id(), Period: r.varint()}
		r.failed = r.failed || a.Budget == 0
		c.Accounts = append(c.Accounts, a)
	}
	return c
}

func (r *ticketReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if r.failed || n <= 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return v
}
