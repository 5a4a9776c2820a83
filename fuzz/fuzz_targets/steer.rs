//! The steering decision on arbitrary packets: it never panics, the kill switch holds, and what the
//! deny list reserves whole is never redirected.
//!
//! The first byte chooses which tables the flags let it look into and which VLAN tags it expects; the
//! rest is the frame.
#![no_main]

#[path = "../../ebpf/steer/tests/common/mod.rs"]
mod common;

use libfuzzer_sys::fuzz_target;
use steer::tables::{Address, LocalKey, flag};
use steer::{Verdict, steer};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, frame)) = input.split_first() else {
        return;
    };
    let mut tables = common::tables();
    tables.config.flags &= flag::ENABLED | (u32::from(choice) << 1);
    tables.config.vlan_stack = match choice >> 6 {
        0 | 1 => 0,
        2 => 100,
        _ => (100 << 16) | 200,
    };
    let verdict = steer(frame, &tables);
    assert!(verdict != Verdict::PassDisabled && verdict != Verdict::PassNoWorker);
    // A second look differs at most by the fragment that the first one remembered.
    let again = steer(frame, &tables);
    assert_eq!(verdict, again);

    tables.config.flags &= !flag::ENABLED;
    assert_eq!(steer(frame, &tables), Verdict::PassDisabled);

    for any in [Address::ANY_V4, Address::ANY_V6] {
        tables.deny.insert(LocalKey { address: any, port: 0, protocol: 0 });
    }
    tables.sync_flags();
    tables.config.flags |= flag::ENABLED;
    assert!(!steer(frame, &tables).redirects());
});
