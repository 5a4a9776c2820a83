//! Packets of every kind, each with the verdict it must get from [`tables`](super::tables).

mod control;
mod flows;
mod headers;

use super::*;
use steer::Verdict;

/// A packet and what must happen to it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) frame: Vec<u8>,
    pub(crate) verdict: Verdict,
}

const PEER: &str = "10.0.0.9";
const HOST: &str = "10.0.0.1";
const OURS: &str = "10.1.0.5";
const PEER6: &str = "2001:db8::9";
const HOST6: &str = "2001:db8::1";
const OURS6: &str = "2001:db8:1::5";
const MORE: u16 = 0x2000;

fn case(name: &'static str, frame: Vec<u8>, verdict: Verdict) -> Case {
    Case {
        name,
        frame,
        verdict,
    }
}

fn udp4(to: &str, port: u16) -> Vec<u8> {
    ipv4(PEER, to, protocol::UDP, &V4::default(), &udp(5000, port))
}

fn tcp4(to: &str, port: u16) -> Vec<u8> {
    ipv4(PEER, to, protocol::TCP, &V4::default(), &tcp(5000, port))
}

fn udp6(to: &str, port: u16) -> Vec<u8> {
    ipv6(PEER6, to, &[], protocol::UDP, &udp(5000, port))
}

fn tcp6(to: &str, port: u16) -> Vec<u8> {
    ipv6(PEER6, to, &[], protocol::TCP, &tcp(5000, port))
}

fn chain(extensions: &[Extension]) -> Vec<u8> {
    ip_frame(&ipv6(
        PEER6,
        HOST6,
        extensions,
        protocol::UDP,
        &udp(5000, 7),
    ))
}

/// In an order that matters: later fragments come after the first.
pub(crate) fn corpus() -> Vec<Case> {
    let mut all = flows::rules();
    all.extend(flows::links());
    all.extend(headers::headers());
    all.extend(headers::fragments());
    all.extend(control::icmp_errors());
    all.extend(control::owned_addresses());
    all.extend(headers::malformed());
    all
}
