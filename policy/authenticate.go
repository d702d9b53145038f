// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// authenticate finds the key of a request, and sets g to what it gives access to.
func (e *Engine) authenticate(h *Head, s *Snapshot, g *grant, now time.Time) *Denial {
	secret, denial := h.secret()
	if denial != nil {
		return denial
	}
	hash := HashKey(secret)
	if !s.keys.find(&hash, g) && !s.keys.findPinned(secret, &hash, g) || hash == e.devHash && !e.dev {
		return badKey("Incorrect API key provided.")
	}
	// From here on the client has proved that it holds the secret: it may know what became of it.
	if denial := g.key.unusable(&hash, now); denial != nil {
		return denial
	}
	if len(g.key.Networks) > 0 && !within(g.key.Networks, h.Address) {
		return wrongAddress()
	}
	tenant, denial := s.tenantOf(&g.key)
	if denial != nil {
		return denial
	}
	g.tenant, g.hash = tenant, hash
	return nil
}

// authenticateAgain sees whether the key of an exchange still works when its body has come, which may be minutes after its head.
func (e *Engine) authenticateAgain(g *grant) *Denial {
	s := e.snapshot.Load()
	entry, ok := s.keys.entry(&g.hash)
	if !ok || entry.record.id != g.key.ID {
		return badKey("Incorrect API key provided.")
	}
	entry.tags = "" // not to be read again
	var now grant
	entry.grant(&now)
	if denial := now.key.unusable(&g.hash, e.clock()); denial != nil {
		return denial
	}
	_, denial := s.tenantOf(&now.key)
	return denial
}

// unusable says why a key cannot be used any more with a secret of the given hash; nil: it can.
func (k *Key) unusable(hash *KeyHash, now time.Time) *Denial {
	switch {
	case k.Revoked:
		return badKey("This API key has been revoked.")
	case k.Disabled:
		return badKey("This API key is disabled. Ask whoever gave it to you.")
	case *hash == k.Previous && !now.Before(k.PreviousUntil):
		return badKey("This API key has been replaced by a new one. Ask whoever gave it to you.")
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return badKey("This API key has expired.")
	}
	return nil
}

// tenantOf returns the tenant of a key, if its keys can be used.
func (s *Snapshot) tenantOf(k *Key) (Tenant, *Denial) {
	tenant, known := s.tenants[k.Tenant]
	if !known { // the key has come before its tenant
		return Tenant{}, notReady()
	}
	if tenant.Disabled {
		return Tenant{}, badKey("The account of this API key is disabled.")
	}
	return tenant, nil
}

// within reports whether an address is in one of the networks. One that is not known is in none.
func within(networks []netip.Prefix, address string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// findPinned takes a secret apart that has a channel behind it, "sk-KEY-CHANNEL", and finds the key if it may be used so. The hash is set to
// that of the key. Neither the key nor the name of the channel need be free of hyphens: each of the last few may be the one between them.
func (r *Keyring) findPinned(secret string, hash *KeyHash, g *grant) bool {
	const most = 8
	at := len(secret)
	for range most {
		if at = strings.LastIndexByte(secret[:at], '-'); at <= 0 {
			break
		}
		if h := HashKey(secret[:at]); at < len(secret)-1 && r.find(&h, g) && g.key.Pinnable {
			*hash, g.pin = h, secret[at+1:]
			return true
		}
	}
	*g = grant{}
	return false
}
