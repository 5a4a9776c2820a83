#!/usr/bin/env bash
# Everything that can be tested here: the whole workspace as whoever runs this and, when that is root,
# the tests of the service once more as `nobody`, to see that they skip what they may not do.
#
# What is skipped is named at the end. The last line is `N passed, N failed, N skipped`; the exit code
# is 0 only when none failed. A skipped test says so with a line `skipped: NAME: REASON`.
set -euo pipefail
cd "$(dirname "$0")/.."
# After a plain `su`, Debian leaves ip, ethtool and tcpdump out of the path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HOME/.cargo/bin

logs=$(mktemp -d "${TMPDIR:-/tmp}/dataplane-test.XXXXXX")
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 skipped=0
: >"$logs/skipped"

# libtest's output without what passing tests print: a failure must be easy to find.
without_successes() {
    awk '/^successes:$/ { quiet = 1 } /^(failures:|test result:)/ { quiet = 0 } !quiet { print; fflush() }'
}

# count LOG WHO: adds a log to the totals, and its skipped tests to the list.
count() {
    local log=$1 who=$2 ok bad skips
    ok=$(sed -n 's/^test result: .* \([0-9]*\) passed;.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
    bad=$(sed -n 's/^test result: .* \([0-9]*\) failed;.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
    {
        sed -n 's/^skipped: //p' "$log"
        sed -n 's/^test \(.*\) \.\.\. ignored/\1: ignored/p' "$log"
    } | sort -u >"$log.skipped"
    skips=$(sed -n 's/^skipped: //p' "$log" | sort -u | wc -l)
    # libtest takes a test that returned early for one that passed.
    ok=$((ok - skips))
    skips=$(wc -l <"$log.skipped")
    sed "s/^/  as $who: /" "$log.skipped" >>"$logs/skipped"
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skips))
    [ "$bad" -gt 0 ] || grep -q '^test result:' "$log" || return 1
}

me=$(id -un)
status=0
echo "== Tests of the workspace, as $me"
cargo test --workspace --locked --no-fail-fast -- --show-output 2>&1 </dev/null |
    tee "$logs/workspace" | without_successes || status=$?
count "$logs/workspace" "$me" || status=1

if [ "$(id -u)" = 0 ]; then
    echo "== Tests of the service, as nobody"
    # The test binaries that were just built, and not the program; Cargo prints one JSON object a line.
    cargo test --workspace --locked --no-run --message-format=json 2>/dev/null </dev/null |
        sed -n 's/.*"package_id":"[^"]*\/dataplane#[^"]*".*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*/\1/p' \
            >"$logs/binaries" || true
    as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --)
    mkdir -m 777 "$logs/nobody"
    chmod 755 "$logs"
    # nobody_may_read FOLDER BINARY
    nobody_may_read() { "${as_nobody[@]}" test -r "$1/Cargo.toml" -a -x "$2"; }
    clone=$PWD
    if [ ! -s "$logs/binaries" ]; then
        echo "there are none: the build failed"
        status=1
    else
        binary=$(head -n 1 "$logs/binaries")
        program=$(dirname "$(dirname "$binary")")/dataplane
        if ! nobody_may_read "$clone" "$binary"; then
            # A clone in somebody's home: a copy of the tests, and of what they read, lies elsewhere.
            clone=$logs/clone
            mkdir -p "$clone/bin"
            tar --create --exclude=target Cargo.toml dataplane ebpf | tar --extract --directory "$clone"
            mapfile -t binaries <"$logs/binaries"
            cp "${binaries[@]}" "$program" "$clone/bin"
            printf '%s\n' "${binaries[@]##*/}" | sed "s|^|$clone/bin/|" >"$logs/binaries"
            binary=$(head -n 1 "$logs/binaries")
            program=$clone/bin/dataplane
            chmod -R a+rX "$clone"
        fi
        if nobody_may_read "$clone" "$binary"; then
            while read -r binary; do
                echo "     Running $binary"
                # As Cargo does: in the folder of the package.
                (
                    cd "$clone/dataplane"
                    exec env CARGO_MANIFEST_DIR="$PWD" CARGO_BIN_EXE_dataplane="$program" \
                        HOME="$logs/nobody" TMPDIR="$logs/nobody" \
                        "${as_nobody[@]}" "$binary" --show-output
                ) </dev/null 2>&1 | tee -a "$logs/as-nobody" | without_successes || status=$?
            done <"$logs/binaries"
            count "$logs/as-nobody" nobody || status=1
        else
            echo "  as nobody: every test of the service: nobody may not read $logs; set TMPDIR" \
                >>"$logs/skipped"
            skipped=$((skipped + 1))
        fi
    fi
fi

if [ -s "$logs/skipped" ]; then
    echo
    echo "Skipped:"
    cat "$logs/skipped"
fi
echo
# A build that fails leaves no count of failed tests, but must not look like success.
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
