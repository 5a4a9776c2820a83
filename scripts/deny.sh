#!/usr/bin/env bash
# Checks licenses, bans, sources and advisories of the dependencies, by deny.toml.
#
# Installs cargo-deny into .tools when it is missing. Without a network the advisories cannot be
# fetched; the other three are checked all the same, and what was left out is said.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.tools/bin:$PATH
if ! command -v cargo-deny >/dev/null 2>&1; then
    echo "Installing cargo-deny into .tools (some minutes)"
    CARGO_TARGET_DIR=.tools/target cargo install --quiet --locked --root .tools cargo-deny
    rm -rf .tools/target
fi
cargo deny check licenses bans sources
if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny check advisories
else
    echo "skipped: advisories: the advisory database cannot be fetched"
fi
