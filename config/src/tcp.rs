//! `[tcp]`: what TCP does, for every TCP service. How much of it there may be is in `[limits]`.

use crate::document::{Section, number, string};
use crate::schema::words;
use crate::value::PortRange;
use serde::Serialize;
use std::ops::RangeInclusive;

/// `[tcp]`: what TCP does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tcp {
    /// Least retransmission timeout, in ms, 1 to 3000 (RFC 6298 §2.4). Default: 200.
    pub rto_min_ms: u16,
    /// Longest time an ACK is held back, in ms, 0 to 450 (RFC 9293 §3.8.6.3). Default: 40.
    pub ack_delay_ms: u32,
    /// How often a SYN is sent again, 1 to 15. Default: 6.
    pub syn_retries: u8,
    /// How often a SYN,ACK is sent again, 1 to 15. Default: 5.
    pub syn_ack_retries: u8,
    /// When SYN cookies are sent (RFC 4987 §3.6). Default: when-full.
    pub syn_cookies: SynCookies,
    /// Challenge ACKs a second, 1 to 1000000 (RFC 5961 §7). Default: 1000.
    pub challenge_acks_per_s: u32,
    /// Whether selective acknowledgements are offered and accepted (RFC 2018). Default: true.
    pub sack: bool,
    /// Whether timestamps are (RFC 7323 §3). Default: true.
    pub timestamps: bool,
    /// Whether window scaling is (RFC 7323 §2). Default: true.
    pub window_scaling: bool,
    /// What is done about explicit congestion notification (RFC 3168). Default: accept.
    pub ecn: Ecn,
    /// How long data may go unacknowledged before a connection is given up, in seconds, 1 to 86400
    /// (RFC 5482). Default: 900.
    pub user_timeout_s: u32,
    /// Silence after which the peer is probed, in seconds, 1 to 86400; 0 never probes (RFC 9293
    /// §3.8.4). Default: 0.
    pub keepalive_idle_s: u32,
    /// Time between probes, in seconds, 1 to 3600. Default: 75.
    pub keepalive_interval_s: u32,
    /// Probes without an answer after which a connection is dead, 1 to 20. Default: 9.
    pub keepalive_probes: u8,
    /// How long the memory of a closed connection is kept, in seconds, 1 to 240. Default: 60.
    pub time_wait_s: u32,
    /// How long a connection that we have closed waits for the peer to close, in seconds, 1 to 3600.
    /// Default: 60.
    pub fin_wait_2_s: u32,
    /// The local ports of connections that services open. Default: 61000-65535.
    pub ports: PortRange,
}

impl Default for Tcp {
    fn default() -> Self {
        // Where RFCs leave a choice, Linux's.
        Self {
            // TCP_RTO_MIN.
            rto_min_ms: 200,
            // TCP_DELACK_MIN.
            ack_delay_ms: 40,
            // RFC 9293 §3.8.3, MUST-23: three minutes at least; with tcp_syn_retries = 6 it is two.
            syn_retries: 7,
            // tcp_synack_retries.
            syn_ack_retries: 5,
            syn_cookies: SynCookies::WhenFull,
            // tcp_challenge_ack_limit, before it was lifted.
            challenge_acks_per_s: 1000,
            sack: true,
            timestamps: true,
            window_scaling: true,
            ecn: Ecn::Accept,
            // About what tcp_retries2 = 15 comes to.
            user_timeout_s: 900,
            // RFC 9293 §3.8.4, MUST-25: off by default.
            keepalive_idle_s: 0,
            // tcp_keepalive_intvl, tcp_keepalive_probes.
            keepalive_interval_s: 75,
            keepalive_probes: 9,
            // TCP_TIMEWAIT_LEN, tcp_fin_timeout.
            time_wait_s: 60,
            fin_wait_2_s: 60,
            // Of the ports that nobody has registered (RFC 6335 §6: 49152 on) those that Linux does not give
            // out itself (net.ipv4.ip_local_port_range: 32768 to 60999), so that none is in use at start.
            ports: PortRange {
                first: 61_000,
                last: 65_535,
            },
        }
    }
}

words! {
    /// When SYN cookies are sent.
    SynCookies {
        /// Never: SYNs beyond the limits are dropped.
        Never = "never",
        /// When the table of half-open connections, or a listener's backlog, is full.
        WhenFull = "when-full",
        /// Always: no SYN costs memory.
        Always = "always",
    }
}

words! {
    /// What is done about explicit congestion notification.
    Ecn {
        /// Nothing.
        Off = "off",
        /// Agreed to where the peer asks.
        Accept = "accept",
        /// Asked for as well.
        Offer = "offer",
    }
}

words! {
    /// The congestion control of a service's connections.
    Congestion {
        /// RFC 9438.
        Cubic = "cubic",
        /// RFC 5681, RFC 6582.
        NewReno = "new_reno",
    }
}

/// A day, in seconds.
const DAY_S: u32 = 86_400;
/// Times a SYN is sent again: with 15, doubled from a second on up to a minute each, some 12 minutes.
const RETRIES: RangeInclusive<u8> = 1..=15;

/// What `ports` is.
const PORTS: &str = "a range of ports such as \"61000-65535\"";

pub(crate) fn tcp(mut section: Section<'_, '_, '_>) -> Tcp {
    let default = Tcp::default();
    let keepalive_idle_s = section.read("keepalive_idle_s", |value| {
        number(value, &(0..=DAY_S))
            .map_err(|_| format!("must be 0 (off) or a number of seconds from 1 to {DAY_S}"))
    });
    let tcp = Tcp {
        rto_min_ms: section.number("rto_min_ms", 1..=3000, default.rto_min_ms),
        // RFC 9293 §3.8.6.3 (MUST-40): less than 500 ms, whatever it takes to notice.
        ack_delay_ms: section.number("ack_delay_ms", 0..=450, default.ack_delay_ms),
        syn_retries: section.number("syn_retries", RETRIES, default.syn_retries),
        syn_ack_retries: section.number("syn_ack_retries", RETRIES, default.syn_ack_retries),
        syn_cookies: section
            .word("syn_cookies", SynCookies::ALL)
            .unwrap_or(default.syn_cookies),
        challenge_acks_per_s: section.number(
            "challenge_acks_per_s",
            1..=1_000_000,
            default.challenge_acks_per_s,
        ),
        sack: section.boolean("sack", default.sack),
        timestamps: section.boolean("timestamps", default.timestamps),
        window_scaling: section.boolean("window_scaling", default.window_scaling),
        ecn: section.word("ecn", Ecn::ALL).unwrap_or(default.ecn),
        user_timeout_s: section.number("user_timeout_s", 1..=DAY_S, default.user_timeout_s),
        keepalive_idle_s: keepalive_idle_s.unwrap_or(default.keepalive_idle_s),
        keepalive_interval_s: section.number(
            "keepalive_interval_s",
            1..=3600,
            default.keepalive_interval_s,
        ),
        keepalive_probes: section.number("keepalive_probes", 1..=20, default.keepalive_probes),
        // RFC 9293 §3.4.2: twice the maximum segment lifetime of 2 minutes is the longest anybody needs.
        time_wait_s: section.number("time_wait_s", 1..=240, default.time_wait_s),
        fin_wait_2_s: section.number("fin_wait_2_s", 1..=3600, default.fin_wait_2_s),
        ports: section
            .read("ports", |value| string(value, PORTS, str::parse))
            .unwrap_or(default.ports),
    };
    section.finish();
    tcp
}
