#!/usr/bin/env bash
# Runs every fuzz target of fuzz/ for a bounded time.
#
#   FUZZ_SECONDS=60 scripts/fuzz.sh [TARGET]...
#
# Needs a nightly compiler, for the sanitizers; installs cargo-fuzz into .tools when it is missing.
# A crash leaves its input in fuzz/artifacts/TARGET and makes the exit code 1.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
toolchain=${FUZZ_TOOLCHAIN:-nightly}

if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "FUZZ_SECONDS = $seconds: must be a number of seconds from 1" >&2
    exit 2
fi
if ! cargo "+$toolchain" --version >/dev/null 2>&1; then
    echo "Fuzzing needs a nightly compiler: rustup toolchain install $toolchain --profile minimal" >&2
    exit 1
fi
export PATH=$PWD/.tools/bin:$PATH
if ! command -v cargo-fuzz >/dev/null 2>&1; then
    echo "Installing cargo-fuzz into .tools: it builds the targets with coverage and sanitizers"
    CARGO_TARGET_DIR=.tools/target cargo install --quiet --locked --root .tools cargo-fuzz
    rm -rf .tools/target
fi

targets=("$@")
if [ "${#targets[@]}" = 0 ]; then
    mapfile -t targets < <(cargo "+$toolchain" fuzz list)
fi
if [ "${#targets[@]}" = 0 ]; then
    echo "fuzz/ has no targets" >&2
    exit 1
fi

# Right inputs of each target, so that it need not invent headers first. What it finds joins them in
# fuzz/corpus/TARGET.
cargo "+$toolchain" run --quiet --manifest-path fuzz/Cargo.toml --example seeds

crashed=()
for target in "${targets[@]}"; do
    echo "== $target: $seconds s"
    # -timeout: an input that takes 10 s is a finding too. -rss_limit_mb: so is one that takes 2 GiB.
    if ! cargo "+$toolchain" fuzz run "$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1; then
        crashed+=("$target")
    fi
done
echo
if [ "${#crashed[@]}" -gt 0 ]; then
    echo "${#crashed[@]} of ${#targets[@]} targets crashed: ${crashed[*]} (inputs in fuzz/artifacts)"
    exit 1
fi
echo "${#targets[@]} targets, $seconds s each: no crash"
