#!/usr/bin/env bash
# The whole journey on this machine alone: builds, makes a veth pair between two network namespaces, runs
# the service at one end and loadgen at the other, prints latency histograms, and removes everything.
#
#   namespace dpdemo-PID-server             namespace dpdemo-PID-client
#   dataplane ── dp0 (2 queues) ═══ veth ═══ peer0 (2 queues) ── loadgen, on kernel sockets
#                10.77.0.1                   10.77.0.2
#                fd77::1                     fd77::2
#
# DEMO_SECONDS (3) is the length of each load. Nothing outside of the two namespaces is touched.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

seconds=${DEMO_SECONDS:-3}
if ! [[ $seconds =~ ^[1-9][0-9]{0,2}$ ]]; then
    echo "DEMO_SECONDS = $seconds: must be a number of seconds from 1 to 999" >&2
    exit 2
fi

# Built as whoever runs this, so that target/ stays theirs; only the rest needs root.
if [ "${1:-}" != --built ]; then
    echo "== Building (the first time takes some minutes)"
    cargo build --release --locked --bin dataplane --bin loadgen
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "Network namespaces and AF_XDP need root, and there is no sudo. Run: make demo, as root" >&2
            exit 1
        fi
        echo "Network namespaces and AF_XDP need root:"
        exec sudo env CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-}" DEMO_SECONDS="$seconds" "$PWD/scripts/demo.sh" --built
    fi
fi
binaries=${CARGO_TARGET_DIR:-target}
[ -n "$binaries" ] || binaries=target
binaries=$binaries/release

name=dpdemo-$$
server=$name-server
client=$name-client
work=$(mktemp -d "${TMPDIR:-/tmp}/$name.XXXXXX")
service=
load=

# Stops PID, at first politely; a service that hangs must not stay behind.
stop() {
    local pid=$1
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    echo "process $pid did not end within 10 s of SIGTERM: killing it" >&2
    kill -KILL "$pid" 2>/dev/null || true
    return 1
}

# On every way out: what was made goes, and that it is gone is checked and said.
cleanup() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    set +e
    [ -z "$load" ] || stop "$load"
    if [ -n "$service" ]; then
        stop "$service"
        wait "$service" 2>/dev/null
        if [ "$status" != 0 ] && [ -s "$work/service.log" ]; then
            echo "-- what the service said:" >&2
            tail -n 40 "$work/service.log" >&2
        fi
    fi
    # The veth pair goes with its namespaces.
    ip netns del "$server" 2>/dev/null
    ip netns del "$client" 2>/dev/null
    rm -rf "$work"

    local left=()
    [ -z "$service" ] || ! kill -0 "$service" 2>/dev/null || left+=("process $service")
    [ ! -e "/run/netns/$server" ] || left+=("namespace $server")
    [ ! -e "/run/netns/$client" ] || left+=("namespace $client")
    [ ! -e "$work" ] || left+=("directory $work")
    if [ "${#left[@]}" -gt 0 ]; then
        printf 'Left behind: %s\n' "${left[*]}" >&2
        [ "$status" != 0 ] || status=1
    else
        echo "== Cleaned up: no process, namespace, interface or file of the demo is left"
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

echo "== A veth pair with two queues at each end, in namespaces $server and $client"
if ! ip netns add "$server"; then
    echo "Network namespaces cannot be made here. In a container, CAP_SYS_ADMIN and CAP_NET_ADMIN are needed." >&2
    exit 1
fi
ip netns add "$client"
# Made inside the namespaces at once, so that the names cannot meet others of this machine.
ip link add dp0 netns "$server" numrxqueues 2 numtxqueues 2 type veth \
    peer name peer0 netns "$client" numrxqueues 2 numtxqueues 2
# nodad: no second of waiting until the IPv6 addresses may be used.
ip -n "$server" address add 10.77.0.1/24 dev dp0
ip -n "$server" address add fd77::1/64 dev dp0 nodad
ip -n "$client" address add 10.77.0.2/24 dev peer0
ip -n "$client" address add fd77::2/64 dev peer0 nodad
for namespace in "$server" "$client"; do ip -n "$namespace" link set lo up; done
ip -n "$server" link set dp0 up
ip -n "$client" link set peer0 up
# A veth peer leaves checksums to a NIC that is not there, and TSO the same: packets would arrive with
# incomplete checksums, which the service counts and drops (checksums.accept_incomplete = false).
ip netns exec "$client" ethtool -K peer0 tx off >/dev/null

# Two demos may run at once, and namespaces do not separate Unix sockets: a socket of its own for each.
socket=$work/control.sock
sed "s|^socket = .*|socket = \"$socket\"|" config/demo.toml >"$work/demo.toml"

echo "== The service: dataplane run --config config/demo.toml"
ip netns exec "$server" "$binaries/dataplane" run --config "$work/demo.toml" \
    >"$work/service.log" 2>&1 </dev/null &
service=$!
for _ in $(seq 150); do
    [ ! -S "$socket" ] || break
    if ! kill -0 "$service" 2>/dev/null; then
        echo "the service ended instead of starting" >&2
        exit 1
    fi
    sleep 0.1
done
if [ ! -S "$socket" ]; then
    echo "the service was not ready within 15 s" >&2
    exit 1
fi
cat "$work/service.log"

# Runs its arguments at the client's end. In the background and waited for, so that a signal is
# obeyed at once.
at_client() {
    ip netns exec "$client" "$@" </dev/null &
    load=$!
    local status=0
    wait "$load" || status=$?
    load=
    return "$status"
}

echo
echo "== The kernel still answers on the same interface: ping 10.77.0.1 and fd77::1"
for address in 10.77.0.1 fd77::1; do
    at_client ping -q -c 1 -W 2 "$address" >"$work/ping" || {
        cat "$work/ping" >&2
        echo "no answer to ping from $address" >&2
        exit 1
    }
done
echo "both answered"

for target in 10.77.0.1:7 '[fd77::1]:7'; do
    echo
    echo "== Load: loadgen udp-rr $target --duration $seconds --flows 16"
    at_client "$binaries/loadgen" udp-rr "$target" --duration "$seconds" --flows 16
done

echo
echo "== TCP: a kernel client sends a mebibyte to port 7 and has it back; dataplane sockets meanwhile"
head -c 1048576 /dev/urandom >"$work/sent"
for address in 10.77.0.1 fd77::1; do
    # Bash is client enough: /dev/tcp. Another process writes, or both would wait for room.
    at_client timeout 30 bash -c '
        exec 3<>"/dev/tcp/$1/7"
        cat "$2/sent" >&3 &
        head -c 1048576 <&3 >"$2/came"
        "$3" sockets --socket "$4" --state established >"$2/sockets"
        wait' demo "$address" "$work" "$binaries/dataplane" "$socket" || {
        echo "no TCP echo from $address" >&2
        exit 1
    }
    cmp "$work/sent" "$work/came"
    cat "$work/sockets"
done

echo
echo "== SIGTERM to the service, which prints its histograms"
said=$(wc -c <"$work/service.log")
stop "$service"
status=0
wait "$service" || status=$?
tail -c "+$((said + 1))" "$work/service.log"
service=
if [ "$status" != 0 ]; then
    echo "the service ended with exit code $status" >&2
    exit 1
fi

echo
echo "== Where things are"
printf '  %-28s %s\n' \
    "$binaries/dataplane" "the service (--help)" \
    "$binaries/loadgen" "the load generator (--help)" \
    config/demo.toml "what ran here" \
    config/default.toml "every key explained" \
    config/examples/ "to start from on a real NIC"
