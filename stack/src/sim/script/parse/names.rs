//! Names of ICMP errors and states, and how times are written.

use crate::time::Duration;
use alloc::format;
use alloc::string::String;

pub(super) type TypeAndCode = Option<(u8, u8)>;

/// ICMP errors by name: type and code of IPv4 (RFC 792, RFC 1122 §3.2.2) and IPv6 (RFC 4443).
pub(super) const ICMP: [(&str, TypeAndCode, TypeAndCode); 10] = [
    ("net_unreachable", Some((3, 0)), Some((1, 0))),
    ("host_unreachable", Some((3, 1)), Some((1, 3))),
    ("protocol_unreachable", Some((3, 2)), Some((4, 1))),
    ("port_unreachable", Some((3, 3)), Some((1, 4))),
    ("too_big", Some((3, 4)), Some((2, 0))),
    ("source_route_failed", Some((3, 5)), None),
    ("admin_prohibited", Some((3, 13)), Some((1, 1))),
    ("time_exceeded", Some((11, 0)), Some((3, 0))),
    ("parameter_problem", Some((12, 0)), Some((4, 0))),
    ("source_quench", Some((4, 0)), None),
];

/// The states of RFC 9293 §3.3.2.
const STATES: [&str; 11] = [
    "CLOSED",
    "LISTEN",
    "SYN-SENT",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
];

pub(super) fn state(name: &str) -> Result<&str, String> {
    let known = STATES.contains(&name);
    known
        .then_some(name)
        .ok_or_else(|| format!("`{name}`: expected {}", STATES.join(", ")))
}

/// Seconds, with up to nine digits behind the point.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}`: expected seconds, such as 0.100");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 9 {
        return Err(wrong());
    }
    let seconds: u64 = whole.parse().map_err(|_| wrong())?;
    let nanos: u32 = format!("{part:0<9}").parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(seconds) + Duration::from_nanos(nanos.into()))
}

/// A length of time: `40ms`, `2s`, `0.5`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if let Some(millis) = text.strip_suffix("ms") {
        let millis = millis.parse();
        return millis
            .map(Duration::from_millis)
            .map_err(|_| format!("`{text}`: expected a time, such as 40ms"));
    }
    seconds(text.strip_suffix('s').unwrap_or(text))
}
