// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weir-proxy/weir/internal/prices"
)

// RegisterPrices makes a list of prices known, unless it is. If it is new, and no later one is known, it is in force from then on.
func (s *Store) RegisterPrices(ctx context.Context, list string) error {
	t, err := prices.Parse(list)
	if err != nil {
		return invalid("list of prices: %v", err)
	}
	hash := prices.HashList(list)
	err = s.change(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `insert into weir.price_list (hash, name, date, body) values ($1, $2, $3::text::date, $4) on conflict do nothing`,
			hash[:], t.Version(), t.Date(), list)
		return err
	})
	if err != nil {
		return fmt.Errorf("register the list of prices %s: %w", t.Version(), err)
	}
	return nil
}

// PriceList returns the text of a list, by its hash.
func (s *Store) PriceList(ctx context.Context, hash prices.Hash) (string, error) {
	body, err := one(ctx, s.pool, pgx.RowTo[string], `select body from weir.price_list where hash = $1`, hash[:])
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("list of prices %x: %w", hash[:4], ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("read list of prices: %w", err)
	}
	return body, nil
}

// PriceVersion returns the prices of a version. The error for one that the database does not have wraps [ErrNotFound] and [prices.ErrUnknownVersion].
func (s *Store) PriceVersion(ctx context.Context, id int64) (prices.Version, error) {
	v, err := one(ctx, s.pool, scanPriceVersion, selectPriceVersion+`where v.id = $1`, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return prices.Version{}, fmt.Errorf("%w: %w %d", ErrNotFound, prices.ErrUnknownVersion, id)
	}
	if err != nil {
		return prices.Version{}, fmt.Errorf("read version %d of the prices: %w", id, err)
	}
	return v, nil
}

// PriceTable returns the prices of a version, or with zero those in force, and which version that is. Before any processor was there it is the list of this program, with
// the version zero.
func (s *Store) PriceTable(ctx context.Context, id int64) (*prices.Table, int64, error) {
	var v prices.Version
	var err error
	if id != 0 {
		v, err = s.PriceVersion(ctx, id)
	} else {
		v, err = pricesInForce(ctx, s.pool)
	}
	if err != nil {
		return nil, 0, err
	}
	list := prices.Embedded()
	if v.ID != 0 && v.List != prices.HashList(prices.EmbeddedList()) {
		text, err := s.PriceList(ctx, v.List)
		if err != nil {
			return nil, 0, err
		}
		if list, err = prices.Parse(text); err != nil {
			return nil, 0, fmt.Errorf("list of prices %x: %w", v.List[:4], err)
		}
	}
	table, err := v.Apply(list)
	if err != nil {
		return nil, 0, fmt.Errorf("version %d of the prices: %w", v.ID, err)
	}
	return table, v.ID, nil
}

const selectPriceVersion = `select v.id, l.hash, v.own from weir.price_version v join weir.price_list l on l.id = v.list_id `

func scanPriceVersion(row pgx.CollectableRow) (v prices.Version, err error) {
	var hash []byte
	err = row.Scan(&v.ID, &hash, &v.Own)
	copy(v.List[:], hash)
	return v, err
}

// pricesInForce returns the last version; its ID is zero if there is none.
func pricesInForce(ctx context.Context, q querier) (prices.Version, error) {
	v, err := one(ctx, q, scanPriceVersion, selectPriceVersion+`order by v.id desc limit 1`)
	if errors.Is(err, pgx.ErrNoRows) {
		return prices.Version{}, nil
	}
	return v, err
}

const (
	priceColumns = `model, service, above, coalesce(max_input, 0), coalesce(max_output, 0), input, cached_input, cache_write, output, reasoning,
		audio_input, audio_output, image_input, image_output`
	priceOrder = ` order by model, service, above`
)

func scanPrice(row pgx.CollectableRow) (p prices.Row, err error) {
	err = row.Scan(&p.Model, &p.Service, &p.Above, &p.MaxInput, &p.MaxOutput, &p.Input, &p.CachedInput, &p.CacheWrite, &p.Output, &p.Reasoning,
		&p.AudioInput, &p.AudioOutput, &p.ImageInput, &p.ImageOutput)
	return p, err
}

