-- SPDX-License-Identifier: Apache-2.0

-- What plugins noted of an exchange.

-- +goose Up

alter table weir.usage add column tags jsonb; -- an object of texts; null: nothing was noted
