//! TCP listeners and connections: listed by the workers bit by bit, told as `ss -ti` tells the kernel's.

use crate::control::protocol::{SOCKETS_MAX, SocketQuery};
use crate::observe::report::plural;
use serde::{Deserialize, Serialize};
use stack::Stack;
use stack::frame::FramePool;
use stack::tcp::info::{TcpCursor, TcpDetail, TcpInfo};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use tokio::sync::oneshot;

/// Places looked at in one turn of a worker, at most: some microseconds.
const PER_TURN: u32 = 256;

/// A listing under way on a worker. It allocates nothing there.
#[derive(Debug)]
pub struct Listing {
    query: SocketQuery,
    cursor: TcpCursor,
    began: bool,
    listed: Listed,
    answer: oneshot::Sender<Listed>,
}

/// What one worker has listed.
#[derive(Debug)]
pub struct Listed {
    worker: usize,
    rows: Vec<TcpInfo>,
    /// Those that match, in `rows` or not.
    matched: u64,
    /// How many there are in each state, by the place in [`STATES`], matching or not.
    by_state: [u64; STATES.len()],
}

/// States as `ss` prints them.
const STATES: [&str; 11] = [
    "LISTEN",
    "SYN-SENT",
    "SYN-RECV",
    "ESTAB",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "LAST-ACK",
    "CLOSING",
    "TIME-WAIT",
    "UNCONN",
];

impl Listing {
    /// A listing for a worker, and where it arrives. Room for the answer is taken here.
    #[must_use]
    pub fn new(worker: usize, query: SocketQuery) -> (Self, oneshot::Receiver<Listed>) {
        let (answer, receiver) = oneshot::channel();
        let limit = query.limit.min(SOCKETS_MAX);
        let listing = Self {
            query,
            cursor: TcpCursor::default(),
            began: false,
            listed: Listed {
                worker,
                rows: Vec::with_capacity(limit as usize),
                matched: 0,
                by_state: [0; STATES.len()],
            },
            answer,
        };
        (listing, receiver)
    }

    /// Lists some more; gives itself back until it is done.
    #[cold]
    #[must_use]
    pub fn go_on<P: FramePool>(mut self: Box<Self>, stack: &Stack<P>) -> Option<Box<Self>> {
        let Self {
            query,
            cursor,
            began,
            listed,
            answer: _,
        } = &mut *self;
        if !std::mem::replace(began, true) {
            stack.tcp_walk_listeners(|info| listed.take(query, &info));
        }
        stack.tcp_walk(cursor, PER_TURN, |info| listed.take(query, &info));
        if !cursor.is_at_end() {
            return Some(self);
        }
        // Who asked may have given up.
        let Self { answer, listed, .. } = *self;
        let _ = answer.send(listed);
        None
    }
}

impl Listed {
    fn take(&mut self, query: &SocketQuery, info: &TcpInfo) {
        if let Some(place) = STATES.iter().position(|state| *state == info.state) {
            self.by_state[place] += 1;
        }
        if query
            .state
            .is_some_and(|state| state.printed() != info.state)
        {
            return;
        }
        self.matched += 1;
        if self.rows.len() < self.rows.capacity() {
            self.rows.push(*info);
        }
    }
}

/// One listener or connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SocketRow {
    /// The state, as `ss` prints it.
    pub state: String,
    /// Bytes that wait for the application; of a listener, connections that do.
    pub recv_q: u32,
    /// Bytes not acknowledged or not sent yet; of a listener, its backlog.
    pub send_q: u32,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's; unspecified for a listener.
    pub remote: SocketAddr,
    /// The service in the configuration; none if it went with a reload.
    pub service: Option<String>,
    /// Which worker has it.
    pub worker: usize,
    /// What a connection beyond its handshake has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<SocketInfo>,
}

/// What a connection beyond its handshake has, by the names of `ss -ti`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SocketInfo {
    /// The congestion control.
    pub congestion: String,
    /// Congestion window, in bytes.
    pub cwnd_bytes: u32,
    /// Slow-start threshold, in bytes; none until there was a loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssthresh_bytes: Option<u32>,
    /// Smoothed round-trip time, in microseconds.
    pub rtt_us: u32,
    /// Its variation, in microseconds.
    pub rttvar_us: u32,
    /// The least of late, in microseconds.
    pub minrtt_us: u32,
    /// Retransmission timeout, in microseconds, backed off.
    pub rto_us: u32,
    /// Timeouts since something new was acknowledged.
    pub backoff: u8,
    /// Bytes sent and not acknowledged.
    pub unacked_bytes: u32,
    /// Bytes not sent yet.
    pub notsent_bytes: u32,
    /// Bytes taken for lost and not sent again yet.
    pub lost_bytes: u32,
    /// Bytes that the peer has behind a hole.
    pub sacked_bytes: u32,
    /// Payload of a full segment, in bytes.
    pub mss: u16,
    /// Longest IP packet of the path, in bytes.
    pub pmtu: u16,
    /// What the peer takes, in bytes.
    pub snd_wnd: u32,
    /// What we take, in bytes.
    pub rcv_wnd: u32,
    /// Window scales, the peer's and ours; none if not agreed upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wscale: Option<(u8, u8)>,
    /// Both sides have timestamps.
    pub ts: bool,
    /// Both sides have selective acknowledgements.
    pub sack: bool,
    /// Both sides have ECN.
    pub ecn: bool,
}

