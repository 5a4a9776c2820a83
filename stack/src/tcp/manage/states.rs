//! One struct for each state. What a state cannot do, it has no method for.

use crate::tcp::seq::SeqNum;

/// SYN-SENT: our SYN is under way.
// Packed: without alignment of its own the state fits between other fields of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed)]
pub struct SynSent {
    /// Our initial sequence number, that of the SYN.
    pub iss: SeqNum,
    /// How often the SYN has been sent again.
    pub retransmissions: u8,
}

/// SYN-RECEIVED: both sides sent a SYN at once (RFC 9293 §3.5, figure 7). Passive opens wait in the
/// listener.
// Packed: without alignment of its own the state fits between other fields of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed)]
pub struct SynReceived {
    /// Our initial sequence number, that of the SYN.
    pub iss: SeqNum,
    /// How often the SYN,ACK has been sent again.
    pub retransmissions: u8,
    /// The application closed before the connection was there: the FIN follows the handshake.
    pub close: bool,
}

/// ESTABLISHED: data flows both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Established;

/// FIN-WAIT-1: we have closed our direction; the FIN is not acknowledged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinWait1;

/// FIN-WAIT-2: our FIN is acknowledged; the peer may go on sending for as long as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinWait2;

/// CLOSE-WAIT: the peer has closed its direction; ours is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseWait;

/// CLOSING: both have closed at once, and our FIN is not acknowledged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing;

/// LAST-ACK: both have closed, the peer first, and our FIN is not acknowledged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAck;

/// CLOSED: the connection is gone; what is left is why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
}

/// Why a connection ended. Each says the `errno` Linux gives for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides closed.
    Finished,
    /// The application gave it up.
    Aborted,
    /// The peer reset it (`ECONNRESET`).
    Reset,
    /// Nobody listens there (`ECONNREFUSED`).
    Refused,
    /// The peer did not answer for too long (`ETIMEDOUT`).
    TimedOut,
    /// An ICMP error said while it was being opened that the host cannot be reached
    /// (`EHOSTUNREACH`).
    Unreachable,
}

impl SynSent {
    /// SYN,ACK of ours acknowledged.
    #[must_use]
    pub const fn established(self) -> Established {
        Established
    }

    /// A SYN without an ACK: both open at once.
    #[must_use]
    pub const fn syn(self) -> SynReceived {
        SynReceived {
            iss: self.iss,
            retransmissions: 0,
            close: false,
        }
    }

    /// RFC 9293 §3.10.4: a close before anything was synchronised ends it.
    #[must_use]
    pub const fn close(self) -> Closed {
        Closed {
            reason: CloseReason::Aborted,
        }
    }
}

impl SynReceived {
    /// Our SYN is acknowledged.
    #[must_use]
    pub const fn established(self) -> State {
        if self.close {
            State::FinWait1(FinWait1)
        } else {
            State::Established(Established)
        }
    }

    /// RFC 9293 §3.10.4: the FIN waits until the connection is there.
    #[must_use]
    pub const fn close(self) -> Self {
        Self {
            close: true,
            ..self
        }
    }
}

impl Established {
    /// The application closes its direction.
    #[must_use]
    pub const fn close(self) -> FinWait1 {
        FinWait1
    }

    /// The peer's FIN, in order.
    #[must_use]
    pub const fn fin(self) -> CloseWait {
        CloseWait
    }
}

impl FinWait1 {
    /// The peer's FIN, before it acknowledged ours.
    #[must_use]
    pub const fn fin(self) -> Closing {
        Closing
    }

    /// Our FIN is acknowledged.
    #[must_use]
    pub const fn fin_acknowledged(self) -> FinWait2 {
        FinWait2
    }
}

impl CloseWait {
    /// The application closes its direction as well.
    #[must_use]
    pub const fn close(self) -> LastAck {
        LastAck
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// See [`SynSent`].
    SynSent(SynSent),
    /// See [`SynReceived`].
    SynReceived(SynReceived),
    /// See [`Established`].
    Established(Established),
    /// See [`FinWait1`].
    FinWait1(FinWait1),
    /// See [`FinWait2`].
    FinWait2(FinWait2),
    /// See [`CloseWait`].
    CloseWait(CloseWait),
    /// See [`Closing`].
    Closing(Closing),
    /// See [`LastAck`].
    LastAck(LastAck),
    /// See [`Closed`].
    Closed(Closed),
}

const _: () = assert!(size_of::<State>() <= 12);

/// What the peer's FIN, come in order, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFin {
    /// Go on in this state.
    Enter(State),
    /// Both directions are closed and acknowledged: only the memory of it is left.
    EnterTimeWait,
    /// There was one already (RFC 9293 §3.10.7.4, eighth).
    Ignore,
}

/// What the acknowledgement of our FIN does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFinAcknowledged {
    /// Go on in this state.
    Enter(State),
    /// Both directions are closed: only the memory of it is left.
    EnterTimeWait,
    /// The peer closed first, so the memory is its business.
    Closed(Closed),
    /// No FIN of ours is under way.
    Ignore,
}

impl State {
    /// The application closes its direction; `None` if it had done so, or there is nothing to close.
    #[must_use]
    pub const fn on_close(self) -> Option<Self> {
        match self {
            Self::SynSent(state) => Some(Self::Closed(state.close())),
            Self::SynReceived(state) => Some(Self::SynReceived(state.close())),
            Self::Established(state) => Some(Self::FinWait1(state.close())),
            Self::CloseWait(state) => Some(Self::LastAck(state.close())),
            Self::FinWait1(_)
            | Self::FinWait2(_)
            | Self::Closing(_)
            | Self::LastAck(_)
            | Self::Closed(_) => None,
        }
    }

