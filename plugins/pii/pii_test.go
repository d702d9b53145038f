// SPDX-License-Identifier: Apache-2.0

package pii

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func found(text string, kinds Kind) (out []string) {
	for f := range Scan([]byte(text), kinds) {
		out = append(out, text[f.Start:f.End])
	}
	return out
}

func TestWhatHasTheFormIsFound(t *testing.T) {
	t.Parallel()
	key := strings.Repeat("a1B2", 12)
	for _, tt := range []struct {
		kind Kind
		text string
		want []string
	}{
		{Email, "Write to jo.doe+x@mail.example.org. Or a@b.co, not a@b or @c.de.", []string{"jo.doe+x@mail.example.org", "a@b.co"}},
		{Email, "é@b.org a..b@c.org a@b..org x@y.z1 <me@it.io>", []string{"a..b@c.org", "me@it.io"}},
		{Card, "4111 1111 1111 1111, 4111-1111-1111-1112, 378282246310005 and 5500005555555559x", []string{"4111 1111 1111 1111", "378282246310005"}},
		{Card, "0000 0000 0000 0000 and 12345678901234567890", nil},
		{IBAN, "DE89 3704 0044 0532 0130 00, GB82WEST12345698765432; DE88370400440532013000", []string{"DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"}},
		{SSN, "123-45-6789 000-12-3456 666-12-3456 912-12-3456 123-00-4567 123-45-67890 x123-45-6789", []string{"123-45-6789"}},
		{IPv4, "10.0.0.1 256.1.1.1 1.2.3 1.2.3.4.5 01.2.3.4 192.168.1.255.", []string{"10.0.0.1", "192.168.1.255"}},
		{Phone, "+49 (30) 123-456-78, +1 23, 030 12345678, +123456789012345678", []string{"+49 (30) 123-456-78"}},
		{Secret, "key sk-" + key + " and AKIA0123456789ABCDEF, sk-short, ask-" + key, []string{"sk-" + key, "AKIA0123456789ABCDEF"}},
		{Secret, "ghp_" + key[:36] + " eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop", []string{"ghp_" + key[:36], "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop"}},
		{Secret, "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb", []string{"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"}},
		{Secret, "-----BEGIN CERTIFICATE-----", nil},
		{Email | IPv4, "a@b.org 10.0.0.1 123-45-6789", []string{"a@b.org", "10.0.0.1"}},
	} {
		if got := found(tt.text, tt.kind); !slices.Equal(got, tt.want) {
			t.Errorf("%d in %q: %q, want %q", tt.kind, tt.text, got, tt.want)
		}
	}
	if n := All.Count(); n != 7 {
		t.Errorf("there are %d kinds", n)
	}
}

func TestScanningAllocatesNothing(t *testing.T) {
	text := []byte(strings.Repeat("All work and no play: a@b.org, 10.0.0.1, 4111 1111 1111 1111. ", 50))
	n := testing.AllocsPerRun(10, func() {
		for range Scan(text, All) {
		}
	})
	if n > 1 { // what the iterator itself takes
		t.Errorf("%v allocations", n)
	}
}

// FuzzScan looks for texts on which the search panics, or finds pieces that are out of order, overlap or are of a kind that was not asked for.
func FuzzScan(f *testing.F) {
	f.Add([]byte("a@b.org 10.0.0.1 4111 1111 1111 1111 +49 30 12345678 DE89370400440532013000"), uint32(All))
	f.Fuzz(func(t *testing.T, text []byte, kinds uint32) {
		before := bytes.Clone(text)
		at := 0
		for found := range Scan(text, Kind(kinds)) {
			if found.Start < at || found.End <= found.Start || found.End > len(text) || uint32(found.Kind)&kinds == 0 {
				t.Fatalf("%+v after %d in %q", found, at, text)
			}
			at = found.End
		}
		if !bytes.Equal(before, text) {
			t.Fatal("the text was changed")
		}
	})
}

func BenchmarkScan(b *testing.B) {
	text := []byte(strings.Repeat("All work and no play makes Jack a dull boy, he said to 3 of 12 people. ", 58))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		for range Scan(text, All) {
		}
	}
}
