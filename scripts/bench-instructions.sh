#!/usr/bin/env bash
# Counts the instructions of one UDP echo, and of what TCP does, under callgrind and writes the tables
# in bench/BASELINE.md.
#
#   scripts/bench-instructions.sh             counts, writes the tables; and times TCP against smoltcp
#   scripts/bench-instructions.sh --check     counts, compares with the table; fails if something grew
#                                             by more than 3 %
#
# Every subject runs twice, once for more packets than the other time: the difference has no start and
# no end in it. What the harness costs by itself is subtracted.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin

table=bench/BASELINE.md
# Some turns to warm up, so that what is looked up once has been.
few=640
# 12,800 packets are 10 ms of the harness's time: the timers of every 10 ms run once for them, as
# often as they should.
packets=12800
# A count repeats exactly on one machine. Another CPU's memcpy differs by a few instructions, and the
# next compiler by more; what is worth a look is more than that.
tolerance_percent=3
subjects=(
    "stack 64" "stack-scattered 64" "stack-rewritten 64" "reflector 64" "smoltcp 64"
    "stack 1" "stack 63" "stack 1400" "stack-rewritten 1" "stack-rewritten 63" "stack-rewritten 1400"
)
# Work, subject, connections, and how much of the work in the short run and in the long one. In the
# short run every connection has had its turn. smoltcp looks at all connections for every packet: its
# runs are shorter where there are many, and with 8,192 opening them alone would take an hour here.
tcp_subjects=(
    "request stack 1 640 13440" "request smoltcp 1 640 13440"
    "request stack 64 640 13440" "request smoltcp 64 640 3840"
    "request stack 1024 2048 14336" "request smoltcp 1024 1024 2048"
    "request stack 8192 16384 32768"
    "connect stack 1 64 1344" "connect smoltcp 1 64 704"
    "connect stack 64 128 6528" "connect smoltcp 64 128 768"
    "receive stack 1 640 13440" "receive smoltcp 1 640 6720" "receive copy-and-checksum 1 640 13440"
    "send stack 1 640 13440" "send smoltcp 1 640 6720"
)

check=no
case "${1-}" in
    "") ;;
    --check) check=yes ;;
    *)
        echo "bench-instructions.sh: $1: must be --check or nothing" >&2
        exit 2
        ;;
esac
command -v valgrind >/dev/null || {
    echo "bench-instructions.sh: no valgrind: scripts/deps.sh bench installs it" >&2
    exit 1
}

build=(cargo build --release --locked -p echo-instructions)
"${build[@]}" --quiet
program=$("${build[@]}" --quiet --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)

# collect SUBJECT VERSION PAYLOAD PACKETS: all instructions of one run.
collect() {
    local log
    log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$@" 2>&1) || {
        printf '%s\n' "$log" >&2
        return 1
    }
    printf '%s\n' "$log" | sed -n 's/^==[0-9]*== Collected : \([0-9]*\)$/\1/p'
}

# per_packet SUBJECT VERSION PAYLOAD: instructions a packet, start and end left out.
per_packet() {
    local short long
    short=$(collect "$1" "$2" "$3" "$few")
    long=$(collect "$1" "$2" "$3" $((few + packets)))
    echo $(((long - short) / packets))
}

# count: a line `SUBJECT PAYLOAD IPV4 IPV6` for each subject, harness subtracted.
count() {
    local subject payload version counts
    local -A harness
    for entry in "${subjects[@]}"; do
        read -r subject payload <<<"$entry"
        counts=()
        for version in ipv4 ipv6; do
            [ -n "${harness[$version $payload]-}" ] ||
                harness[$version $payload]=$(per_packet harness "$version" "$payload")
            counts+=($(($(per_packet "$subject" "$version" "$payload") - harness[$version $payload])))
        done
        echo "$subject $payload ${counts[*]}"
    done
}

# collect_tcp WORK SUBJECT VERSION CONNECTIONS COUNT: all instructions of one run, and how much it did.
collect_tcp() {
    local log
    log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" tcp "$@" 2>&1) || {
        printf '%s\n' "$log" >&2
        return 1
    }
    printf '%s\n' "$log" | sed -n 's/^==[0-9]*== Collected : \([0-9]*\)$/\1/p'
    printf '%s\n' "$log" | sed -n 's/^counted \([0-9]*\)$/\1/p'
}

