-- SPDX-License-Identifier: Apache-2.0

-- What tokens cost: the list of a release (price_list), prices of the deployment's own that go before it (price), and what both were at any time (price_version),
-- so that an exchange is billed by the prices that were in force when it was admitted.

-- +goose Up

-- A list is registered by the first processor that has it. The one with the latest date is in force; of two, the later one.
create table weir.price_list (
    id      bigint generated always as identity primary key,
    hash    bytea not null constraint price_list_hash unique check (octet_length(hash) = 32), -- SHA-256 of body
    name    text not null,
    date    date not null,
    body    text not null, -- in the format of internal/prices
    created timestamptz not null default now()
);

-- Rates are nano-dollars for a million tokens, up to a dollar for one. A model is a name, or a pattern with stars for the models that have no price by their
-- names. What is null is that of the whole: see internal/prices.
create table weir.price (
    model        text collate "C" not null check (model <> ''),
    service      text not null default '' check (service in ('', 'flex', 'priority')),
    above        bigint not null default 0 check (above >= 0), -- tokens of input, from which on the row counts
    max_input    bigint check (max_input > 0),  -- tokens; of the model: in its first row
    max_output   bigint check (max_output > 0),
    input        bigint not null check (input between 0 and 1000000000000000),
    cached_input bigint check (cached_input between 0 and 1000000000000000),
    cache_write  bigint check (cache_write between 0 and 1000000000000000),
    output       bigint not null check (output between 0 and 1000000000000000),
    reasoning    bigint check (reasoning between 0 and 1000000000000000),
    audio_input  bigint check (audio_input between 0 and 1000000000000000),
    audio_output bigint check (audio_output between 0 and 1000000000000000),
    image_input  bigint check (image_input between 0 and 1000000000000000),
    image_output bigint check (image_output between 0 and 1000000000000000),
    primary key (model, service, above)
);

-- The last one is in force. The id is the time in milliseconds since 1970, or one more than the last: a database that was set back gives none twice, and rows of
-- usage that it has forgotten name no other prices.
create table weir.price_version (
    id      bigint primary key,
    list_id bigint not null references weir.price_list,
    own     jsonb not null, -- the rows of weir.price, in their order
    created timestamptz not null default now()
);

-- +goose StatementBegin
create function weir.version_prices() returns trigger language plpgsql as $$
declare
    list bigint;
    prices jsonb;
begin
    perform n from weir.revision for update; -- two changes at once make two versions, the later with both
    select id into list from weir.price_list order by date desc, id desc limit 1;
    if list is null then
        return null; -- before the first processor has been here
    end if;
    select coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(p)) order by model, service, above), '[]') into prices from weir.price p;
    if exists (select from (select list_id, own from weir.price_version order by id desc limit 1) v where v.list_id = list and v.own = prices) then
        return null; -- nothing has changed
    end if;
    insert into weir.price_version (id, list_id, own)
        select greatest((extract(epoch from clock_timestamp()) * 1000)::bigint, coalesce(max(id), 0) + 1), list, prices from weir.price_version;
    return null;
end
$$;
-- +goose StatementEnd

create trigger version_prices after insert on weir.price_list
    for each statement execute function weir.version_prices();
create trigger version_prices after insert or update or delete or truncate on weir.price
    for each statement execute function weir.version_prices();
create trigger bump_revision after insert on weir.price_version
    for each statement execute function weir.bump_revision();

alter table weir.usage add column token_details jsonb; -- parts of the tokens that few exchanges have: cache_write, audio_input, …; null: none
