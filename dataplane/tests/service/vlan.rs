//! Tagged packets. The kernels that tests run on may lack 802.1Q sub-interfaces, so frames are made by
//! hand.

use crate::operating::assert_fails;
use crate::support::lab::{lab, serve_as};

#[test]
fn a_vlan_needs_its_sub_interface() {
    let lab = lab!("a_vlan_needs_its_sub_interface", queues: 1);
    let config = format!(
        "vlan = [100]\n{}",
        serve_as(
            "own",
            "echo",
            &["10.100.0.50:7"],
            "own_addresses = [\"10.100.0.50/24\"]"
        )
    );
    assert_fails(
        &lab.start_in_vain(&config),
        1,
        &["VLAN", "id 100", "ip link add"],
    );
}
