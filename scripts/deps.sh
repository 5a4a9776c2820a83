#!/usr/bin/env bash
# Finds what this machine lacks, says what and why, and installs it where that is safe to do.
#
#   scripts/deps.sh [--check] [build|run|bench]...      (without a name: build run)
#
# Debian and Ubuntu: installs through apt-get, as root or with sudo. Anywhere else, and with --check:
# prints the list and stops. Says nothing when nothing lacks. SKIP_DEPS=1 goes on without looking.
# Exit code: 0 when everything is there, 1 when something lacks, 2 for a wrong argument.
set -euo pipefail
cd "$(dirname "$0")/.."
# `ip` and `ethtool` are where an ordinary user's PATH may not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin

# For | Debian package | Fedora package | Arch package | proof: a command, or a header in <> | why
table='
build|gcc|gcc|gcc|gcc|compiles libbpf, which libbpf-rs brings along as C source
build|libc6-dev|glibc-devel|glibc|<stdio.h>|headers of the C library, for the same
build|make|make|make|make|builds libbpf
build|pkg-config|pkgconf-pkg-config|pkgconf|pkg-config|tells where libelf and zlib are
build|libelf-dev|elfutils-libelf-devel|libelf|<libelf.h>|libbpf reads ELF files with it
build|zlib1g-dev|zlib-devel|zlib|<zlib.h>|libelf unpacks compressed sections with it
run|iproute2|iproute|iproute2|ip|makes the network namespaces and veth pairs of demo and tests
run|ethtool|ethtool|ethtool|ethtool|turns checksum offload off at the veth peer
run|iputils-ping|iputils|iputils|ping|tests that ping is answered
run|netcat-openbsd|netcat|openbsd-netcat|nc|a kernel peer in the tests
run|socat|socat|socat|socat|a kernel peer in the tests
run|curl|curl|curl|curl|a kernel peer in the tests
run|tcpdump|tcpdump|tcpdump|tcpdump|tests that no packet on the wire is malformed
run|procps|procps-ng|procps-ng|ps|looks for processes that were left behind
run|util-linux|util-linux|util-linux|setpriv|runs tests a second time without privileges
bench|valgrind|valgrind|valgrind|valgrind|counts instructions (callgrind)
bench|iperf3|iperf3|iperf3|iperf3|a well-known load to compare with
'

say() { printf '%s\n' "$*" >&2; }

present() {
    case $1 in
        '<'*) printf '#include %s\n' "$1" | gcc -E -x c - >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

install=yes
groups=()
for argument in "$@"; do
    case $argument in
        --check) install=no ;;
        build | run | bench) groups+=("$argument") ;;
        *)
            say "deps.sh: $argument: must be --check, build, run or bench"
            exit 2
            ;;
    esac
done
[ "${#groups[@]}" -gt 0 ] || groups=(build run)
[ "${SKIP_DEPS:-}" != 1 ] || exit 0

# Rust first: no package manager has the pinned version, so this is for people to do.
wanted=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
if ! command -v cargo >/dev/null 2>&1; then
    say "Rust is missing: there is no cargo. Get rustup, which then fetches Rust $wanted by itself:"
    say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
    say "    . \"\$HOME/.cargo/env\""
    exit 1
fi
if ! found=$(cargo --version 2>&1); then
    say "cargo does not run here:"
    say "    $(printf '%s\n' "$found" | head -n 3)"
    say "Install the pinned toolchain: rustup toolchain install $wanted --component clippy,rustfmt"
    exit 1
fi
found=$(printf '%s\n' "$found" | sed -n 's/^cargo \([0-9.]*\).*/\1/p' | tail -n 1)
if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
    say "cargo is version $found, and $wanted is needed. A cargo from a distribution ignores"
    say "rust-toolchain.toml; get rustup instead: https://rustup.rs"
    exit 1
fi

family=other
if [ -r /etc/os-release ]; then
    # shellcheck source=/dev/null
    case " $(. /etc/os-release && printf '%s' "${ID:-} ${ID_LIKE:-}") " in
        *" debian "* | *" ubuntu "*) family=debian ;;
        *" fedora "* | *" rhel "* | *" centos "*) family=fedora ;;
        *" arch "*) family=arch ;;
    esac
fi

packages=()
reasons=()
while IFS='|' read -r group debian fedora arch proof why; do
    [[ -n $group && " ${groups[*]} " == *" $group "* ]] || continue
    ! present "$proof" || continue
    case $family in
        fedora) package=$fedora ;;
        arch) package=$arch ;;
        *) package=$debian ;;
    esac
    # Without a compiler no header can be found; then apt-get finds that it is there already.
    packages+=("$package")
    reasons+=("$(printf '  %-22s %s' "$package" "$why")")
done <<<"$table"
[ "${#packages[@]}" -gt 0 ] || exit 0

say "This machine lacks:"
for reason in "${reasons[@]}"; do say "$reason"; done

as_root=()
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1; then as_root=(sudo); else as_root=(nobody); fi
fi
case $family in
    debian) by_hand="apt-get install ${packages[*]}" ;;
    fedora) by_hand="dnf install ${packages[*]}" ;;
    arch) by_hand="pacman -S --needed ${packages[*]}" ;;
    other) by_hand="install these, by the names your distribution has for them (above: Debian's)" ;;
esac
if [ "$family" != debian ] || [ "$install" = no ] || [ "${as_root[*]}" = nobody ]; then
    [ "${as_root[*]}" != nobody ] || say "Installing needs root, and there is no sudo."
    say "As root: $by_hand"
    exit 1
fi

say "Installing: $by_hand"
# A fresh machine may be updating itself: wait for its lock, but not for ever.
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${packages[@]}"; } </dev/null >&2; then
    say "apt-get failed. Without network, install from a mirror you have: $by_hand"
    exit 1
fi
