-- SPDX-License-Identifier: Apache-2.0

-- What is billed of an exchange whose tokens the provider did not count. The tokens stay what they are; prices go by what is billed.

-- +goose Up

alter table weir.channel add column bill_partial text not null default 'estimate'
    constraint channel_bill_partial check (bill_partial in ('estimate', 'input', 'none'));

alter table weir.usage
    add column billed_input_tokens  bigint not null default 0, -- of input_tokens
    add column billed_output_tokens bigint not null default 0; -- of output_tokens
update weir.usage set billed_input_tokens = input_tokens, billed_output_tokens = output_tokens;

alter table weir.usage_hourly
    add column billed_input_tokens  bigint not null default 0,
    add column billed_output_tokens bigint not null default 0;
update weir.usage_hourly set billed_input_tokens = input_tokens, billed_output_tokens = output_tokens;

alter table weir.balance add column billed_tokens bigint not null default 0; -- input and output
update weir.balance set billed_tokens = tokens;