    /// The peer's FIN came, in order.
    #[must_use]
    pub const fn on_fin(self) -> OnFin {
        match self {
            Self::Established(state) => OnFin::Enter(Self::CloseWait(state.fin())),
            Self::FinWait1(state) => OnFin::Enter(Self::Closing(state.fin())),
            Self::FinWait2(_) => OnFin::EnterTimeWait,
            Self::SynSent(_)
            | Self::SynReceived(_)
            | Self::CloseWait(_)
            | Self::Closing(_)
            | Self::LastAck(_)
            | Self::Closed(_) => OnFin::Ignore,
        }
    }

    /// Our FIN was acknowledged.
    #[must_use]
    pub const fn on_fin_acknowledged(self) -> OnFinAcknowledged {
        match self {
            Self::FinWait1(state) => {
                OnFinAcknowledged::Enter(Self::FinWait2(state.fin_acknowledged()))
            }
            Self::Closing(_) => OnFinAcknowledged::EnterTimeWait,
            Self::LastAck(_) => OnFinAcknowledged::Closed(Closed {
                reason: CloseReason::Finished,
            }),
            Self::SynSent(_)
            | Self::SynReceived(_)
            | Self::Established(_)
            | Self::FinWait2(_)
            | Self::CloseWait(_)
            | Self::Closed(_) => OnFinAcknowledged::Ignore,
        }
    }

    /// It ended.
    #[must_use]
    pub const fn end(self, reason: CloseReason) -> Self {
        match self {
            // What ended stays as it ended.
            Self::Closed(_) => self,
            _ => Self::Closed(Closed { reason }),
        }
    }

    /// Whether both sides know each other's sequence numbers (RFC 9293 §3.3.2).
    #[inline]
    #[must_use]
    pub const fn is_synchronized(self) -> bool {
        !matches!(
            self,
            Self::SynSent(_) | Self::SynReceived(_) | Self::Closed(_)
        )
    }

    /// Whether the peer may still send data (RFC 9293 §3.10.7.4, seventh).
    #[inline]
    #[must_use]
    pub const fn may_receive(self) -> bool {
        matches!(
            self,
            Self::Established(_) | Self::FinWait1(_) | Self::FinWait2(_)
        )
    }

    /// Whether the application may still give data to send.
    #[inline]
    #[must_use]
    pub const fn may_send(self) -> bool {
        matches!(
            self,
            Self::SynSent(_) | Self::SynReceived(_) | Self::Established(_) | Self::CloseWait(_)
        )
    }

    /// As `ss` names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent(_) => "SYN-SENT",
            Self::SynReceived(_) => "SYN-RECV",
            Self::Established(_) => "ESTAB",
            Self::FinWait1(_) => "FIN-WAIT-1",
            Self::FinWait2(_) => "FIN-WAIT-2",
            Self::CloseWait(_) => "CLOSE-WAIT",
            Self::Closing(_) => "CLOSING",
            Self::LastAck(_) => "LAST-ACK",
            Self::Closed(_) => "UNCONN",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISS: SeqNum = SeqNum::new(7);

    #[test]
    fn we_close_first() {
        let state = State::Established(Established).on_close().unwrap();
        assert_eq!(state, State::FinWait1(FinWait1));
        let OnFinAcknowledged::Enter(state) = state.on_fin_acknowledged() else {
            panic!();
        };
        assert_eq!(state, State::FinWait2(FinWait2));
        assert_eq!(state.on_fin(), OnFin::EnterTimeWait);
        assert_eq!(state.on_close(), None);
    }

    #[test]
    fn the_peer_closes_first() {
        let OnFin::Enter(state) = State::Established(Established).on_fin() else {
            panic!();
        };
        assert_eq!(state, State::CloseWait(CloseWait));
        assert!(state.may_send() && !state.may_receive());
        assert_eq!(state.on_fin(), OnFin::Ignore, "MUST: not twice");
        let state = state.on_close().unwrap();
        assert_eq!(state, State::LastAck(LastAck));
        let closed = Closed {
            reason: CloseReason::Finished,
        };
        assert_eq!(
            state.on_fin_acknowledged(),
            OnFinAcknowledged::Closed(closed)
        );
    }

    #[test]
    fn both_close_at_once() {
        let state = State::Established(Established).on_close().unwrap();
        let OnFin::Enter(state) = state.on_fin() else {
            panic!();
        };
        assert_eq!(state, State::Closing(Closing));
        assert_eq!(
            state.on_fin_acknowledged(),
            OnFinAcknowledged::EnterTimeWait
        );
    }

    #[test]
    fn both_open_at_once_and_one_closes_early() {
        let sent = SynSent {
            iss: ISS,
            retransmissions: 2,
        };
        let received = sent.syn();
        assert_eq!({ received.iss }, ISS);
        assert_eq!(received.established(), State::Established(Established));
        let state = State::SynReceived(received).on_close().unwrap();
        let State::SynReceived(received) = state else {
            panic!();
        };
        assert_eq!(received.established(), State::FinWait1(FinWait1));
        assert!(!state.is_synchronized());
    }

    #[test]
    fn what_ended_stays_as_it_ended() {
        let state = State::SynSent(SynSent {
            iss: ISS,
            retransmissions: 0,
        });
        let closed = state.on_close().unwrap();
        assert_eq!(closed.end(CloseReason::Reset), closed);
        assert_eq!(closed.on_fin(), OnFin::Ignore);
        assert!(!closed.may_send() && !closed.may_receive());
    }
}
