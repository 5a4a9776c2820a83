//! What the peer is ready to take, and whether a segment is worth sending into it.
//!
//! ```text
//!         SND.UNA            SND.NXT              edge = SND.UNA + SND.WND
//!  ──────────┼──────────────────┼──────────────────────┼──────────────► sequence numbers
//!   acked    │    in flight     │   usable window, U   │  not allowed
//!            │                  ├───── D, queued ──────────────┤
//! ```
//!
//! The right edge is kept and not SND.WND, which is relative to SND.UNA: an ACK that was overtaken
//! by a later one moves SND.UNA but not the window, and the peer's promise is the edge.

use super::WINDOW_SCALE_MAX;
use crate::tcp::seq::SeqNum;
use crate::time::Duration;

/// RFC 9293 §3.8.6.2.1: how long a segment that is too small for the window to be worth it may
/// wait while nothing is in flight whose ACK would change the matter. The RFC's range is 0.1 to
/// 1 s; less sends silly segments, more stalls a peer with a tiny buffer.
pub const OVERRIDE_TIMEOUT: Duration = Duration::from_millis(200);

/// The peer's window: SND.WND, SND.WL1, SND.WL2 (RFC 9293 §3.3.1).
// Packed: nothing of a connection, of which there are very many, is padding.
#[derive(Clone, Debug)]
#[repr(Rust, packed)]
pub struct SendWindow {
    /// The first sequence number the peer does not want.
    edge: SeqNum,
    /// The largest window it ever had, in bytes: how big its buffer probably is.
    max: u32,
    /// SND.WL1: sequence number of the segment the window came with.
    wl1: SeqNum,
    /// SND.WL2: acknowledgment number of that segment.
    wl2: SeqNum,
    /// End of the last segment that was sent less than full.
    small_end: SeqNum,
    /// Snd.Wind.Shift (RFC 7323 §2.2).
    scale: u8,
}

/// What a segment's window field did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowUpdate {
    /// Nothing: a newer segment has told the window already.
    Stale,
    /// The window is as large as before (a duplicate ACK has this, RFC 5681 §2).
    Same,
    /// The window has another size.
    Changed,
    /// The right edge moved left: the peer took back what it had promised.
    Shrunk,
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Unsent {
    /// D: bytes queued and not yet sent.
    pub queued: u32,
    /// SND.UNA.
    pub una: SeqNum,
    /// SND.NXT.
    pub nxt: SeqNum,
    /// Eff.snd.MSS: bytes of data in a full segment (RFC 9293 §3.7.1).
    pub mss: u16,
    /// Whether the Nagle algorithm is on. An application may turn it off (MUST-17).
    pub nagle: bool,
    /// Whether the application has announced more (`MSG_MORE`), so that the data queued is not
    /// pushed.
    pub more: bool,
    /// Whether a FIN follows these bytes: nothing will be added to them.
    pub last: bool,
    /// Whether [`Persist`](super::Persist) says that waiting has taken long enough.
    pub overridden: bool,
}

/// Whether a segment of new data may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A segment with this many bytes, 1 to MSS.
    Send(u32),
    /// There is nothing to send.
    Nothing,
    /// The window is closed. With nothing in flight the persist timer is to run (MUST-36).
    Closed,
    /// The window is too small for a segment worth sending. With nothing in flight the persist
    /// timer is to run, to override this.
    Silly,
    /// Nagle: an ACK is on its way, and there may be more data when it comes.
    Nagle,
    /// The application has announced more.
    More,
}

impl SendWindow {
    /// As the handshake left it. `seq`, `ack`: of the segment that told the window. `window`: in
    /// bytes; in a segment with SYN the field is not scaled (RFC 7323 §2.2). `scale`: the shift
    /// the peer offered, 0 if either end did not; more than 14 counts as 14 (§2.3).
    #[must_use]
    pub const fn new(seq: SeqNum, ack: SeqNum, window: u32, scale: u8) -> Self {
        Self {
            edge: SeqNum::new(ack.get().wrapping_add(window)),
            max: window,
            wl1: seq,
            wl2: ack,
            small_end: ack,
            scale: if scale > WINDOW_SCALE_MAX {
                WINDOW_SCALE_MAX
            } else {
                scale
            },
        }
    }

