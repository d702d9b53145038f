# The tools of this repository, each at one version. They are run from their module, so nothing is installed, and they do not share
# the dependencies of Weir.
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0
