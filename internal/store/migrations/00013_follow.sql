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
