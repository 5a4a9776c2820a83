#!/bin/sh
# Builds ebpf/steering.bpf.o from ebpf/program and ebpf/steer. Only people who change the program
# need this; everybody else uses the committed object.
#
# Needs rustup, a C++ compiler for bpf-linker, and the network on the first run. Installs the
# toolchain's rust-src component, and bpf-linker into .tools/ at the top of the repository.
set -eu

linker_version=0.13.0

ebpf=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$ebpf")
cd "$ebpf/program"

command -v rustup >/dev/null || {
    echo "ebpf/build.sh: rustup is missing; install it from https://rustup.rs, it brings the pinned toolchain" >&2
    exit 1
}
rustup component list --installed | grep -q '^rust-src' || {
    echo "ebpf/build.sh: adding rust-src to the toolchain: the BPF target has no compiled core library" >&2
    rustup component add rust-src
}
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')

# bpf-linker links the LLVM that compiled its input, so it is built against the toolchain's own. Its
# build script looks for lib/libLLVM.so below LLVM_PREFIX.
linker=$root/.tools/bpf-linker
export LD_LIBRARY_PATH="$sysroot/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
if [ "$("$linker/bin/bpf-linker" --version 2>/dev/null)" != "bpf-linker $linker_version" ]; then
    llvm=$(find "$sysroot/lib" -maxdepth 1 -name 'libLLVM.so.*' | head -n 1)
    [ -n "$llvm" ] || {
        echo "ebpf/build.sh: no libLLVM.so.* in $sysroot/lib; install the toolchain with rustup, not from the distribution" >&2
        exit 1
    }
    llvm_major=$(basename "$llvm" | sed 's/^libLLVM\.so\.\([0-9]*\).*/\1/')
    mkdir -p "$root/.tools/llvm/lib"
    ln -sf "$llvm" "$root/.tools/llvm/lib/libLLVM.so"
    echo "ebpf/build.sh: installing bpf-linker $linker_version into .tools/: it turns LLVM bitcode into BPF" >&2
    LLVM_PREFIX="$root/.tools/llvm" cargo install bpf-linker --version "$linker_version" --locked \
        --no-default-features --features "llvm-$llvm_major" --root "$linker"
fi
export PATH="$linker/bin:$PATH"

# The object must be the same wherever it is built, so it names no folder of this machine.
remap() { printf '"--remap-path-prefix=%s=%s",' "$1" "$2"; }
flags="$(remap "$sysroot/lib/rustlib/src/rust" rust)$(remap "$(readlink -f "$sysroot")/lib/rustlib/src/rust" rust)"
flags="$flags$(remap "${CARGO_HOME:-$HOME/.cargo}/registry/src" registry)$(remap "$root" .)"

# The target is not a stable one, and its core library has to be built along (build-std).
RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$ebpf/program/target}" \
    cargo build --release --locked --config "target.bpfel-unknown-none.rustflags=[$flags]"

# The DWARF information has served its purpose, which was to make BTF; that stays.
"$sysroot/lib/rustlib/$host/bin/rust-objcopy" --strip-debug \
    "${CARGO_TARGET_DIR:-$ebpf/program/target}/bpfel-unknown-none/release/steering" \
    "$ebpf/steering.bpf.o"
echo "ebpf/build.sh: built $ebpf/steering.bpf.o" >&2
