//! The kernel's settings in all combinations, and MTUs.

use crate::client::Client;
use crate::extent::{MIB, is_full, sized};
use crate::setup::{ECHO, Interop, SOURCE, Setup, both, interop, may_run, say, v4};
use crate::support::lab::{DEVICE, PEER};

/// What each combination is tried with.
#[track_caller]
fn exchange(interop: &Interop, is_v4_only: bool) {
    let versions = if is_v4_only { 1 } else { 2 };
    for to in both(ECHO).into_iter().take(versions) {
        interop.connect(to).echo_all(sized(MIB / 4, 4 * MIB));
    }
    for to in both(SOURCE).into_iter().take(versions) {
        let mut client = interop.connect(to);
        client.expect_source(sized(MIB / 4, 4 * MIB));
    }
    interop.until_quiet();
}

/// Options that kernels negotiate: SACK (RFC 2018), timestamps and window scaling (RFC 7323), ECN
/// (RFC 3168; 3 asks for AccECN, RFC 9768, where the kernel knows it).
#[test]
fn every_combination_of_options_works() {
    let interop = interop!("every_combination_of_options_works", Setup::default());
    // The middle of the list repeats with everything else the other way.
    let all = [false, true];
    for sack in all {
        for timestamps in all {
            for scaling in all {
                // Full runs cross these with ECN, samples change it along.
                let ecn = [u8::from(sack ^ timestamps ^ scaling), 3];
                let ecn = if is_full() {
                    vec![0, 1, 3]
                } else {
                    ecn.to_vec()
                };
                for ecn in ecn {
                    let settings = [
                        ("tcp_sack", u8::from(sack)),
                        ("tcp_timestamps", u8::from(timestamps)),
                        ("tcp_window_scaling", u8::from(scaling)),
                        ("tcp_ecn", ecn),
                    ];
                    if set(&interop, &settings) {
                        say(&format!("options: {settings:?}"));
                        exchange(&interop, false);
                    }
                }
            }
        }
    }
    interop.stop();
}

/// Sets what the peer's kernel knows; whether it took all of it.
fn set(interop: &Interop, settings: &[(&str, u8)]) -> bool {
    settings.iter().all(|(key, value)| {
        let path = format!("/proc/sys/net/ipv4/{key}");
        interop
            .lab
            .peer
            .run(|| std::fs::write(&path, value.to_string()))
            .is_ok()
    })
}

#[test]
fn every_congestion_control_works() {
    let interop = interop!("every_congestion_control_works", Setup::default());
    let path = "/proc/sys/net/ipv4/tcp_congestion_control";
    let mut tried = 0;
    for name in ["reno", "cubic", "bbr", "dctcp"] {
        // What the kernel does not allow here is not ours to show.
        if interop.lab.peer.run(|| std::fs::write(path, name)).is_ok() {
            say(&format!("congestion control: {name}"));
            exchange(&interop, false);
            tried += 1;
        }
    }
    assert!(tried > 0, "reno is always there");
    interop.stop();
}

/// MTUs of the service's interface and of the peer's: the same, and different ones, where each side
/// must keep to what the other announced.
#[test]
fn every_mtu_works() {
    if !may_run("every_mtu_works", &[]) {
        return;
    }
    for (mtu, peer_mtu) in [
        (576, 576),
        (1280, 1280),
        (1500, 576),
        (1500, 1280),
        (1500, 9000),
        (3000, 9000),
        (3400, 3400),
    ] {
        say(&format!("MTU: {mtu} and {peer_mtu}"));
        let interop = Interop::start(&Setup {
            mtu,
            peer_mtu,
            ..Setup::default()
        });
        // IPv6 needs 1280 (RFC 8200 §5), and a kernel takes it off an interface below.
        exchange(&interop, mtu.min(peer_mtu) < 1280);
        interop.stop();
    }
}

/// The path is narrower than the interfaces say, and a route tells only one side: the segments of the
/// other must be as small as what was announced.
#[test]
fn an_announced_segment_size_is_kept() {
    let interop = interop!("an_announced_segment_size_is_kept", Setup::default());
    // 88 bytes is the smallest that a kernel lets a route announce.
    for advmss in [88, 536, 1000] {
        let device = format!("dev {PEER} advmss {advmss}");
        interop
            .lab
            .peer
            .ip(&format!("route replace 10.77.0.0/24 {device}"));
        let mut client: Client = interop.connect(v4(ECHO));
        client.send(100);
        client.expect(100);
        let before = packets_received(&interop);
        client.send(50_000);
        client.expect(50_000);
        let packets = packets_received(&interop) - before;
        // With 12 bytes of timestamps in each.
        let at_least = 50_000 / advmss;
        assert!(packets >= at_least, "{packets} packets at {advmss} bytes");
    }
    interop.until_quiet();
    interop.stop();
}

/// Packets the peer's interface has received. Nothing is merged on the way.
#[track_caller]
fn packets_received(interop: &Interop) -> u64 {
    let path = format!("/sys/class/net/{PEER}/statistics/rx_packets");
    let peer = &interop.lab.peer;
    let text = peer.sh(&format!("ip -s -s -j link show dev {PEER}"));
    let shown: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    shown[0]["stats64"]["rx"]["packets"]
        .as_u64()
        .unwrap_or_else(|| panic!("{path}, {DEVICE}: {text}"))
}