# per_work WORK SUBJECT VERSION CONNECTIONS FEW MANY: instructions for each, start and end left out.
per_work() {
    local short long
    mapfile -t short < <(collect_tcp "$1" "$2" "$3" "$4" "$5")
    mapfile -t long < <(collect_tcp "$1" "$2" "$3" "$4" "$6")
    echo $(((long[0] - short[0]) / (long[1] - short[1])))
}

# count_tcp: a line `SUBJECT CASE IPV4 IPV6` for each, harness subtracted. The harness has nothing to
# look up: it costs the same with 64 connections and with more.
count_tcp() {
    local work subject connections few many version counts batch
    local -A harness
    for entry in "${tcp_subjects[@]}"; do
        read -r work subject connections few many <<<"$entry"
        counts=()
        batch=$((connections < 64 ? connections : 64))
        for version in ipv4 ipv6; do
            [ -n "${harness[$work $version $batch]-}" ] ||
                harness[$work $version $batch]=$(per_work "$work" harness "$version" "$batch" 640 7040)
            counts+=($(($(per_work "$work" "$subject" "$version" "$connections" "$few" "$many") - harness[$work $version $batch])))
        done
        echo "tcp-$work-$subject $connections ${counts[*]}"
    done
}

# race VERSION: a line `WORK/CONNECTIONS NS NS-OF-SMOLTCP RATIO` for each, sorted.
race() {
    "$program" tcp race "$1" | sed 's/ /\//' | sort
}

counted=$(count)
counted_tcp=$(count_tcp)

if [ "$check" = no ]; then
    # The text around the table stays; the table between the marks is replaced.
    {
        sed '/^<!-- counted/q' "$table"
        echo
        echo "\`scripts/bench-instructions.sh\`, $(rustc --version), $(valgrind --version), $(uname -m)"
        echo
        echo "| subject | payload, bytes | IPv4 | IPv6 |"
        echo "|---|--:|--:|--:|"
        while read -r subject payload v4 v6; do
            echo "| $subject | $payload | $v4 | $v6 |"
        done <<<"$counted"
        echo
        echo "| work and subject | connections | IPv4 | IPv6 |"
        echo "|---|--:|--:|--:|"
        while read -r subject connections v4 v6; do
            echo "| $subject | $connections | $v4 | $v6 |"
        done <<<"$counted_tcp"
        echo
        # One after the other, so the two are disturbed alike; what counts is the ratio.
        echo "| work | connections | IPv4: ns | smoltcp | times | IPv6: ns | smoltcp | times |"
        echo "|---|--:|--:|--:|--:|--:|--:|--:|"
        join -j 1 <(race ipv4) <(race ipv6) | while read -r name v4 v4_theirs v4_ratio v6 v6_theirs v6_ratio; do
            echo "| ${name%%/*} | ${name##*/} | $v4 | $v4_theirs | $v4_ratio | $v6 | $v6_theirs | $v6_ratio |"
        done
        echo
        sed -n '/^<!-- end -->/,$p' "$table"
    } >"$table.new"
    mv "$table.new" "$table"
    sed -n '/^| subject | payload/,/^<!-- end/{/^|/p}' "$table"
    exit 0
fi

# old SUBJECT PAYLOAD: the two figures of the table.
old() {
    sed -n "s/^| $1 | $2 | \([0-9]*\) | \([0-9]*\) |\$/\1 \2/p" "$table"
}

failed=no
while read -r subject payload v4 v6; do
    read -r old_v4 old_v6 <<<"$(old "$subject" "$payload")" || true
    if [ -z "${old_v6-}" ]; then
        echo "$table has no figures for $subject $payload: run scripts/bench-instructions.sh"
        failed=yes
        continue
    fi
    for figures in "IPv4 $old_v4 $v4" "IPv6 $old_v6 $v6"; do
        read -r version before now <<<"$figures"
        verdict=ok
        if [ $((now * 100)) -gt $((before * (100 + tolerance_percent))) ]; then
            verdict="grew by more than $tolerance_percent %"
            failed=yes
        fi
        printf '%-30s %5s  %s  %6s -> %6s  %s\n' \
            "$subject" "$payload" "$version" "$before" "$now" "$verdict"
    done
done <<<"$counted"$'\n'"$counted_tcp"
[ "$failed" = no ]
