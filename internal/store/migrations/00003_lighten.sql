-- SPDX-License-Identifier: Apache-2.0

-- What a row costs is for the most part its place in the indexes. Those who ask for a tenant's rows ask for those of its keys instead,
-- of which weir.balance has the list.

-- +goose Up

drop index weir.usage_tenant;

-- Names of models are compared to find a sum, not to sort for a reader: by their bytes, whatever the language of the database. (The
-- index is made anew; the table is not.)
alter table weir.usage_hourly alter column model type text collate "C";