impl From<TcpDetail> for SocketInfo {
    fn from(detail: TcpDetail) -> Self {
        let TcpDetail {
            congestion,
            cwnd_bytes,
            ssthresh_bytes,
            rtt_us,
            rttvar_us,
            minrtt_us,
            rto_us,
            backoff,
            unacked_bytes,
            notsent_bytes,
            lost_bytes,
            sacked_bytes,
            mss,
            pmtu,
            snd_wnd,
            rcv_wnd,
            wscale,
            ts,
            sack,
            ecn,
        } = detail;
        Self {
            congestion: congestion.into(),
            cwnd_bytes,
            ssthresh_bytes: (ssthresh_bytes != u32::MAX).then_some(ssthresh_bytes),
            rtt_us,
            rttvar_us,
            minrtt_us,
            rto_us,
            backoff,
            unacked_bytes,
            notsent_bytes,
            lost_bytes,
            sacked_bytes,
            mss,
            pmtu,
            snd_wnd,
            rcv_wnd,
            wscale,
            ts,
            sack,
            ecn,
        }
    }
}

/// As `ss -ti` writes it: times in milliseconds, windows in segments.
impl fmt::Display for SocketInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            congestion,
            cwnd_bytes,
            ssthresh_bytes,
            rtt_us,
            rttvar_us,
            minrtt_us,
            rto_us,
            backoff,
            unacked_bytes,
            notsent_bytes,
            lost_bytes,
            sacked_bytes,
            mss,
            pmtu,
            snd_wnd,
            rcv_wnd,
            wscale,
            ts,
            sack,
            ecn,
        } = self;
        for (word, is_on) in [("ts", ts), ("sack", sack), ("ecn", ecn)] {
            if *is_on {
                write!(f, "{word} ")?;
            }
        }
        write!(f, "{congestion}")?;
        if let Some((theirs, ours)) = wscale {
            write!(f, " wscale:{theirs},{ours}")?;
        }
        let ms = |us: u32| f64::from(us) / 1000.0;
        let mss = u32::from(*mss).max(1);
        write!(f, " rto:{}", ms(*rto_us))?;
        if *backoff > 0 {
            write!(f, " backoff:{backoff}")?;
        }
        write!(f, " rtt:{}/{}", ms(*rtt_us), ms(*rttvar_us))?;
        write!(f, " mss:{mss} pmtu:{pmtu} cwnd:{}", cwnd_bytes / mss)?;
        if let Some(ssthresh) = ssthresh_bytes {
            write!(f, " ssthresh:{}", ssthresh / mss)?;
        }
        for (word, bytes) in [
            ("unacked_bytes", unacked_bytes),
            ("lost_bytes", lost_bytes),
            ("sacked_bytes", sacked_bytes),
            ("notsent", notsent_bytes),
        ] {
            if *bytes > 0 {
                write!(f, " {word}:{bytes}")?;
            }
        }
        write!(f, " snd_wnd:{snd_wnd} rcv_wnd:{rcv_wnd}")?;
        write!(f, " minrtt:{}", ms(*minrtt_us))
    }
}

/// Listeners and connections of all workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SocketsReport {
    /// As many as were asked for, worker by worker.
    pub sockets: Vec<SocketRow>,
    /// How many more match.
    pub left_off: u64,
    /// How many there are in each state, asked for or not.
    pub by_state: BTreeMap<String, u64>,
    /// How many rows were asked for.
    limit: u32,
}

impl SocketsReport {
    /// An answer without rows yet.
    #[must_use]
    pub fn new(query: SocketQuery) -> Self {
        Self {
            sockets: Vec::new(),
            left_off: 0,
            by_state: BTreeMap::new(),
            limit: query.limit.min(SOCKETS_MAX),
        }
    }

    /// Adds what a worker has listed; `service` finds the name of a row's service.
    pub fn add(&mut self, listed: Listed, service: impl Fn(&SocketRow) -> Option<String>) {
        let Listed {
            worker,
            rows,
            matched,
            by_state,
        } = listed;
        for (state, count) in STATES.iter().zip(by_state).filter(|(_, count)| *count > 0) {
            *self.by_state.entry((*state).to_owned()).or_default() += count;
        }
        let room = (self.limit as usize).saturating_sub(self.sockets.len());
        let shown = rows.len().min(room);
        self.left_off += matched.saturating_sub(shown as u64);
        for info in rows.into_iter().take(shown) {
            let mut row = SocketRow {
                state: info.state.into(),
                recv_q: info.recv_q,
                send_q: info.send_q,
                local: info.local,
                remote: info.remote,
                service: None,
                worker,
                info: info.detail.map(SocketInfo::from),
            };
            row.service = service(&row);
            self.sockets.push(row);
        }
    }
}

