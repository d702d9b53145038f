// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/postgres/pgtest"
	"github.com/weir-proxy/weir/policy"
)

// loaded reads all keys and returns the position.
func loaded(t *testing.T, s *Store) keyPosition {
	t.Helper()
	_, _, at, err := s.loadKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A restored copy, or a standby that lagged, has counted on by the time that it is asked: only that it is another table tells.
func TestPositionOfAnotherTableHasAllKeysRead(t *testing.T) {
	s := migrated(t)
	mustKey(t, s, NewKey{Name: "k"})
	at := loaded(t, s)
	if c, err := s.pollKeys(t.Context(), at); err != nil || c.all {
		t.Errorf("of this table: all %v, %v", c.all, err)
	}
	if c, err := s.pollKeys(t.Context(), keyPosition(at.snapshot()+"@1.5")); err != nil || !c.all {
		t.Errorf("of another table: all %v, %v", c.all, err)
	}
}

// polled returns the names of the keys that changed and how many are gone.
func polled(t *testing.T, s *Store, since keyPosition) (names []string, gone int, at keyPosition) {
	t.Helper()
	c, err := s.pollKeys(t.Context(), since)
	if err != nil {
		t.Fatal(err)
	}
	if c.all {
		t.Fatal("all keys are to be read")
	}
	for _, k := range c.changed {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return names, len(c.gone), c.at
}

// TestPollSeesEachChangeOnceInWhateverOrderTheyCommit has transactions that overlap in every way.
func TestPollSeesEachChangeOnceInWhateverOrderTheyCommit(t *testing.T) {
	s := migrated(t)
	for _, name := range []string{"a", "b", "c"} {
		mustKey(t, s, NewKey{Name: name})
	}
	at := loaded(t, s)
	begin := func(name string) pgx.Tx {
		tx, err := s.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `update weir.key set disabled = not disabled where name = $1`, name); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	expect := func(want ...string) {
		t.Helper()
		var got []string
		if got, _, at = polled(t, s, at); !slices.Equal(got, want) {
			t.Errorf("saw %v, want %v", got, want)
		}
	}
	expect()
	early, late := begin("a"), begin("b")
	expect()
	ok(t, late.Commit(t.Context()))
	expect("b")
	expect() // although early still runs
	third := begin("c")
	ok(t, early.Commit(t.Context()))
	expect("a")
	ok(t, third.Rollback(t.Context()))
	expect()
	again := begin("a")
	ok(t, again.Commit(t.Context()))
	early = begin("a")
	expect("a")
	ok(t, early.Commit(t.Context()))
	expect("a")
	expect()
}

func TestPollSeesKeysThatAreGone(t *testing.T) {
	s := migrated(t)
	mustKey(t, s, NewKey{Name: "a"})
	mustKey(t, s, NewKey{Name: "b"})
	at := loaded(t, s)
	exec(t, s, `delete from weir.key where name = 'a'`)
	_, gone, at := polled(t, s, at)
	if gone != 1 {
		t.Errorf("%d keys are gone, want 1", gone)
	}
	exec(t, s, `truncate weir.key cascade`)
	c, err := s.pollKeys(t.Context(), at)
	if err != nil || !c.all {
		t.Errorf("after a truncate: %+v, %v, want that all are to be read", c, err)
	}
	if err := s.PruneKeys(t.Context()); err != nil {
		t.Error(err)
	}
	if n := query[int64](t, s, `select count(*) from weir.key_gone`); n == 0 {
		t.Error("what has just been deleted is forgotten")
	}
	exec(t, s, `update weir.key_gone set gone = now() - interval '25 hours'`)
	if err := s.PruneKeys(t.Context()); err != nil || query[int64](t, s, `select count(*) from weir.key_gone`) != 0 {
		t.Errorf("what was deleted long ago is remembered: %v", err)
	}
}

func TestPollAsksForAllWhenTheDatabaseWentBack(t *testing.T) {
	s := migrated(t)
	c, err := s.pollKeys(t.Context(), "9000000000:9000000000:")
	if err != nil || !c.all {
		t.Errorf("%+v, %v, want that all are to be read", c, err)
	}
}

// TestMigrateStampsKeysOfAnotherServer has a key as a dump brings it: changed by a transaction that this server will not reach for long.
func TestMigrateStampsKeysOfAnotherServer(t *testing.T) {
	s := migrated(t)
	mustKey(t, s, NewKey{Name: "a"})
	exec(t, s, `alter table weir.key disable trigger stamp`)
	exec(t, s, `update weir.key set row_xid = '9000000000'`)
	exec(t, s, `alter table weir.key enable trigger stamp`)
	at := loaded(t, s)
	if names, _, _ := polled(t, s, at); len(names) != 1 {
		t.Fatalf("saw %v: the test does not show what it should", names)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names, _, _ := polled(t, s, loaded(t, s)); len(names) != 0 {
		t.Errorf("saw %v each time", names)
	}
}

func TestLoadedKeysAreThoseOfTheTables(t *testing.T) {
	s := migrated(t)
	full, _ := mustKey(t, s, NewKey{
		Name: "full", Models: []string{"gpt-*", `odd"name`}, Groups: []string{"a", "b"}, Networks: []string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.7"},
		Tags: map[string]string{"team": "rot", "ort": "Köln"}, Metadata: map[string]string{"owner": "x"}, Expires: time.Now().Add(time.Hour), Pinnable: true,
	})
	mustKey(t, s, NewKey{Name: "plain"})
	rotated, _, err := s.RotateKey(t.Context(), "full", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if rotated.Previous != full.Hash || rotated.Hash == full.Hash {
		t.Errorf("rotated from %x to %+v", full.Hash, rotated)
	}
	if _, err := s.RevokeKey(t.Context(), "plain"); err != nil {
		t.Fatal(err)
	}
	c, err := s.pollKeys(t.Context(), keyPosition("3:3:@"+loaded(t, s).table()))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := s.Keys(t.Context(), KeyFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var want []policy.Key
	for _, k := range stored {
		want = append(want, k.Key)
	}
	slices.SortFunc(c.changed, func(a, b policy.Key) int { return int(a.ID - b.ID) })
	comparer := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
	if diff := cmp.Diff(c.changed, want, comparer, cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-polled +stored):\n%s", diff)
	}
	b, _, _, err := s.loadKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ring := &policy.Keyring{}
	if err := ring.Replace(b); err != nil || ring.Len() != 2 {
		t.Errorf("%d keys, %v", ring.Len(), err)
	}
}

// replica follows a database and decides by it.
type replica struct {
	engine *policy.Engine
	looks  chan Look
}

// replicas starts n of them.
func replicas(t *testing.T, dsn string, n int) []*replica {
	t.Helper()
	var all []*replica
	for range n {
		s := mustOpen(t, dsn, Options{})
		r := &replica{engine: policy.New(policy.Options{}), looks: make(chan Look, 1)}
		ring := &policy.Keyring{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.Watch(ctx, Following{Keys: ring, Apply: func(c Configuration) error {
				data := policy.SnapshotData{Keyring: ring}
				for _, tenant := range c.Tenants {
					data.Tenants = append(data.Tenants, tenant.Tenant)
				}
				snapshot, err := policy.NewSnapshot(data)
				if err == nil {
					r.engine.SetSnapshot(snapshot)
				}
				return err
			}, Seen: func(l Look) {
				select {
				case r.looks <- l:
				default:
				}
			}})
		}()
		t.Cleanup(func() {
			cancel()
			<-done //nolint:errcheck // it was told to end
		})
		all = append(all, r)
	}
	return all
}

// status is what a request with a secret gets: 0 if its head is accepted.
func (r *replica) status(secret Secret) int {
	_, _, denial := r.engine.Begin(&policy.Head{Method: "POST", Path: "/v1/chat/completions", Authorization: "Bearer " + secret.Reveal()})
	if denial == nil {
		return 0
	}
	return denial.Status
}

// TestRevocationReachesEveryReplica revokes a hundred keys, one after the other, with LISTEN and without. The time that each takes is printed; what is asserted is
// that it takes two looks at most, of which one may have been under way.
func TestRevocationReachesEveryReplica(t *testing.T) {
	for name, deaf := range map[string]bool{"listening": false, "deaf": true} {
		t.Run(name, func(t *testing.T) {
			s := migrated(t)
			if deaf { // nobody is told of anything
				exec(t, s, `create or replace function weir.hint_key() returns trigger language plpgsql as $$ begin return null; end $$`)
			}
			trials := 100
			if deaf && testing.Short() {
				trials = 10
			}
			secrets := make([]Secret, trials)
			for i := range secrets {
				_, secrets[i] = mustKey(t, s, NewKey{Name: fmt.Sprintf("k%d", i)})
			}
			all := replicas(t, s.pool.Config().ConnString(), 3)
			for _, r := range all {
				eventually(t, "the keys work", func() bool { return r.status(secrets[trials-1]) == 0 })
			}
			var took []time.Duration
			var mu sync.Mutex
			for i, secret := range secrets {
				if _, err := s.RevokeKey(t.Context(), fmt.Sprintf("k%d", i)); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var wg sync.WaitGroup
				for _, r := range all {
					wg.Go(func() {
						eventually(t, "the key is refused", func() bool { return r.status(secret) == 401 })
						mu.Lock()
						defer mu.Unlock()
						took = append(took, time.Since(began))
					})
				}
				wg.Wait()
			}
			slices.Sort(took)
			t.Logf("%d revocations on 3 replicas: median %s, 99 %% within %s, last %s", trials, took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
		})
	}
}

// TestChangeOfAKeyReadsThatKeyAlone counts the rows that a replica gets.
func TestChangeOfAKeyReadsThatKeyAlone(t *testing.T) {
	s := migrated(t)
	for i := range 50 {
		mustKey(t, s, NewKey{Name: fmt.Sprintf("k%d", i)})
	}
	at := loaded(t, s)
	if _, err := s.SetKey(t.Context(), "k7", KeyChange{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	names, _, at := polled(t, s, at)
	if !slices.Equal(names, []string{"k7"}) {
		t.Errorf("read %v", names)
	}
	// The revision is not that of keys: the rest of the configuration is not read again.
	before := query[int64](t, s, `select n from weir.revision`)
	mustKey(t, s, NewKey{Name: "new"})
	if after := query[int64](t, s, `select n from weir.revision`); after != before {
		t.Errorf("revision %d after %d", after, before)
	}
	if names, _, _ := polled(t, s, at); !slices.Equal(names, []string{"new"}) {
		t.Errorf("read %v", names)
	}
}

// TestPollFindsChangesByTheirIndex explains the query among many keys.
func TestPollFindsChangesByTheirIndex(t *testing.T) {
	s := migrated(t)
	fillKeys(t, s, 20_000)
	at := loaded(t, s)
	var lines []string
	var batch pgx.Batch
	batch.Queue(`select ` + byIndex)
	batch.Queue(`explain `+selectRing+`where`+unseen+` limit $2`, at.snapshot(), 10).Query(func(rows pgx.Rows) (err error) {
		lines, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	ok(t, s.pool.SendBatch(t.Context(), &batch).Close())
	text := strings.Join(lines, "\n")
	if got := query[string](t, s, `select current_setting('enable_seqscan')`); got != "on" {
		t.Errorf("enable_seqscan is left %s", got)
	}
	if strings.Contains(text, "Seq Scan on key") || !strings.Contains(text, "key_xid") {
		t.Errorf("the plan:\n%s", text)
	}
}

// fillKeys makes many keys with little ado.
func fillKeys(tb testing.TB, s *Store, n int) {
	tb.Helper()
	for _, sql := range []string{
		`alter table weir.key disable trigger user`,
		fmt.Sprintf(`insert into weir.key (tenant_id, hash, hint, name, models) select 1, sha256(i::text::bytea), 'sk-…', 'key-' || i,
			case when i %% 4 = 0 then array['gpt-4o*'] else '{}' end from generate_series(1, %d) i`, n),
		`alter table weir.key enable trigger user`,
		`analyze weir.key`,
	} {
		if _, err := s.pool.Exec(tb.Context(), sql); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkLoadKeys reads a million keys and makes them ready to be found.
func BenchmarkLoadKeys(b *testing.B) {
	s, err := Open(b.Context(), pgtest.Database(b), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	if err := s.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	fillKeys(b, s, 1_000_000)
	for b.Loop() {
		keys, _, _, err := s.loadKeys(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := (&policy.Keyring{}).Replace(keys); err != nil {
			b.Fatal(err)
		}
	}
}

func TestWatchFollowsKeys(t *testing.T) {
	s := migrated(t)
	_, first := mustKey(t, s, NewKey{Name: "first"})
	r := replicas(t, s.pool.Config().ConnString(), 1)[0]
	eventually(t, "the first key", func() bool { return r.status(first) == 0 })
	_, second := mustKey(t, s, NewKey{Name: "second"})
	eventually(t, "the second key", func() bool { return r.status(second) == 0 })
	_, rotated, err := s.RotateKey(t.Context(), "first", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new secret", func() bool { return r.status(rotated) == 0 })
	if got := r.status(first); got != 0 {
		t.Errorf("the secret before gets %d", got)
	}
	_, last, err := s.RotateKey(t.Context(), "first", 0)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last secret alone", func() bool { return r.status(last) == 0 && r.status(rotated) == 401 && r.status(first) == 401 })
	if _, err := s.CreateTenant(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	_, third := mustKey(t, s, NewKey{Name: "third", Tenant: "acme"})
	eventually(t, "a key of a new tenant", func() bool { return r.status(third) == 0 })
	exec(t, s, `delete from weir.key where name = 'second'`)
	eventually(t, "the end of a key that was deleted", func() bool { return r.status(second) == 401 })
	exec(t, s, `truncate weir.key cascade`)
	eventually(t, "the end of all keys", func() bool { return r.status(last) == 401 && r.status(third) == 401 })
	select {
	case l := <-r.looks:
		if l.Transaction == 0 || l.Time.IsZero() {
			t.Errorf("look = %+v", l)
		}
	case <-time.After(patience):
		t.Error("no look was told of")
	}
}

func TestWatchReadsAllWhenMuchHasChanged(t *testing.T) {
	s := migrated(t)
	_, first := mustKey(t, s, NewKey{Name: "first"})
	r := replicas(t, s.pool.Config().ConnString(), 1)[0]
	eventually(t, "the first key", func() bool { return r.status(first) == 0 })
	exec(t, s, `insert into weir.key (tenant_id, hash, hint, name) select 1, sha256(i::text::bytea), 'sk-…', 'key-' || i from generate_series(1, $1::int) i`, maxDelta+1)
	eventually(t, "the last of many keys", func() bool { return r.status(Secret(fmt.Sprint(maxDelta+1))) == 0 })
	if got := r.status(first); got != 0 {
		t.Errorf("the first key gets %d", got)
	}
}

func TestKeyTakesWhatItMayCarry(t *testing.T) {
	s := migrated(t)
	k, _ := mustKey(t, s, NewKey{Name: "k"})
	if k.Groups != nil || k.Networks != nil || k.Tags != nil || k.Metadata != nil || k.Pinnable {
		t.Errorf("made %+v", k)
	}
	change := KeyChange{
		Groups: &[]string{"a"}, Networks: &[]string{"10.0.0.0/8"}, Tags: &map[string]string{"b": "2", "a": "1"},
		Metadata: &map[string]string{"note": "x"}, Pinnable: new(true),
	}
	k, err := s.SetKey(t.Context(), "k", change)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(k.Groups, []string{"a"}) || k.Networks[0].String() != "10.0.0.0/8" || !k.Pinnable || !maps.Equal(k.Metadata, *change.Metadata) {
		t.Errorf("changed to %+v", k)
	}
	if diff := cmp.Diff(k.Tags, []policy.Tag{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}); diff != "" {
		t.Error(diff)
	}
	k, err = s.SetKey(t.Context(), "k", KeyChange{Groups: &[]string{}, Networks: &[]string{}, Tags: &map[string]string{}, Metadata: &map[string]string{}, Pinnable: new(false)})
	if err != nil || k.Groups != nil || k.Networks != nil || k.Tags != nil || k.Metadata != nil || k.Pinnable {
		t.Errorf("emptied to %+v, %v", k, err)
	}
}

func TestKeyRefusesWhatCannotBe(t *testing.T) {
	s := migrated(t)
	mustKey(t, s, NewKey{Name: "k"})
	many := map[string]string{}
	for i := range maxKeyTags + 1 {
		many[fmt.Sprint("t", i)] = ""
	}
	for says, n := range map[string]NewKey{
		"10.0.0.0/33":      {Networks: []string{"10.0.0.0/33"}},
		"10.0.0.0/8, or":   {Networks: []string{"10.1.2.3/8"}},
		"as in 10.0.0.0/8": {Networks: []string{"office"}},
		"one of IPv4":      {Networks: []string{"::ffff:10.0.0.1"}},
		"twice":            {Networks: []string{"10.0.0.1", "10.0.0.1/32"}},
		"group name":       {Groups: []string{"a b"}},
		"in the past":      {Expires: time.Now().Add(-time.Second)},
		"key name":         {Name: "a\x1bb"},
		"at most 8":        {Tags: many},
		"tag name":         {Tags: map[string]string{"a\n": ""}},
		"tag a: its value": {Tags: map[string]string{"a": "\x00"}},
		"metadata a: its":  {Metadata: map[string]string{"a": strings.Repeat("x", maxMetadataValue+1)}},
		"give one of them": {Secret: "sk-12345678", Hash: policy.HashKey("a"), Hint: "x"},
		"key hint":         {Hash: policy.HashKey("a")},
	} {
		_, _, err := s.CreateKey(t.Context(), n)
		wantError(t, err, ErrInvalid, says)
		if n.Secret == "" && n.Hash == (policy.KeyHash{}) && n.Name == "" {
			_, err := s.SetKey(t.Context(), "k", KeyChange{Groups: &n.Groups, Networks: &n.Networks, Tags: &n.Tags, Metadata: &n.Metadata, Expires: &n.Expires})
			wantError(t, err, ErrInvalid, says)
		}
	}
	_, _, err := s.RotateKey(t.Context(), "k", -time.Second)
	wantError(t, err, ErrInvalid, "overlap")
	_, _, err = s.RotateKey(t.Context(), "k", MaxOverlap+1)
	wantError(t, err, ErrInvalid, "overlap")
	if _, err := s.RevokeKey(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.RotateKey(t.Context(), "k", 0)
	wantError(t, err, ErrInvalid, "revoked")
}

// Secrets of other gateways: one-api's of 48 letters behind "sk-", new-api's of 128, and one that somebody thought of.
func TestImportedKeysKeepTheirSecrets(t *testing.T) {
	s := migrated(t)
	secrets := []string{"sk-" + strings.Repeat("a", 48), "sk-" + strings.Repeat("b", 128), "hunter2"}
	var keys []ImportedKey
	for i, secret := range secrets {
		keys = append(keys, ImportedKey{Hash: policy.HashKey(secret), Hint: "sk-…", Name: fmt.Sprint("old-", i)})
	}
	like := NewKey{Models: []string{"gpt-*"}, Pinnable: true, Networks: []string{"127.0.0.1"}}
	made, known, err := s.ImportKeys(t.Context(), like, keys)
	if err != nil || made != 3 || known != 0 {
		t.Fatalf("made %d, known %d, %v", made, known, err)
	}
	if made, known, err = s.ImportKeys(t.Context(), like, keys); err != nil || made != 0 || known != 3 {
		t.Errorf("again: made %d, known %d, %v", made, known, err)
	}
	k, err := s.Key(t.Context(), "old-1")
	if err != nil || k.Hash != policy.HashKey(secrets[1]) || !k.Pinnable || len(k.Networks) != 1 {
		t.Errorf("imported %+v, %v", k, err)
	}
	_, _, err = s.ImportKeys(t.Context(), like, []ImportedKey{{Hash: policy.HashKey("new"), Hint: "x", Name: "fresh"}, {Hash: policy.HashKey("newer"), Hint: "x", Name: "old-1"}})
	wantError(t, err, ErrExists, "old-1")
	if _, err := s.Key(t.Context(), "fresh"); err == nil {
		t.Error("an import that was refused was made in part")
	}
	_, _, err = s.ImportKeys(t.Context(), like, []ImportedKey{{Hint: "x"}})
	wantError(t, err, ErrInvalid, "no hash")
	_, _, err = s.ImportKeys(t.Context(), like, make([]ImportedKey, maxImport+1))
	wantError(t, err, ErrInvalid, "at most 1000")
	_, _, err = s.ImportKeys(t.Context(), NewKey{Tenant: "absent"}, keys)
	wantError(t, err, ErrNotFound, "absent")
}

func TestSecretOfARotatedKeyIsNobodyElses(t *testing.T) {
	s := migrated(t)
	_, secret := mustKey(t, s, NewKey{Name: "k"})
	if _, _, err := s.RotateKey(t.Context(), "k", time.Hour); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.CreateKey(t.Context(), NewKey{Secret: secret})
	wantError(t, err, ErrExists, "rotated")
	other, _ := mustKey(t, s, NewKey{Name: "other"})
	hash := policy.HashKey(secret.Reveal())
	_, err = s.SetKey(t.Context(), "other", KeyChange{Hash: &hash, Hint: new("x")})
	wantError(t, err, ErrExists, "rotated")
	hash = policy.HashKey("from elsewhere")
	_, err = s.SetKey(t.Context(), "other", KeyChange{Hash: &hash})
	wantError(t, err, ErrInvalid, "hint")
	if k, err := s.SetKey(t.Context(), "other", KeyChange{Hash: &hash, Hint: new("fr…")}); err != nil || k.Hash != hash || k.Hash == other.Hash || k.Hint != "fr…" {
		t.Errorf("changed to %+v, %v", k, err)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