    /// Takes the window of a segment without SYN whose ACK is acceptable
    /// (SND.UNA =< SEG.ACK =< SND.NXT). `field`: as in the header.
    #[inline(always)]
    pub fn update(&mut self, seq: SeqNum, ack: SeqNum, field: u16) -> WindowUpdate {
        // RFC 9293 §3.10.7.4, fifth, ESTABLISHED: an old segment must not change the window.
        let Self { wl1, wl2, .. } = *self;
        if !(wl1.before(seq) || wl1 == seq && wl2.at_or_before(ack)) {
            return WindowUpdate::Stale;
        }
        // MUST-1: unsigned; REC-1: 32 bits.
        let window = u32::from(field) << self.scale;
        let edge = ack + window;
        let update = if edge.before(self.edge) {
            WindowUpdate::Shrunk
        } else if window == self.edge.offset_from(self.wl2) {
            WindowUpdate::Same
        } else {
            WindowUpdate::Changed
        };
        self.edge = edge;
        self.wl1 = seq;
        self.wl2 = ack;
        self.max = self.max.max(window);
        update
    }

    /// SND.WND: bytes from `una` (SND.UNA) to the right edge.
    #[inline]
    #[must_use]
    pub const fn window(&self, una: SeqNum) -> u32 {
        self.room_from(una)
    }

    /// How many bytes the peer takes from `seq` on. From SND.NXT: the usable window, U; from
    /// further left: what may be retransmitted (SHLD-16). Zero past the edge, where the usable
    /// window is negative because the peer has shrunk it (MUST-34).
    #[inline]
    #[must_use]
    pub const fn room_from(&self, seq: SeqNum) -> u32 {
        if seq.before(self.edge) {
            self.edge.offset_from(seq)
        } else {
            0
        }
    }

    /// The largest window the peer ever had, in bytes.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// Snd.Wind.Shift: 0 to 14.
    #[must_use]
    pub const fn scale(&self) -> u8 {
        self.scale
    }

    /// The next segment of new data, or why there is none (MUST-38; RFC 9293 §3.8.6.2.1).
    #[inline]
    #[must_use]
    pub fn next_segment(&self, unsent: &Unsent) -> Verdict {
        let usable = self.room_from(unsent.nxt);
        let mss = u32::from(unsent.mss);
        let len = unsent.queued.min(usable);
        // (1) A full segment always goes (SHLD-28).
        if len >= mss && mss > 0 {
            return Verdict::Send(mss);
        }
        if unsent.queued == 0 && !(unsent.last && usable == 0) {
            return Verdict::Nothing;
        }
        // A FIN has a sequence number too: it waits for the window, and is what probes it.
        if usable == 0 {
            // SHLD-15: nothing new while the window is closed, or shrunk past SND.NXT.
            return Verdict::Closed;
        }
        self.small_segment(unsent, len)
    }

    /// Whether a segment of `len` bytes, less than full, may go.
    fn small_segment(&self, unsent: &Unsent, len: u32) -> Verdict {
        // (4) It has waited long enough.
        if unsent.overridden {
            return Verdict::Send(len);
        }
        let fits = len == unsent.queued;
        // The bracketed condition of (2) and (3) is Nagle's (SHLD-7), relaxed as by Minshall
        // (RFC 9293 §A.3): full segments in flight do not hold back a small one, another small one
        // does. What ends with a FIN cannot become larger by waiting.
        if unsent.nagle && !(unsent.last && fits) && self.small_in_flight(unsent) {
            return Verdict::Nagle;
        }
        // (2) All there is, and it was pushed.
        if fits && !unsent.more {
            return Verdict::Send(len);
        }
        // (3) At least half of what the peer's buffer probably is.
        if u64::from(len) * 2 >= u64::from(self.max) {
            return Verdict::Send(len);
        }
        if fits { Verdict::More } else { Verdict::Silly }
    }

    /// Whether a segment that was less than full is not acknowledged yet.
    fn small_in_flight(&self, unsent: &Unsent) -> bool {
        // The second comparison tells an old mark from a new one once sequence numbers wrapped.
        self.small_end.after(unsent.una) && self.small_end.at_or_before(unsent.nxt)
    }

    /// A segment of new data went: `end` is the sequence number after it, `len` its data in bytes.
    #[inline]
    pub fn on_sent(&mut self, end: SeqNum, len: u32, mss: u16) {
        if len < u32::from(mss) {
            self.small_end = end;
        }
    }
}

