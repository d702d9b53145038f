-- SPDX-License-Identifier: Apache-2.0

-- Budgets and limits may be as many as keys are. Processors follow them one by one, as they follow keys: see 00009_keyring.sql.

-- +goose Up

alter table weir.budget add column row_xid xid8 not null default pg_current_xact_id(); -- the transaction that changed the row last
alter table weir.rate_limit add column row_xid xid8 not null default pg_current_xact_id();
create index budget_xid on weir.budget (row_xid);
create index rate_limit_xid on weir.rate_limit (row_xid);

-- Budgets and limits that were deleted, for a while; id 0: any of them, by truncate.
create table weir.terms_gone (
    kind    text not null check (kind in ('budget', 'limit')),
    id      bigint not null,
    gone    timestamptz not null default now(),
    row_xid xid8 not null default pg_current_xact_id(),
    primary key (kind, id)
);
create index terms_gone_xid on weir.terms_gone (row_xid);

-- +goose StatementBegin
create function weir.bury_terms() returns trigger language plpgsql as $$
begin
    insert into weir.terms_gone (kind, id) values (tg_argv[0], case when tg_op = 'TRUNCATE' then 0 else old.id end)
        on conflict (kind, id) do update set gone = now(), row_xid = pg_current_xact_id();
    return null;
end
$$;
-- +goose StatementEnd

drop trigger bump_revision on weir.budget;
create trigger stamp before insert or update on weir.budget for each row execute function weir.stamp_key();
create trigger bury after delete on weir.budget for each row execute function weir.bury_terms('budget');
create trigger bury_all after truncate on weir.budget for each statement execute function weir.bury_terms('budget');
create trigger hint after insert or update or delete or truncate on weir.budget for each statement execute function weir.hint_key();

drop trigger bump_revision on weir.rate_limit;
create trigger stamp before insert or update on weir.rate_limit for each row execute function weir.stamp_key();
create trigger bury after delete on weir.rate_limit for each row execute function weir.bury_terms('limit');
create trigger bury_all after truncate on weir.rate_limit for each statement execute function weir.bury_terms('limit');
create trigger hint after insert or update or delete or truncate on weir.rate_limit for each statement execute function weir.hint_key();

-- The audit names budgets and limits by whose they are, as in acme/laptop; those of all are *. Behind that stands the model of a limit, if it is not for all.
-- +goose StatementBegin
create function weir.owner_of(o jsonb) returns text language sql stable as $$
    select coalesce((select t.name from weir.tenant t where t.id = (o ->> 'tenant_id')::bigint), o ->> 'tenant_id', '*')
        || coalesce('/' || coalesce((select k.name from weir.key k where k.id = (o ->> 'key_id')::bigint), o ->> 'key_id'), '')
        || coalesce(' ' || nullif(o ->> 'model', '*'), '')
$$;
-- +goose StatementEnd

-- As in 00010_audit.sql, but for the name: with an empty third argument it is that of the owner.
-- +goose StatementBegin
create or replace function weir.note() returns trigger language plpgsql as $$
declare
    o jsonb := case when tg_op = 'INSERT' then null else to_jsonb(old) end;
    n jsonb := case when tg_op = 'DELETE' then null else to_jsonb(new) end;
    id text := coalesce(n, o) ->> coalesce(tg_argv[1], 'id');
    name text := case when tg_argv[2] = '' then weir.owner_of(coalesce(n, o)) else coalesce(n, o) ->> coalesce(tg_argv[2], 'name') end;
    was jsonb;
    is_now jsonb;
    secret text;
begin
    if tg_op <> 'UPDATE' then
        perform weir.note_entry(case tg_op when 'INSERT' then 'create' else 'delete' end, tg_argv[0], id, name,
            weir.presentable(o), weir.presentable(n));
        return null;
    end if;
    select coalesce(jsonb_object_agg(e.key, e.value), '{}') into was from jsonb_each(weir.presentable(o)) e where n -> e.key is distinct from e.value;
    select coalesce(jsonb_object_agg(e.key, e.value), '{}') into is_now from jsonb_each(weir.presentable(n)) e where o -> e.key is distinct from e.value;
    foreach secret in array array['credential', 'hash'] loop
        if o -> secret is distinct from n -> secret then
            is_now := is_now || jsonb_build_object(secret, 'changed');
        end if;
    end loop;
    if was <> '{}' or is_now <> '{}' then
        perform weir.note_entry('change', tg_argv[0], id, name, was, is_now);
    end if;
    return null;
end
$$;
-- +goose StatementEnd

drop trigger audit on weir.budget;
create trigger audit after insert or update or delete on weir.budget for each row execute function weir.note('budget', 'id', '');
drop trigger audit on weir.rate_limit;
create trigger audit after insert or update or delete on weir.rate_limit for each row execute function weir.note('limit', 'id', '');
