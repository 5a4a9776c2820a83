//! TIME-WAIT (RFC 9293 §3.3.2): what is left of a connection whose both directions were closed, we
//! first: enough to answer a FIN that comes again, and to tell old duplicates from a new connection.

use super::manage::acceptance;
use super::manage::challenge::LastChallenge;
use super::options::{OptionsOut, Timestamps, TsClock};
use super::segment::{Flags, Header, Segment};
use super::seq::SeqNum;
use super::socket_options::IpFields;
use super::table::Answer;
use super::tuple::Tuple;
use crate::ip::address::Ip;
use crate::time::Instant;

/// The memory of a closed connection.
#[derive(Clone, Copy, Debug)]
pub struct TimeWait<I: Ip> {
    /// Whose.
    pub tuple: Tuple<I::Addr>,
    /// SND.NXT, behind our FIN.
    pub send_next: SeqNum,
    /// RCV.NXT, behind the peer's FIN.
    pub receive_next: SeqNum,
    /// Where the peer believes our window ends.
    pub window: u16,
    /// What to write into timestamps, and what the peer wrote last, if the connection had them.
    pub timestamps: Option<TimeWaitTimestamps>,
    /// When it last answered.
    pub last_challenge: LastChallenge,
    /// What the application wanted in IP headers.
    pub ip: IpFields,
}

/// See [`TimeWait::timestamps`].
#[derive(Clone, Copy, Debug)]
pub struct TimeWaitTimestamps {
    /// Our clock.
    pub clock: TsClock,
    /// TS.Recent.
    pub recent: u32,
}

/// What a segment for a connection in TIME-WAIT leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSegment {
    /// Nothing.
    Drop,
    /// An ACK of everything there was.
    Acknowledge,
    /// An ACK, and the time begins anew: the peer's FIN came again (RFC 9293 §3.10.7.4, eighth).
    AcknowledgeAndRestart,
    /// It is a new connection (RFC 9293 §3.6.1 MAY-2, RFC 6191): this record goes, and the SYN is
    /// looked at as if it had never been. Its initial sequence number has to be beyond this one.
    Reopen,
}

impl<I: Ip> TimeWait<I> {
    /// RFC 9293 §3.10.7.4 in TIME-WAIT.
    #[must_use]
    pub fn on_segment(&self, segment: &Segment<'_>) -> OnSegment {
        let flags = segment.flags;
        if flags.contains(Flags::RST) {
            // RFC 1337 §3, fix F1: a RST does not end TIME-WAIT.
            return OnSegment::Drop;
        }
        if flags.contains(Flags::SYN) && !flags.contains(Flags::ACK) && self.is_new(segment) {
            return OnSegment::Reopen;
        }
        let old = match (self.timestamps, segment.timestamps) {
            (Some(ours), Some(theirs)) => {
                acceptance::is_old_duplicate(theirs.value, ours.recent, 0)
            }
            _ => false,
        };
        // The peer's FIN again, whole or in part: its last number is the last we had.
        let again = flags.contains(Flags::FIN) && segment.seq + segment.len() == self.receive_next;
        if again && !old {
            return OnSegment::AcknowledgeAndRestart;
        }
        // An ACK of what we have sent, at the place where the peer is: nothing to say.
        let plain = segment.len() == 0 && segment.seq == self.receive_next;
        if plain && flags.contains(Flags::ACK) && segment.ack.at_or_before(self.send_next) {
            return OnSegment::Drop;
        }
        OnSegment::Acknowledge
    }

    /// RFC 6191 §2: a SYN is of a new connection if its timestamp is later than any of the old one, or,
    /// where there are none, its sequence number is.
    fn is_new(&self, segment: &Segment<'_>) -> bool {
        let later_number = segment.seq.after(self.receive_next);
        match (self.timestamps, segment.timestamps) {
            (Some(ours), Some(theirs)) => {
                let ahead = theirs.value.wrapping_sub(ours.recent).cast_signed();
                ahead > 0 || (ahead == 0 && later_number)
            }
            _ => later_number,
        }
    }

    /// The ACK of everything there was.
    #[must_use]
    pub fn acknowledgement(&self, now: Instant) -> Answer<I> {
        let timestamps = self.timestamps.map(|ours| Timestamps {
            value: ours.clock.value(now),
            echo: ours.recent,
        });
        Answer {
            tuple: self.tuple,
            header: Header {
                source_port: self.tuple.local_port,
                destination_port: self.tuple.remote_port,
                seq: self.send_next,
                ack: self.receive_next,
                flags: Flags::ACK,
                window: self.window,
                urgent: 0,
            },
            options: OptionsOut::timestamps(timestamps),
            ip: self.ip,
        }
    }
}

/// The initial sequence number of a connection whose predecessor has used all numbers up to `used`: what the
/// clock says, unless the predecessor was faster than the clock (RFC 9293 §3.6.1, MAY-2; RFC 6191 §2).
#[must_use]
pub fn isn_beyond(clock: SeqNum, used: SeqNum) -> SeqNum {
    // Farther than a window without scaling, so that nothing old lies in the first one.
    const GAP: u32 = 1 << 17;
    if clock.after(used) { clock } else { used + GAP }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_begins_beyond_the_old_one() {
        let used = SeqNum::new(u32::MAX - 5);
        for clock in [
            0,
            5,
            1 << 30,
            u32::MAX - 4,
            u32::MAX - 5,
            u32::MAX - 6,
            1 << 31,
        ] {
            let isn = isn_beyond(SeqNum::new(clock), used);
            assert!(isn.after(used), "{clock}: {isn:?}");
        }
        let later = used + 1000;
        assert_eq!(isn_beyond(later, used), later, "the clock's, if it will do");
    }
}
