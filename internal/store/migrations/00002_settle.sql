-- SPDX-License-Identifier: Apache-2.0

-- What a row of usage may need after it was written, or instead of being written: exchanges that were given up may still be heard of,
-- and a row that Postgres refuses must not hold up the rows behind it.

-- +goose Up

-- The exchanges whose row has the status unresolved. The exact row takes the place of such a row in the transaction that takes the
-- entry out of here; two writers cannot both take it out.
create table weir.unresolved (
    exchange_id uuid primary key,
    ts          timestamptz not null -- of the row of usage
);
create index unresolved_ts on weir.unresolved (ts);

-- Records that the tables refused, in full. They are in no sum.
create table weir.dead_letter (
    id          bigint generated always as identity primary key,
    writer      uuid not null, -- zero when the record came from no log: the exchange was given up
    seq         bigint not null, -- position in the log of the writer
    ts          timestamptz not null, -- of admission
    exchange_id uuid,
    reason      text not null, -- what Postgres said
    record      jsonb not null, -- durations in nanoseconds
    created     timestamptz not null default now()
);
