-- SPDX-License-Identifier: Apache-2.0

-- What keys and tenants may spend (budget), what of it processors have leased (lease), and every movement of money (ledger). Amounts are nano-dollars, and no
-- single one is above a thousand million dollars.

-- +goose Up

alter table weir.tenant
    add column parent_id bigint constraint tenant_parent references weir.tenant, -- null: none; whose budgets count too
    add column time_zone text not null default 'UTC'; -- in which the periods of its budgets, and of its keys', begin

-- A change of the period, and of nothing else, makes another budget: what was spent in periods of another length says nothing of those to come.
create table weir.budget (
    id        bigint generated always as identity primary key,
    tenant_id bigint not null references weir.tenant on delete cascade,
    key_id    bigint references weir.key on delete cascade, -- null: the tenant's
    amount    bigint not null check (amount between 0 and 1000000000000000000), -- of each period
    period    text not null check (period in ('day', 'week', 'month', 'never')),
    shares    int[] not null default '{}', -- percent of the credit at which somebody is told
    created   timestamptz not null default now()
);
create unique index budget_tenant on weir.budget (tenant_id) where key_id is null;
create unique index budget_key on weir.budget (key_id) where key_id is not null;
create index budget_of on weir.budget (tenant_id);

create trigger bump_revision after insert or update or delete or truncate on weir.budget
    for each statement execute function weir.bump_revision();

-- A budget in one of its periods: here called its account. Its row is the lock under which leases of it grow. No foreign keys, here and below: history outlives
-- the budget.
create table weir.budget_period (
    budget_id bigint not null,
    period    bigint not null, -- when it began, in seconds since 1970; 0 for a budget that never renews
    allowance bigint not null, -- the amount of the budget as it was counted into the credit
    credit    bigint not null, -- the allowance and what was topped up
    wanted    timestamptz, -- when a processor last needed more than was left
    primary key (budget_id, period)
) with (fillfactor = 70);
create index budget_period_wanted on weir.budget_period (wanted) where wanted is not null;

-- What a processor may spend of an account, and what exchanges cost that it admitted. Nobody else can spend the larger of the two. It is tied to the journal of
-- the processor, not to its process; no clock gives it back.
create table weir.lease (
    budget_id bigint not null,
    period    bigint not null,
    holder    uuid not null,
    granted   bigint not null default 0,
    spent     bigint not null default 0, -- moves with the rows of usage
    asked     timestamptz not null default now(),
    primary key (budget_id, period, holder)
) with (fillfactor = 50);
create index lease_holder on weir.lease (holder);

-- Who holds leases: a journal, by its identity.
create table weir.holder (
    id    uuid primary key,
    epoch bigint not null, -- of the process that has it open
    count bigint not null, -- how often it asked
    seen  timestamptz not null default now()
) with (fillfactor = 50);

-- The sum of amount over an account is its balance, credit less spent; that of leased is what is out in leases, granted less spent. What happens all the time
-- (grant, return, spend) has one entry for each holder and hour.
create table weir.ledger (
    id        bigint generated always as identity primary key,
    at        timestamptz not null default now(),
    budget_id bigint not null,
    period    bigint not null,
    kind      text not null check (kind in ('allowance', 'adjustment', 'top_up', 'grant', 'return', 'spend', 'release')),
    amount    bigint not null,
    leased    bigint not null default 0,
    entries   bigint not null default 1, -- that were added up
    holder    uuid,
    hour      timestamptz, -- null: an entry by itself
    reference text, -- of a top-up: the same one is booked once
    note      text not null default ''
);
create index ledger_account on weir.ledger (budget_id, period, id);
create unique index ledger_hour on weir.ledger (budget_id, period, holder, kind, hour) where hour is not null;
create unique index ledger_reference on weir.ledger (budget_id, reference) where reference is not null;

-- A notice that a share of a credit is spent: one for each account and share.
create table weir.budget_notice (
    budget_id bigint not null,
    period    bigint not null,
    share     int not null, -- percent
    spent     bigint not null, -- when it was noticed
    credit    bigint not null,
    noticed   timestamptz not null default now(),
    due       timestamptz not null default now(), -- not to be sent before: somebody is at it, or it failed
    attempts  int not null default 0,
    sent      timestamptz, -- null: not yet
    primary key (budget_id, period, share)
);
create index budget_notice_due on weir.budget_notice (due) where sent is null;
