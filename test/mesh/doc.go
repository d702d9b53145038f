// SPDX-License-Identifier: Apache-2.0

// Package mesh holds the manifests of deploy to the control planes that they are for, by tests alone. istiod's own discovery server runs in the test,
// Envoy Gateway as a program, and each configures a real Envoy with the very files of deploy. A real API server, without a node, takes every file and
// follows the commands of the pages in docs. It is a module of its own, so that nothing of Kubernetes is among the dependencies of Weir; the programs
// are built from another, in tools, whose go.mod has their versions.
package mesh
