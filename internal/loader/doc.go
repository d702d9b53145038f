// SPDX-License-Identifier: Apache-2.0

// Package loader keeps the plugins of the configuration loaded, and hands them to exchanges.
//
//	Want ──▶ what is loaded is in force at once ──▶ Run loads the rest ──▶ all of it is in force
//	                                                  │
//	               a table is replaced as a whole: an exchange keeps the one that it began with
//
// A new attachment that is slow to load is waited for by whoever has called Want, and not for long. Then [Loader.Insist] has it refuse its exchanges with 503 and retry-after if its
// mode is closed: nothing goes past a policy that must not fail. In the other modes they pass.
//
// A plugin is loaded once for each module, configuration, set of grants and limits, however often it is attached, and stays loaded from one configuration to the
// next. Nothing is compiled while a request waits: until a new version is ready the old one judges.
//
// # When a plugin is closed
//
// Exchanges, and the streams that they end in, hold the table that they began with, and so its plugins. A plugin is closed when the garbage collector
// finds that nothing refers to it: no table, no exchange and no stream. So no count can go wrong, whichever way an exchange ends.
//
// # What cannot be loaded
//
// If its module cannot be read, what was in force before stays so. Else an attachment of the mode closed denies its exchanges with 503 plugin_failed, and one of the modes open
// and shadow is left out. All of that is logged, counted and told by [Loader.Problems], and tried again.
package loader
