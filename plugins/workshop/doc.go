// SPDX-License-Identifier: Apache-2.0

// Package workshop begins plugins and builds them, with the compilers of the machine: [New] writes a folder that builds and whose cases pass, [Build] makes a module
// of a folder, with what the plugin says of itself (about.json, schema.json) in its custom sections.
package workshop