const _: () = assert!(size_of::<SendWindow>() <= 24);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNA: SeqNum = SeqNum::new(u32::MAX - 500);
    const PEER: SeqNum = SeqNum::new(u32::MAX - 3);

    fn window(bytes: u32) -> SendWindow {
        SendWindow::new(PEER, UNA, bytes, 0)
    }

    fn unsent(queued: u32, in_flight: u32) -> Unsent {
        Unsent {
            queued,
            una: UNA,
            nxt: UNA + in_flight,
            mss: 1000,
            nagle: true,
            more: false,
            last: false,
            overridden: false,
        }
    }

    /// MUST-1: a window with its highest bit set is large, not negative. REC-1: 32 bits.
    #[test]
    fn must_1_windows_are_unsigned() {
        let mut w = window(0);
        w.update(PEER + 1, UNA, u16::MAX);
        assert_eq!(w.window(UNA), 65_535);
        let mut w = SendWindow::new(PEER, UNA, 0, 14);
        w.update(PEER + 1, UNA, u16::MAX);
        assert_eq!(w.window(UNA), super::super::WINDOW_MAX);
        assert_eq!(w.next_segment(&unsent(5000, 0)), Verdict::Send(1000));
    }

    /// RFC 9293 §3.4: a FIN occupies sequence space. Alone before a closed window it is to be probed
    /// with, or the connection would wait for ever.
    #[test]
    fn a_fin_alone_waits_for_the_window() {
        let fin = Unsent {
            last: true,
            ..unsent(0, 0)
        };
        assert_eq!(window(0).next_segment(&fin), Verdict::Closed);
        assert_eq!(window(1).next_segment(&fin), Verdict::Nothing);
        assert_eq!(window(0).next_segment(&unsent(0, 0)), Verdict::Nothing);
    }

    /// RFC 7323 §2.3: a shift above 14 is used as 14; §2.2: the SYN's window is not shifted.
    #[test]
    fn the_scale_is_at_most_14_and_not_for_the_syn() {
        let mut w = SendWindow::new(PEER, UNA, 1000, 200);
        assert_eq!((w.window(UNA), w.scale()), (1000, 14));
        w.update(PEER + 1, UNA, 1);
        assert_eq!(w.window(UNA), 1 << 14);
    }

    /// RFC 9293 §3.10.7.4: SND.WL1 and SND.WL2 keep old segments from changing the window.
    #[test]
    fn old_segments_do_not_change_the_window() {
        let mut w = window(1000);
        assert_eq!(w.update(PEER + 10, UNA + 100, 2000), WindowUpdate::Changed);
        // Older data, and older ACKs of the same data.
        assert_eq!(w.update(PEER + 9, UNA + 200, 9000), WindowUpdate::Stale);
        assert_eq!(w.update(PEER + 10, UNA + 99, 9000), WindowUpdate::Stale);
        assert_eq!(w.window(UNA + 100), 2000);
        // The same again, and the same data with a newer ACK.
        assert_eq!(w.update(PEER + 10, UNA + 100, 2000), WindowUpdate::Same);
        assert_eq!(w.update(PEER + 10, UNA + 150, 2000), WindowUpdate::Same);
        assert_eq!(w.update(PEER + 11, UNA + 150, 1990), WindowUpdate::Shrunk);
    }

    /// An overtaken segment moves SND.UNA; what the peer allows stays where it was.
    #[test]
    fn the_edge_stays_where_the_peer_put_it() {
        let mut w = window(1000);
        assert_eq!(w.update(PEER - 1, UNA + 400, 1000), WindowUpdate::Stale);
        assert_eq!(w.window(UNA + 400), 600);
    }

    /// MUST-34, SHLD-15, SHLD-16: a window that shrinks below what is in flight makes the usable
    /// window negative: nothing new goes, and what is within the window may be retransmitted.
    #[test]
    fn must_34_a_shrunk_window_sends_nothing_new() {
        let mut w = window(4000);
        assert_eq!(w.update(PEER + 1, UNA, 1500), WindowUpdate::Shrunk);
        assert_eq!(w.room_from(UNA + 3000), 0);
        assert_eq!(w.next_segment(&unsent(500, 3000)), Verdict::Closed);
        assert_eq!(w.room_from(UNA), 1500);
        assert_eq!(w.room_from(UNA + 1000), 500);
        assert_eq!(w.room_from(UNA + 1500), 0);
    }

    /// MUST-35, MUST-36: a closed window is reported as such, for the persist timer.
    #[test]
    fn must_36_a_closed_window_is_told_from_a_small_one() {
        let mut w = window(4000);
        w.update(PEER + 1, UNA, 0);
        assert_eq!(w.next_segment(&unsent(500, 0)), Verdict::Closed);
        assert_eq!(w.next_segment(&unsent(0, 0)), Verdict::Nothing);
        w.update(PEER + 2, UNA, 300);
        assert_eq!(w.next_segment(&unsent(500, 0)), Verdict::Silly);
    }

    /// MUST-38: the four cases of RFC 9293 §3.8.6.2.1.
    #[test]
    fn must_38_silly_segments_are_not_sent() {
        let w = window(4000);
        // (1) A full segment, also with data in flight.
        assert_eq!(w.next_segment(&unsent(5000, 0)), Verdict::Send(1000));
        assert_eq!(w.next_segment(&unsent(5000, 3000)), Verdict::Send(1000));
        assert_eq!(w.next_segment(&unsent(1000, 3000)), Verdict::Send(1000));
        // 500 left of 4000: less than a segment and than half of the largest window.
        assert_eq!(w.next_segment(&unsent(5000, 3500)), Verdict::Silly);
        // (2) All that is queued fits.
        assert_eq!(w.next_segment(&unsent(500, 3500)), Verdict::Send(500));
        assert_eq!(w.next_segment(&unsent(1, 0)), Verdict::Send(1));
        // (3) Half of the largest window, although it is no full segment.
        let tiny = window(600);
        assert_eq!(tiny.next_segment(&unsent(5000, 0)), Verdict::Send(600));
        assert_eq!(tiny.next_segment(&unsent(5000, 300)), Verdict::Send(300));
        assert_eq!(tiny.next_segment(&unsent(5000, 301)), Verdict::Silly);
        // (4) The override timeout.
        let mut waited = unsent(5000, 3500);
        waited.overridden = true;
        assert_eq!(w.next_segment(&waited), Verdict::Send(500));
        // But never more than the window.
        let mut waited = unsent(5000, 4000);
        waited.overridden = true;
        assert_eq!(w.next_segment(&waited), Verdict::Closed);
    }

    /// SHLD-7 (Nagle, with Minshall's change) and MUST-17 (it can be turned off).
    #[test]
    fn must_17_nagle_holds_small_segments_back_unless_turned_off() {
        let mut w = window(60_000);
        // A full segment in flight does not hold the rest of a write back.
        w.on_sent(UNA + 1000, 1000, 1000);
        assert_eq!(w.next_segment(&unsent(10, 1000)), Verdict::Send(10));
        w.on_sent(UNA + 1010, 10, 1000);
        // A small one does, until it is acknowledged.
        assert_eq!(w.next_segment(&unsent(10, 1010)), Verdict::Nagle);
        let mut acked = unsent(10, 1010);
        acked.una = UNA + 1010;
        assert_eq!(w.next_segment(&acked), Verdict::Send(10));
        // Not a full one.
        assert_eq!(w.next_segment(&unsent(1000, 1010)), Verdict::Send(1000));
        // TCP_NODELAY.
        let mut off = unsent(10, 1010);
        off.nagle = false;
        assert_eq!(w.next_segment(&off), Verdict::Send(10));
        // A FIN behind it.
        let mut last = unsent(10, 1010);
        last.last = true;
        assert_eq!(w.next_segment(&last), Verdict::Send(10));
    }

    /// Once everything wrapped, an old mark of a small segment does not hold back new ones.
    #[test]
    fn an_old_small_segment_is_forgotten() {
        let mut w = window(60_000);
        w.on_sent(UNA + 10, 10, 1000);
        let mut later = unsent(10, 0);
        later.una = UNA + (1 << 31) + 20;
        later.nxt = later.una + 1000;
        let mut w2 = w.clone();
        w2.edge = later.una + 60_000;
        assert_eq!(w2.next_segment(&later), Verdict::Send(10));
    }

    /// `MSG_MORE`: less than a segment waits.
    #[test]
    fn what_is_not_pushed_waits() {
        let w = window(60_000);
        let mut more = unsent(10, 0);
        more.more = true;
        assert_eq!(w.next_segment(&more), Verdict::More);
        more.overridden = true;
        assert_eq!(w.next_segment(&more), Verdict::Send(10));
    }

    proptest! {
        /// Whatever is asked: never more than queued, than the usable window, than a segment; and
        /// with nothing in flight and everything fitting, never a wait.
        #[test]
        fn verdicts_stay_within_the_window(
            una: u32, size in 0_u32..200_000, in_flight in 0_u32..200_000, queued in 0_u32..200_000,
            small in 0_u32..200_000, mss in 1_u16..9000, nagle: bool, overridden: bool, last: bool,
        ) {
            let una = SeqNum::new(una);
            let mut w = SendWindow::new(PEER, una, size, 0);
            w.on_sent(una + small, 1, mss);
            let ask = Unsent {
                queued, una, nxt: una + in_flight, mss, nagle, more: false, last, overridden,
            };
            let usable = size.saturating_sub(in_flight);
            match w.next_segment(&ask) {
                Verdict::Send(len) => {
                    prop_assert!(len > 0 && len <= queued && len <= usable);
                    prop_assert!(len <= u32::from(mss));
                }
                Verdict::Nothing => prop_assert_eq!(queued, 0),
                Verdict::Closed => prop_assert_eq!(usable, 0),
                Verdict::Silly => prop_assert!(queued > usable && usable < u32::from(mss)),
                Verdict::Nagle => prop_assert!(nagle && small > 0 && small <= in_flight),
                Verdict::More => prop_assert!(false, "nothing more was announced"),
            }
            if in_flight == 0 && queued > 0 && queued <= size {
                prop_assert!(matches!(w.next_segment(&ask), Verdict::Send(_)));
            }
        }
    }
}
