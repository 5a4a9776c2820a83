# What people type. Each target is a script or one command; `make help` lists them.

SHELL := /bin/bash
# rustup puts Cargo where a shell that was open before does not look.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help build demo test interop bench bench-instructions bench-check bench-memory ebpf fuzz soak miri fmt lint doc deny install-deps

help: ## this list
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r target what; do printf '%-28s %s\n' "$$target" "$$what"; done

build: ## the service and loadgen, optimized, in target/release
	@scripts/deps.sh build
	cargo build --release --locked -p dataplane -p bench --bins

demo: ## runs the service on a veth pair, loads it, prints latency histograms (bounded, cleans up)
	@scripts/deps.sh build run
	@scripts/demo.sh

test: ## everything that can be tested here; names what it skipped
	@scripts/deps.sh build run
	@scripts/test.sh

interop: ## TCP with the Linux kernel: all sizes, options and bad networks; minutes, as root
	@scripts/deps.sh build run
	INTEROP=full cargo test --release --locked -p dataplane --test tcp_interop -- --show-output

bench: ## measures against a bare reflector and a kernel server; prints ratios
	@scripts/deps.sh build run bench
	@scripts/bench.sh

bench-instructions: ## counts instructions per UDP echo and of TCP; writes the tables in bench/BASELINE.md
	@scripts/deps.sh build bench
	@scripts/bench-instructions.sh

bench-check: ## the same, compared with the table; fails if something grew by more than 3 %
	@scripts/deps.sh build bench
	@scripts/bench-instructions.sh --check

bench-memory: ## what an idle TCP connection takes, in a process with a million of them
	@scripts/deps.sh build
	@for versions in ipv4 ipv6 both; do \
		echo "$$versions"; \
		cargo run --release --locked --quiet -p echo-instructions -- tcp memory $$versions 1000000; \
	done

ebpf: ## rebuilds the steering program (only after changing it: the object is committed)
	@ebpf/build.sh

fuzz: ## every fuzz target for FUZZ_SECONDS (60) each; needs a nightly compiler
	@scripts/deps.sh build
	@scripts/fuzz.sh

soak: ## simulated networks with ever new seeds, SOAK_SECONDS (30) for each scenario in turn, until one fails
	@scripts/deps.sh build
	@set -e; while true; do \
		SIM_SECONDS=$${SOAK_SECONDS:-30} cargo test --release -p stack --test '*sim*'; \
	done

miri: ## the rings and the packet memory under Miri; needs a nightly compiler with the miri component
	@scripts/deps.sh build
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" \
		cargo +nightly miri test -p dataplane --lib -- driver::ring driver::umem

fmt: ## formats the Rust code
	cargo fmt --all

lint: ## formatting and clippy, as CI has them
	@scripts/deps.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc: ## the documentation of all crates, in target/doc
	@scripts/deps.sh build
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

deny: ## licenses, advisories and sources of the dependencies (installs cargo-deny into .tools)
	@scripts/deny.sh

install-deps: ## the system packages for all of the above
	@scripts/deps.sh build run bench
