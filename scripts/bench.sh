#!/usr/bin/env bash
# What `make bench` runs: the dataplane beside its peers over a veth pair, both IP versions, and the
# instructions of one echo. Results go to target/bench/ as JSON, and the counts into bench/BASELINE.md.
#
#   scripts/bench.sh [OPTION…]     options are bench-udp's: --rounds N, --duration S, --strict, …
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin

echo "Building (release)…"
cargo build --release --locked --workspace --bins --quiet
bin=${CARGO_TARGET_DIR:-target}/release

mkdir -p target/bench
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "bench.sh: network namespaces need root, and there is no sudo; run it as root" >&2
        exit 1
    fi
    echo "Network namespaces and AF_XDP need root: asking sudo."
    as_root=(sudo)
fi

for version in 4 6; do
    options=()
    if [ "$version" = 6 ]; then
        options=(--ipv6)
    fi
    echo
    echo "UDP echo over IPv$version"
    "${as_root[@]}" "$bin/bench-udp" --json "target/bench/udp-ipv$version.json" "${options[@]}" "$@"
done

echo
scripts/bench-instructions.sh
