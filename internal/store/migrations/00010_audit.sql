-- SPDX-License-Identifier: Apache-2.0

-- Who changed what of the configuration, and when. Entries are written by triggers, in the transaction of the change, whoever makes it. A new kind of thing is
-- audited by one line:
--
--     create trigger audit after insert or update or delete on weir.THING for each row execute function weir.note('thing');
--
-- with the column of its id and that of its name behind the kind where they are not id and name. A table of parts of a thing, such as the models of a channel, is
-- audited by weir.note_parts and three lines: see below.

-- +goose Up

create table weir.audit (
    id        bigint generated always as identity primary key,
    ts        timestamptz not null default clock_timestamp(),
    actor     text not null,
    address   text not null, -- of who asked; empty: the processor itself, or SQL
    action    text not null, -- create, change or delete
    kind      text not null,
    object_id text not null,
    object    text not null, -- its name then; empty: it has none
    before    jsonb, -- the columns that a change changed, or all that a deletion took; null: there was nothing
    after     jsonb
);
create index audit_ts on weir.audit (ts);
create index audit_object on weir.audit (kind, object_id, id);

-- Secrets, and what is too large or says nothing, are not written down; of a secret only that it changed.
-- +goose StatementBegin
create function weir.presentable(o jsonb) returns jsonb language sql immutable as $$
    select o - array['credential', 'hash', 'previous_hash', 'wasm', 'row_xid', 'singleton']
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function weir.note_entry(action text, kind text, id text, name text, before jsonb, after jsonb) returns void language sql as $$
    insert into weir.audit (actor, address, action, kind, object_id, object, before, after)
    values (coalesce(nullif(current_setting('weir.actor', true), ''), 'sql:' || session_user), coalesce(current_setting('weir.address', true), ''),
        action, kind, coalesce(id, ''), coalesce(name, ''), before, after)
$$;
-- +goose StatementEnd

-- +goose StatementBegin
create function weir.note() returns trigger language plpgsql as $$
declare
    o jsonb := case when tg_op = 'INSERT' then null else to_jsonb(old) end;
    n jsonb := case when tg_op = 'DELETE' then null else to_jsonb(new) end;
    id text := coalesce(n, o) ->> coalesce(tg_argv[1], 'id');
    name text := coalesce(n, o) ->> coalesce(tg_argv[2], 'name');
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

-- The parts of a thing, all that a statement touched in one entry. Arguments: the kind of the thing, which is the name of its table, too; the column of the part
-- with its id; what the parts are called.
-- +goose StatementBegin
create function weir.note_parts() returns trigger language plpgsql as $$
declare
    id text;
    name text;
    was jsonb;
    is_now jsonb;
    entries jsonb;
begin
    if tg_op = 'INSERT' then
        select jsonb_agg(jsonb_build_object('new', to_jsonb(p))) into entries from new_parts p;
    elsif tg_op = 'DELETE' then
        select jsonb_agg(jsonb_build_object('old', to_jsonb(p))) into entries from old_parts p;
    else
        select jsonb_agg(e) into entries from (
            select jsonb_build_object('old', to_jsonb(p)) e from old_parts p union all select jsonb_build_object('new', to_jsonb(p)) from new_parts p) q;
    end if;
    for id, was, is_now in
        select coalesce(e -> 'new', e -> 'old') ->> tg_argv[1],
            jsonb_agg(weir.presentable(e -> 'old') - tg_argv[1]) filter (where e ? 'old'),
            jsonb_agg(weir.presentable(e -> 'new') - tg_argv[1]) filter (where e ? 'new')
        from jsonb_array_elements(coalesce(entries, '[]')) e group by 1
    loop
        execute format('select t.name from weir.%I t where t.id = $1::bigint', tg_argv[0]) into name using id;
        if name is not null then -- else it is being deleted, and its own entry says so
            perform weir.note_entry('change', tg_argv[0], id, name, jsonb_build_object(tg_argv[2], was), jsonb_build_object(tg_argv[2], is_now));
        end if;
    end loop;
    return null;
end
$$;
-- +goose StatementEnd

create trigger audit after insert or update or delete on weir.tenant for each row execute function weir.note('tenant');
create trigger audit after insert or update or delete on weir.key for each row execute function weir.note('key');
create trigger audit after insert or update or delete on weir.channel for each row execute function weir.note('channel');
create trigger audit after insert or update or delete on weir.plugin for each row execute function weir.note('plugin');
create trigger audit after insert or delete on weir.plugin_version for each row execute function weir.note('plugin-version', 'plugin_id', 'digest');
create trigger audit after insert or update or delete on weir.attachment for each row execute function weir.note('attachment');
create trigger audit after insert or update or delete on weir.price for each row execute function weir.note('price', 'model', 'model');
create trigger audit after insert or update or delete on weir.budget for each row execute function weir.note('budget', 'id', 'period');

create trigger audit_insert after insert on weir.channel_model referencing new table as new_parts
    for each statement execute function weir.note_parts('channel', 'channel_id', 'models');
create trigger audit_delete after delete on weir.channel_model referencing old table as old_parts
    for each statement execute function weir.note_parts('channel', 'channel_id', 'models');
create trigger audit_update after update on weir.channel_model referencing old table as old_parts new table as new_parts
    for each statement execute function weir.note_parts('channel', 'channel_id', 'models');
