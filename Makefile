# Nothing here needs a step before it. What is missing is fetched by go, pip and npm, from wherever they are told to, and kept under
# .weir/ of this checkout.

include Tools.mk

.DEFAULT_GOAL := help

# The version that "weir version" prints. Go's own stamp fails in a checkout that another user owns.
VERSION := $(shell git describe --tags --match 'v*' 2>/dev/null || echo dev-$$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown))

GO_BUILD := go build -buildvcs=false -ldflags '-X github.com/weir-proxy/weir/internal/version.linked=$(VERSION)'

# Packages in which the race detector costs seconds, not minutes; their tests run with it, all others without it.
RACE := ./policy ./extproc/... ./internal/jsonscan/... ./internal/fake/... ./internal/store/... ./internal/admin/...
# Mostly simulations on one goroutine: a few with the race detector (-short), all of them without.
SIMULATED := ./policy/budget ./policy/limit ./usage/...

# Two test binaries at a time: some of them run an Envoy and a Postgres of their own.
TEST := go test -p 2

# How long each fuzz target of make fuzz runs.
FUZZTIME ?= 60s

# Where make vuln looks, if not at vuln.go.dev: a mirror (https://…), or file:///… with the folder data/osv of a copy of golang.org/x/vulndb.
VULNDB ?=

# Flags of the benchmark: make bench BENCH=-help
BENCH ?=

.PHONY: help
help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build ## run everything on this machine; Ctrl-C stops it
	@exec bin/weir dev

.PHONY: build
build: ## build the program: bin/weir
	@mkdir -p bin
	$(GO_BUILD) -o bin/weir ./cmd/weir

.PHONY: test
test: export WEIR_REQUIRE_ALL = 1
test: ## all tests: unit, race where cheap, end to end with the real Envoy, Postgres and SDKs
	go vet ./...
	@$(MAKE) --no-print-directory race
	$(TEST) -timeout 20m $$(go list ./... | grep -vxF "$$(go list $(RACE))")

.PHONY: race
race: ## the tests for which the race detector is cheap, with it
	@if [ "$$(go env CGO_ENABLED)" = 1 ] && command -v "$$(go env CC)" >/dev/null; then set -x; \
		$(TEST) -timeout 20m -race $(RACE) && $(TEST) -timeout 20m -race -short $(SIMULATED); \
	else echo 'race: there is no C compiler, which the race detector needs: testing without it'; set -x; \
		$(TEST) -timeout 20m $(RACE); fi

.PHONY: e2e
e2e: export WEIR_REQUIRE_ALL = 1
e2e: ## the end-to-end tests alone, always anew
	$(TEST) -timeout 20m -count=1 ./test/e2e/...

.PHONY: test-mesh
test-mesh: export WEIR_REQUIRE_ALL = 1
test-mesh: ## the manifests of deploy against istiod, Envoy Gateway and an API server of Kubernetes; a first run builds these for 15 minutes
	go test -C test/mesh -p 2 -vet=off -ldflags='-s -w' -timeout 60m -count=1 ./...

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (default 60s)
	@grep -rlE --include='*_test.go' '^func Fuzz' cmd envoy extproc internal plugins policy usage | while read -r file; do \
		sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$file" | while read -r name; do \
			echo "$$(dirname "$$file") $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")" </dev/null || exit 1; \
		done || exit 1; \
	done

.PHONY: bench
bench: ## measure Weir against a bare Envoy; BENCH holds flags
	go run ./test/bench $(BENCH)

.PHONY: overload
overload: ## send five times of what Weir can bear, and print how long those take that are served; needs two CPUs
	go run ./test/bench -loads= -users=0 -streams=0 -idle=0 -replay=0 -plugins=false -overload=10s $(BENCH)

.PHONY: image
image: ## pack the program into an image of containers, without an engine: bin/weir-image.tar
	@mkdir -p bin
	CGO_ENABLED=0 $(GO_BUILD) -trimpath -o bin/weir-static ./cmd/weir
	go run ./deploy/image -binary bin/weir-static -out bin/weir-image.tar -name weir:$(VERSION) -version $(VERSION)

.PHONY: vuln
vuln: ## look for known vulnerabilities in what the program calls; asks vuln.go.dev, or VULNDB
	$(GOVULNCHECK) $(if $(VULNDB),-db $(VULNDB)) ./...

.PHONY: plugins
plugins: build ## build the library of plugins and the examples, as far as the compilers at hand can: bin/plugins
	@for dir in plugins/library/*/ plugins/examples/guard-go/; do bin/weir plugin build --out "bin/plugins/$$(basename "$$dir").wasm" "$$dir" || exit 1; done
	@if command -v cargo >/dev/null && [ -d "$$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ]; then set -x; \
		cargo build --quiet --offline --release --target wasm32-unknown-unknown --target-dir .weir/rust --manifest-path plugins/examples/guard-rust/Cargo.toml && \
		cp .weir/rust/wasm32-unknown-unknown/release/guard.wasm bin/plugins/guard-rust.wasm; \
	else echo 'plugins: no Rust for wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown): left out'; fi
	@if command -v npx >/dev/null; then bin/weir plugin build --out bin/plugins/guard-as.wasm plugins/examples/guard-as; \
	else echo 'plugins: no npx (install Node.js): the one in AssemblyScript is left out'; fi

.PHONY: generate
generate: ## rewrite what is made from code: golden files and docs/cli.md
	@for dir in $$(grep -rl --include='*_test.go' 'flag.Bool("update"' envoy extproc internal plugins policy usage | xargs -n 1 dirname | sort -u); do \
		(set -x; go test "./$$dir" -update) || exit 1; done

.PHONY: native
native: ## build the native tap anew from its C sources: envoy/native/built
	go test ./envoy/native -run '^TestModulesAreBuiltFromTheirSources$$' -count=1 -build

.PHONY: lint
lint: ## formatting, golangci-lint, layering
	$(GOLANGCI_LINT) run ./...
	go test ./internal/layering

.PHONY: fmt
fmt: ## format the Go files
	$(GOLANGCI_LINT) fmt ./...

.PHONY: check
check: lint test test-mesh ## what continuous integration runs
	go mod tidy -diff

.PHONY: clean
clean: ## remove what was built and fetched, and the data of make run
	rm -rf bin .weir

# Rounds of make faults, the seed of all that they choose (0 draws one; it is printed), and further flags, as in
# FAULTS='-faults.kinds=kill-processor,drop-reply -faults.clients=20'.
ROUNDS ?= 20
SEED ?= 0
FAULTS ?=

.PHONY: faults
faults: export WEIR_REQUIRE_ALL = 1
faults: ## break everything around the books; ROUNDS, SEED; the last line is the verdict
	@mkdir -p .weir/test
	@go test -c -o .weir/test/faults ./test/faults
	@cd test/faults && ../../.weir/test/faults -test.run '^TestFaults$$' -test.timeout 0 \
		-faults.rounds $(ROUNDS) -faults.seed $(SEED) $(FAULTS)

# How long Postgres is away in make outage, and how many requests a second come all the same.
OUTAGE ?= 1m
RATE ?= 1000

.PHONY: outage
outage: export WEIR_REQUIRE_ALL = 1
outage: ## stop Postgres for OUTAGE under RATE requests/s: none may fail, all rows must arrive
	@mkdir -p .weir/test
	@go test -c -o .weir/test/faults ./test/faults
	@cd test/faults && ../../.weir/test/faults -test.run '^TestOutage$$' -test.timeout 0 -faults.outage $(OUTAGE) -faults.rate $(RATE)