// Prices returns the deployment's own prices by model, those of one model together and its standard price first.
func (s *Store) Prices(ctx context.Context) ([]prices.Row, error) {
	rows, err := many(ctx, s.pool, scanPrice, `select `+priceColumns+` from weir.price`+priceOrder)
	if err != nil {
		return nil, fmt.Errorf("list prices: %w", err)
	}
	return rows, nil
}

// SetPrice makes rows the whole price of a model, in place of what it had, and returns it. A change is in force on each processor when it has the
// revision of the configuration that it makes; nothing that was admitted before costs more or less for it.
func (s *Store) SetPrice(ctx context.Context, model string, rows []prices.Row) ([]prices.Row, error) {
	if err := checkPrice(model, rows); err != nil {
		return nil, err
	}
	var set []prices.Row
	err := s.change(ctx, func(tx pgx.Tx) error {
		// The rows of the model are replaced by one statement, so that there is one version of the prices more, not two.
		if _, err := tx.Exec(ctx, `with gone as (
				delete from weir.price p where model = $1 and not exists (select from jsonb_to_recordset($2) r (service text, above bigint)
					where coalesce(r.service, '') = p.service and coalesce(r.above, 0) = p.above))
			insert into weir.price
			select $1, coalesce(service, ''), coalesce(above, 0), max_input, max_output, input, cached_input, cache_write, output, reasoning,
				audio_input, audio_output, image_input, image_output
			from jsonb_to_recordset($2) r (service text, above bigint, max_input bigint, max_output bigint, input bigint, cached_input bigint,
				cache_write bigint, output bigint, reasoning bigint, audio_input bigint, audio_output bigint, image_input bigint, image_output bigint)
			on conflict (model, service, above) do update set max_input = excluded.max_input, max_output = excluded.max_output,
				input = excluded.input, cached_input = excluded.cached_input, cache_write = excluded.cache_write, output = excluded.output,
				reasoning = excluded.reasoning, audio_input = excluded.audio_input, audio_output = excluded.audio_output,
				image_input = excluded.image_input, image_output = excluded.image_output`, model, rows); err != nil {
			return err
		}
		var err error
		set, err = many(ctx, tx, scanPrice, `select `+priceColumns+` from weir.price where model = $1`+priceOrder, model)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("set price of %q: %w", model, err)
	}
	return set, nil
}

// checkPrice returns why rows cannot be the price of a model. It puts them into order.
func checkPrice(model string, rows []prices.Row) error {
	if err := checkModelName("model", model); err != nil {
		return err
	}
	if len(rows) == 0 {
		return invalid("price of %q: it has no rates", model)
	}
	slices.SortStableFunc(rows, func(a, b prices.Row) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), cmp.Compare(a.Above, b.Above))
	})
	for i := range rows {
		r := &rows[i]
		r.Model = model
		if r.MaxInput < 0 || r.MaxOutput < 0 || r.Above < 0 {
			return invalid("price of %q: a number of tokens is negative", model)
		}
		if i > 0 && r.Service == rows[i-1].Service && r.Above == rows[i-1].Above {
			return invalid("price of %q: two rates for the same service and size of input", model)
		}
	}
	if _, err := prices.FromRows(rows); err != nil {
		return invalid("%v", err)
	}
	return nil
}

// DeletePrice deletes the deployment's own price of a model, so that it has that of the list, if it has one there.
func (s *Store) DeletePrice(ctx context.Context, model string) error {
	err := s.change(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `delete from weir.price where model = $1`, model)
		if err == nil && tag.RowsAffected() == 0 {
			return fmt.Errorf("price of %q: %w", model, ErrNotFound)
		}
		return err
	})
	if err != nil && !own(err) {
		return fmt.Errorf("delete price of %q: %w", model, err)
	}
	return err
}
