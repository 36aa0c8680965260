# Embudo. `make` explains itself; every target does its own set-up, and says what is missing if it cannot.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The filter's target, and the most its module may weigh: every worker keeps a copy. (Before it held, proved and isolated
# it was 400 KiB; with the whole core compiled for size it would be that, and a duplicate would cost a quarter more. What is
# believed of reads, the comparison of whole updates, a gateway's own batches, barriers and four more presets took 46 KiB.)
WASM_TARGET := wasm32-wasip1
WASM_BYTES_MAX := 471040
WASM := $${CARGO_TARGET_DIR:-target}/$(WASM_TARGET)/wasm/embudo_filter.wasm

EMBUDO := cargo run --quiet --package embudo --

# make run LARAVEL=host:port fronts your Laravel; ARGS goes on to the command, as in ARGS=--sessions=100.
LARAVEL ?=
ARGS ?=

# make sim SEEDS=100000 for a long night.
SEEDS ?= 10000

.PHONY: help run full-stack given-up test module tests sim fuzz chaos bench peers sizes figures build lint fmt tools laravel-tools laravel-versions laravel-cost clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: tools ## See the effect beside a stand-in Laravel; LARAVEL=host:port fronts yours until Ctrl-C
	@$(EMBUDO) run $(if $(LARAVEL),--laravel $(LARAVEL)) $(ARGS)

full-stack: tools laravel-tools ## The same with a real Laravel in two applications; compares every row in the end, and every read
	@$(EMBUDO) full-stack $(ARGS)

given-up: tools ## How many of sixty sessions the gateway gives up, in an outage and under Laravel's throttle
	@$(EMBUDO) given-up $(ARGS)

# With the command that the tests build: `cargo run` has other features for some dependencies, and would build them,
# wasmtime's compiler among them, a second time.
test: EMBUDO := $${CARGO_TARGET_DIR:-target}/debug/embudo
test: lint module tests tools laravel-tools ## Everything that CI runs: format, clippy for both targets, module size, all tests
	@mkdir -p target/embudo
	@cargo test --workspace --no-fail-fast 2>&1 | tee target/embudo/test.log || failed=1; \
	awk '/^test result:/ {passed += $$4; failed += $$6; ignored += $$8; suites++} \
	  END {printf "\n%d tests passed, %d failed, %d ignored, in %d suites\n", passed, failed, ignored, suites}' \
	  target/embudo/test.log; \
	echo "The package embudo/laravel, by PHPUnit:"; \
	phpunit --configuration laravel || failed=1; \
	exit $${failed:-0}

sim: rust ## Search 10,000 seeds of the simulation for a mistake, and see that every sabotage is noticed
	@$(EMBUDO) sim --seeds $(SEEDS) --sabotages $(ARGS)

fuzz: build ## Throw a million cases of arbitrary bytes at the module; ARGS="--seed 7" searches elsewhere
	@$(EMBUDO) fuzz --cases 1000000 $(ARGS)

chaos: build tools ## Ten minutes of everything that can go wrong, on a real Envoy; ARGS="--seconds 60 --seed 7" is another
	@$(EMBUDO) chaos $(ARGS)

bench: build tools ## Measure what a request costs Envoy, and hold it against what is promised; ARGS="--rounds 5" is shorter
	@$(EMBUDO) bench $(ARGS)
	@cargo bench --quiet --package embudo-core --bench request

peers: build tools ## Embudo beside a batcher in the gateway (Node, Redis) and beside nothing; fails where it is not better
	@$(EMBUDO) peers $(ARGS)

sizes: tools ## What share of the gateway's requests reaches Laravel at 1000, 300, 100 and 20 sessions; fails above what is promised
	@$(EMBUDO) run --sizes 1000,300,100,20 --tenants 40 $(ARGS)

figures: build tools ## Measure all that the README tells, and put it there (an hour on an idle machine)
	@missed=; for part in run sizes given-up chaos full-stack peers bench; do $(MAKE) $$part || missed="$$missed $$part"; done; \
		$(EMBUDO) figures --write && test -z "$$missed" || { echo "missed a promise:$$missed"; exit 1; }

build: module ## Build the module and the command, and check the module's size
	@cargo build --package embudo

module: rust
	@cargo build --package embudo-filter --profile wasm --target $(WASM_TARGET)
	@bytes=$$(wc -c < $(WASM)); \
	echo "embudo.wasm: $$bytes bytes (at most $(WASM_BYTES_MAX))"; \
	test $$bytes -le $(WASM_BYTES_MAX)

tests: rust
	@cargo test --workspace --no-run

lint: rust ## Check the format, and clippy natively and for the filter's target
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo clippy $(addprefix --package embudo-,filter cold core dispatch text) --target $(WASM_TARGET) -- -D warnings

fmt: rust ## Format the code
	@cargo fmt --all

tools: rust ## Find or install func-e and Envoy (into .tools/, nothing global)
	@$(EMBUDO) tools

laravel-tools: rust ## Find or install PHP, Laravel and nginx, the distribution's packages; installing takes root
	@$(EMBUDO) tools --laravel

laravel-versions: laravel-tools ## The package's tests on every Laravel that can be had here, 8 to 13; prints a table
	@laravel/bin/versions $(ARGS)

laravel-cost: laravel-tools ## PHP's CPU time for a batch of 50, beside the package before it isolated items, and beside 50 singles
	@php laravel/bin/cost $(ARGS)

clean: ## Remove everything that was built; .tools/ stays, since it is downloaded
	@cargo clean
	@rm -rf target/embudo

# rust-toolchain.toml names the toolchain and the target, and rustup gets them; without rustup they must be there.
.PHONY: rust
rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it with rustup" >&2; exit 1; }
	@test -d "$$(rustc --print sysroot)/lib/rustlib/$(WASM_TARGET)" || { \
	  command -v rustup >/dev/null || { echo "the target $(WASM_TARGET) is missing, and there is no rustup to add it" >&2; exit 1; }; \
	  rustup target add $(WASM_TARGET); }
