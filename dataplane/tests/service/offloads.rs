//! What peers leave to their NICs, and the modes and sizes of ours.

use crate::support::lab::{PEER, lab, serve};
use crate::support::{assert_says, until};
use std::time::Duration;

#[test]
fn incomplete_checksums_are_dropped_and_explained() {
    let lab = lab!("incomplete_checksums_are_dropped_and_explained", queues: 1);
    lab.peer.sh(&format!("ethtool -K {PEER} tx on"));
    let service = lab.start(&serve("echo", &["[::]:7"]));
    assert_eq!(service.notes().matches("checksum").count(), 0);
    for to in ["10.77.0.1:7", "[fd77::1]:7"] {
        let client = lab.client(to);
        client.send(b"incomplete");
        assert_eq!(client.receive(Duration::from_millis(50)), None);
    }
    until("both are counted", || {
        service.counter("drop", "udp_checksum_incomplete") == 2
    });
    assert_says(
        &service.notes(),
        &[
            "incomplete checksum",
            "ethtool -K",
            "checksums.accept_incomplete",
        ],
    );
    // What the note advises helps.
    lab.peer.sh(&format!("ethtool -K {PEER} tx off"));
    lab.client("10.77.0.1:7").echoes(b"complete");
}

#[test]
fn incomplete_checksums_are_accepted_where_the_configuration_says_so() {
    let lab = lab!("incomplete_checksums_are_accepted_where_the_configuration_says_so", queues: 1);
    lab.peer.sh(&format!("ethtool -K {PEER} tx on"));
    let accept = "\n[checksums]\naccept_incomplete = true\n";
    let service = lab.start(&format!("{accept}{}", serve("echo", &["[::]:7"])));
    for to in ["10.77.0.1:7", "[fd77::1]:7"] {
        let client = lab.client(to);
        for len in [0, 1, 64, 1451, 3000] {
            client.echoes(&vec![0x33; len]);
        }
    }
    // The kernel finishes the checksum of what it cuts into fragments by itself.
    assert_eq!(service.counter("event", "checksum_incomplete_accepted"), 8);
    assert_eq!(service.counter("drop", "udp_checksum_incomplete"), 0);
}

#[test]
fn auto_says_which_mode_it_fell_back_to() {
    let lab = lab!("auto_says_which_mode_it_fell_back_to", queues: 1);
    let service = lab.start(&serve("echo", &["[::]:7"]));
    let mode = &service.ask_json("info")["mode"];
    assert_eq!(
        (&mode["requested"], &mode["obtained"]),
        (&"auto".into(), &"copy".into())
    );
    assert_eq!(mode["attached"], "native");
    assert_says(&service.notes(), &["zero-copy", "dp0", "veth"]);
    assert!(!service.notes().contains("ask for"), "auto was asked for");
    assert_says(&service.stderr(), &["ready", "copy mode"]);
}

#[test]
fn modes_asked_for_by_name_are_had() {
    let lab = lab!("modes_asked_for_by_name_are_had", queues: 2);
    for (mode, attached) in [("copy", "native"), ("generic", "generic")] {
        let service = lab.start(&format!(
            "mode = \"{mode}\"\n{}",
            serve("echo", &["[::]:7"])
        ));
        let info = service.ask_json("info");
        assert_eq!(info["mode"]["obtained"], mode);
        assert_eq!(info["mode"]["attached"], attached);
        for to in ["10.77.0.1:7", "[fd77::1]:7"] {
            let client = lab.client(to);
            for len in [0, 1, 1452, 3000] {
                client.echoes(&vec![0x44; len]);
            }
        }
        assert_eq!(service.notes(), "", "{mode}");
        service.stop();
    }
}

#[test]
fn packets_longer_than_1500_bytes_need_larger_frames() {
    let lab = lab!("packets_longer_than_1500_bytes_need_larger_frames", queues: 1);
    lab.server.ip("link set dp0 mtu 3000");
    lab.peer.ip("link set peer0 mtu 3000");
    let refused = lab.start_in_vain(&serve("echo", &["[::]:7"]));
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    assert_says(
        &refused.stderr,
        &["rings.frame_size = 2048", "3000", "4096"],
    );
    let config = format!(
        "\n[rings]\nframe_size = 4096\n{}",
        serve("echo", &["[::]:7"])
    );
    let service = lab.start(&config);
    lab.client("10.77.0.1:7").echoes(&[0x55; 3000 - 28]);
    lab.client("[fd77::1]:7").echoes(&[0x55; 3000 - 48]);
    assert_eq!(service.counter("event", "fragment_rx"), 0);
    assert_eq!(service.counter("event", "fragment_tx"), 0);
}