/// As `ss -ti` prints it.
impl fmt::Display for SocketsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sockets,
            left_off,
            by_state,
            limit: _,
        } = self;
        let ends: Vec<_> = sockets
            .iter()
            .map(|row| (row.local.to_string(), remote(row)))
            .collect();
        let width = |least: &str, end: fn(&(String, String)) -> &String| {
            let longest = ends.iter().map(|ends| end(ends).len()).max();
            longest.unwrap_or(0).max(least.len())
        };
        let (local, peer) = ("Local Address:Port", "Peer Address:Port");
        let widths = (width(local, |ends| &ends.0), width(peer, |ends| &ends.1));
        writeln!(
            f,
            "{:<10} {:>8} {:>8} {local:<w0$} {peer:<w1$} Worker Service",
            "State",
            "Recv-Q",
            "Send-Q",
            w0 = widths.0,
            w1 = widths.1,
        )?;
        for (row, (local, peer)) in sockets.iter().zip(&ends) {
            writeln!(
                f,
                "{:<10} {:>8} {:>8} {local:<w0$} {peer:<w1$} {:<6} {}",
                row.state,
                row.recv_q,
                row.send_q,
                row.worker,
                row.service.as_deref().unwrap_or("-"),
                w0 = widths.0,
                w1 = widths.1,
            )?;
            if let Some(info) = &row.info {
                writeln!(f, "           {info}")?;
            }
        }
        let states: Vec<String> = by_state
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        if !states.is_empty() {
            writeln!(f, "in all: {}", states.join(", "))?;
        }
        if *left_off > 0 {
            let more = plural(usize::try_from(*left_off).unwrap_or(usize::MAX), "socket");
            writeln!(f, "{more} left off: --limit shows more, --state fewer")?;
        }
        Ok(())
    }
}

/// A listener has no peer: `0.0.0.0:*`.
fn remote(row: &SocketRow) -> String {
    let text = row.remote.to_string();
    match text.strip_suffix(":0") {
        Some(any) if row.remote.port() == 0 => format!("{any}:*"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::StateFilter;

    fn info(state: &'static str, port: u16) -> TcpInfo {
        TcpInfo {
            state,
            local: SocketAddr::from(([192, 0, 2, 1], 7)),
            remote: SocketAddr::from(([198, 51, 100, 1], port)),
            recv_q: 1,
            send_q: 2,
            detail: None,
        }
    }

    /// What two workers with three and four connections answer.
    fn report(query: SocketQuery) -> SocketsReport {
        let mut report = SocketsReport::new(query);
        for (worker, states) in [
            (0, ["ESTAB", "ESTAB", "TIME-WAIT"].as_slice()),
            (1, &["ESTAB", "LISTEN", "ESTAB", "ESTAB"]),
        ] {
            let (mut listing, _) = Listing::new(worker, query);
            for (port, state) in (1000..).zip(states) {
                listing.listed.take(&query, &info(state, port));
            }
            report.add(listing.listed, |row| {
                (row.state != "TIME-WAIT").then(|| "echo".into())
            });
        }
        report
    }

    #[test]
    fn answers_are_bounded_and_say_what_is_left_off() {
        let all = report(SocketQuery {
            state: None,
            limit: 100,
        });
        assert_eq!((all.sockets.len(), all.left_off), (7, 0));
        assert_eq!(all.by_state["ESTAB"], 5);
        let some = report(SocketQuery {
            state: None,
            limit: 4,
        });
        assert_eq!((some.sockets.len(), some.left_off), (4, 3));
        let of_a_state = report(SocketQuery {
            state: Some(StateFilter::Established),
            limit: 3,
        });
        assert_eq!((of_a_state.sockets.len(), of_a_state.left_off), (3, 2));
        assert!(of_a_state.sockets.iter().all(|row| row.state == "ESTAB"));
        assert_eq!(of_a_state.by_state["TIME-WAIT"], 1, "counted all the same");
        let text = of_a_state.to_string();
        assert!(text.contains("2 sockets left off"), "{text}");
    }

    #[test]
    fn rows_stand_in_columns() {
        let query = SocketQuery {
            state: Some(StateFilter::TimeWait),
            limit: 9,
        };
        let text = report(query).to_string();
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some(
                "State        Recv-Q   Send-Q Local Address:Port Peer Address:Port Worker Service"
            )
        );
        assert_eq!(
            lines.next(),
            Some("TIME-WAIT         1        2 192.0.2.1:7        198.51.100.1:1002 0      -")
        );
    }

    #[test]
    fn every_filter_is_a_state_that_is_counted() {
        use clap::ValueEnum;
        let filters = StateFilter::value_variants();
        assert_eq!(filters.len(), STATES.len());
        for filter in filters {
            assert!(STATES.contains(&filter.printed()));
        }
    }
}
