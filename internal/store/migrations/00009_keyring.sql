-- SPDX-License-Identifier: Apache-2.0

-- Keys are many, and each changes by itself: processors follow them one by one, by the transaction that changed them last. And what a key may reach.

-- +goose Up

alter table weir.tenant add column groups text[] not null default '{}'; -- of channels; empty: any
alter table weir.channel add column groups text[] not null default '{}'; -- that it belongs to

alter table weir.key
    add column groups         text[] not null default '{}', -- of channels; empty: those of the tenant
    add column networks       cidr[] not null default '{}', -- of clients; empty: any
    add column tags           jsonb not null default '{}' check (jsonb_typeof(tags) = 'object'), -- texts, for the rows of usage
    add column metadata       jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'), -- texts, for people
    add column pinnable       boolean not null default false, -- may be sent with a channel behind it
    add column previous_hash  bytea check (octet_length(previous_hash) = 32), -- of the secret before
    add column previous_until timestamptz, -- it works until then
    add column row_xid        xid8 not null default pg_current_xact_id(), -- the transaction that changed the row last
    add constraint key_previous check ((previous_hash is null) = (previous_until is null));

create index key_xid on weir.key (row_xid);
create index key_previous_hash on weir.key (previous_hash) where previous_hash is not null;

-- Keys that were deleted, for a while; id 0: any of them, by truncate.
create table weir.key_gone (
    id      bigint primary key,
    gone    timestamptz not null default now(),
    row_xid xid8 not null default pg_current_xact_id()
);
create index key_gone_xid on weir.key_gone (row_xid);

-- +goose StatementBegin
create function weir.stamp_key() returns trigger language plpgsql as $$
begin
    new.row_xid := pg_current_xact_id();
    return new;
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function weir.bury_key() returns trigger language plpgsql as $$
begin
    insert into weir.key_gone (id) values (case when tg_op = 'TRUNCATE' then 0 else old.id end)
        on conflict (id) do update set gone = now(), row_xid = pg_current_xact_id();
    return null;
end
$$;
-- +goose StatementEnd

-- A hint alone: who does not hear it finds the change by row_xid.
-- +goose StatementBegin
create function weir.hint_key() returns trigger language plpgsql as $$
begin
    perform pg_notify('weir_config', '');
    return null;
end
$$;
-- +goose StatementEnd

drop trigger bump_revision on weir.key;
create trigger stamp before insert or update on weir.key for each row execute function weir.stamp_key();
create trigger bury after delete on weir.key for each row execute function weir.bury_key();
create trigger bury_all after truncate on weir.key for each statement execute function weir.bury_key();
create trigger hint after insert or update or delete or truncate on weir.key for each statement execute function weir.hint_key();
