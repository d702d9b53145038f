-- SPDX-License-Identifier: Apache-2.0

-- Plugins that speak proxy-wasm: the servers that one may call where it is attached, and whether it is kept away from responses.

-- +goose Up

alter table weir.attachment
    add column upstreams    jsonb not null default '[]', -- a list of {name, url, private}
    add column request_only boolean not null default false;
