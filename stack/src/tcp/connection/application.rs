//! What the application does with a connection: reads, writes, closes, aborts.

use super::super::config::TcpConfig;
use super::super::congestion::CongestionControl;
use super::super::manage::State;
use super::super::manage::states::CloseReason;
use super::super::pools::Pools;
use super::super::seq::SeqNum;
use super::super::socket_options::{IpFields, SocketOption, SocketOptions, SoftError, seconds};
use super::{Connection, Context, Fate};
use crate::ip::address::Ip;
use crate::time::Duration;

/// What the application has to do with the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Application {
    flags: u16,
    ip: IpFields,
    /// [`SocketOption::UserTimeout`] in seconds; 0: that of the stack.
    user_timeout_s: u16,
    soft_error: Option<SoftError>,
}

const _: () = assert!(size_of::<Application>() <= 8);

/// The application has closed its handle: nobody reads any more.
const GONE: u16 = 1;
/// Something happened that the application has not been told of.
const NEWS: u16 = 1 << 1;
/// The application found no room to write: it wants to hear when there is.
const WANTS_ROOM: u16 = 1 << 2;
/// Small segments are not held back.
const NODELAY: u16 = 1 << 3;
/// A keep-alive probe is due.
const PROBE_DUE: u16 = 1 << 4;
/// Silence is probed.
const KEEPALIVE: u16 = 1 << 7;
/// To close is to abort.
const LINGER_ZERO: u16 = 1 << 8;
/// Full-sized segments do not arrive while others might: the path is to be taken for narrower.
const BLACK_HOLE: u16 = 1 << 9;

impl Application {
    pub(super) fn new(options: SocketOptions) -> Self {
        let SocketOptions {
            nodelay,
            keepalive,
            linger_zero,
            ip,
            user_timeout_s,
        } = options;
        let mut it = Self {
            flags: 0,
            ip,
            user_timeout_s,
            soft_error: None,
        };
        it.set(NODELAY, nodelay);
        it.set(KEEPALIVE, keepalive);
        it.set(LINGER_ZERO, linger_zero);
        it
    }

    const fn set(&mut self, flag: u16, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    #[inline]
    pub(super) const fn ip(self) -> IpFields {
        self.ip
    }

    pub(super) const fn has_keepalive(self) -> bool {
        self.flags & KEEPALIVE != 0
    }

    /// R2 of this connection.
    pub(super) fn user_timeout(self, config: &TcpConfig) -> Duration {
        match self.user_timeout_s {
            0 => config.user_timeout,
            seconds => Duration::from_secs(seconds.into()),
        }
    }

    /// RFC 9293 §3.9.1.8 (MUST-47): the application hears that there is something to ask for.
    pub(super) fn on_soft_error(&mut self, error: SoftError) {
        self.soft_error = Some(error);
        self.flags |= NEWS;
    }

    /// What was the last news of an open that failed.
    pub(super) const fn soft_error(self) -> Option<SoftError> {
        self.soft_error
    }

    pub(super) const fn on_black_hole(&mut self) {
        self.flags |= BLACK_HOLE;
    }

    #[inline]
    pub(super) const fn is_gone(self) -> bool {
        self.flags & GONE != 0
    }

    #[inline]
    pub(super) const fn nodelay(self) -> bool {
        self.flags & NODELAY != 0
    }

    /// Something to read, an end, a state.
    #[inline]
    pub(super) fn on_data(&mut self) {
        self.flags |= NEWS;
    }

    /// Something was acknowledged.
    #[inline]
    pub(super) fn on_room(&mut self) {
        if self.flags & WANTS_ROOM != 0 {
            self.flags = self.flags & !WANTS_ROOM | NEWS;
        }
    }

    #[inline]
    pub(super) const fn wants_keepalive(self) -> bool {
        self.flags & PROBE_DUE != 0
    }

    /// Whether the path is to be taken for narrower.
    #[inline]
    pub(super) const fn has_black_hole(self) -> bool {
        self.flags & BLACK_HOLE != 0
    }

    /// Whether there is something the application was not told of.
    #[inline]
    pub(super) const fn has_news(self) -> bool {
        self.flags & NEWS != 0
    }

    pub(super) fn want_keepalive(&mut self) {
        self.flags |= PROBE_DUE;
    }

    pub(super) fn take_keepalive(&mut self) -> bool {
        let wanted = self.flags & PROBE_DUE != 0;
        self.flags &= !PROBE_DUE;
        wanted
    }
}

/// A call that a connection in its state cannot serve. Each says the `errno` of the same call on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// The handle names no connection any more (`EBADF`).
    NoSuchConnection,
    /// Our direction is closed, or the connection is gone (`EPIPE`).
    NotWritable,
    /// No room now: there will be news when there is (`EAGAIN`).
    WouldBlock,
    /// The connection ended, for this reason.
    Ended(CloseReason),
}

impl<I: Ip, C: CongestionControl> Connection<I, C> {
    /// Whether the application is to look at it; once.
    #[inline]
    pub(crate) fn take_news(&mut self) -> bool {
        let news = self.application.flags & NEWS != 0;
        self.application.flags &= !NEWS;
        news
    }

    /// Whether the path is to be taken for narrower than it said; once.
    #[inline]
    pub(crate) const fn take_black_hole(&mut self) -> bool {
        let found = self.application.flags & BLACK_HOLE != 0;
        self.application.flags &= !BLACK_HOLE;
        found
    }

    /// Takes a choice of the application.
    pub fn set_option(&mut self, cx: &Context<'_>, option: SocketOption) {
        match option {
            SocketOption::NoDelay(on) => self.application.set(NODELAY, on),
            SocketOption::LingerZero(on) => self.application.set(LINGER_ZERO, on),
            SocketOption::KeepAlive(on) => {
                self.application.set(KEEPALIVE, on);
                if self.state.is_synchronized() {
                    self.start_keepalive(cx);
                }
            }
            SocketOption::TrafficClass(_) | SocketOption::HopLimit(_) => {
                self.application.ip.set(option);
            }
            SocketOption::UserTimeout(time) => {
                self.application.user_timeout_s = seconds(time);
            }
        }
    }

    /// The last error that did not end the connection; once (`SO_ERROR`).
    #[must_use]
    pub const fn take_error(&mut self) -> Option<SoftError> {
        self.application.soft_error.take()
    }

    /// Whether there is news for an application that still wants any.
    #[inline]
    pub(crate) const fn is_wanted(&self) -> bool {
        self.application.flags & (NEWS | GONE) == NEWS
    }

    /// Whether its application wants room.
    pub(crate) const fn wants_room(&self) -> bool {
        self.application.flags & WANTS_ROOM != 0
    }

    /// There is memory again: news for whoever wants room.
    pub(crate) fn on_memory(&mut self) {
        self.application.on_room();
    }

    /// Bytes that can be read now.
    #[inline]
    #[must_use]
    pub fn readable(&self) -> u32 {
        self.receiver.readable()
    }

    /// Whether the peer has sent all it had, and everything before it was read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.receiver.readable() == 0
            && !self.state.may_receive()
            && !matches!(self.state, State::SynSent(_) | State::SynReceived(_))
    }

    /// Lets `read` look at the bytes that lie together at the front, until there are none or it takes
    /// fewer than there are. Returns how many it took.
    #[inline]
    pub fn receive_with(
        &mut self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&[u8]) -> usize,
    ) -> usize {
        let mut total = 0;
        while self.receiver.readable() > 0 {
            let front = self.receiver.front(&cx.pools.receive);
            let offered = front.len();
            let taken = read(front).min(offered);
            if taken == 0 {
                break;
            }
            #[expect(clippy::cast_possible_truncation, reason = "a chunk is short")]
            let bytes = taken as u32;
            self.receiver.consume(&mut cx.pools.receive, bytes);
            total += taken;
            if taken < offered {
                break;
            }
        }
        if total > 0 && self.state.may_receive() {
            self.on_read(cx, total);
        }
        total
    }

    /// RFC 9293 §3.8.6.2.2: the peer hears of the room once it is worth a segment.
    #[inline]
    fn on_read(&mut self, cx: &mut Context<'_>, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let rtt_us = self.sender.rtt().srtt_us();
        let mss = self.our_mss();
        let limit = cx.config.receive_buffer_max;
        self.receive_window
            .on_consumed(bytes, mss, rtt_us, limit, cx.now);
        if self.receive_window.update_due(&self.space(cx)) {
            self.acks.owe(cx.now);
        }
    }

    /// Bytes that can be written now.
    #[must_use]
    #[inline]
    pub fn writable(&self, cx: &Context<'_>) -> u32 {
        if !self.state.may_send() {
            return 0;
        }
        let limit = cx.config.send_buffer;
        limit.saturating_sub(self.sender.buffered())
    }

    /// Takes bytes to be sent; as many as there is room for. Returns how many.
    ///
    /// # Errors
    /// [`Misuse::NotWritable`], [`Misuse::WouldBlock`] if there is room for none.
    #[inline]
    pub fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<usize, Misuse> {
        if let State::Closed(closed) = self.state {
            return Err(Misuse::Ended(closed.reason));
        }
        if !self.state.may_send() || self.application.is_gone() {
            return Err(Misuse::NotWritable);
        }
        if !self.state.is_synchronized() {
            // RFC 9293 §3.10.2: queued, or refused for now. There will be news.
            return Err(Misuse::WouldBlock);
        }
        let room = self.writable(cx) as usize;
        let offered = bytes.get(..room).unwrap_or(bytes);
        let taken = self.sender.write(&mut cx.pools.send, offered);
        if taken < bytes.len() {
            self.application.flags |= WANTS_ROOM;
        }
        if taken == 0 && !bytes.is_empty() {
            return Err(Misuse::WouldBlock);
        }
        Ok(taken)
    }

    /// Sends back what came, as much as there is room for: each byte is copied once. Returns how many
    /// bytes that was.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn echo(&mut self, cx: &mut Context<'_>) -> Result<usize, Misuse> {
        let mut total = 0;
        while self.receiver.readable() > 0 {
            let room = self.writable(cx) as usize;
            let Pools { send, receive } = &mut *cx.pools;
            let front = self.receiver.front(receive);
            let offered = &front[..front.len().min(room)];
            let taken = self.sender.write(send, offered);
            if taken == 0 {
                self.application.flags |= WANTS_ROOM;
                break;
            }
            total += taken;
            #[expect(clippy::cast_possible_truncation, reason = "a chunk is short")]
            self.receiver.consume(receive, taken as u32);
        }
        if total > 0 && self.state.may_receive() {
            self.on_read(cx, total);
        }
        Ok(total)
    }

    /// Closes our direction: what was written goes out, and a FIN behind it.
    ///
    /// # Errors
    /// [`Misuse::NotWritable`] if it was closed.
    pub fn shutdown(&mut self, cx: &mut Context<'_>) -> Result<Fate, Misuse> {
        let state = self.state.on_close().ok_or(Misuse::NotWritable)?;
        if let State::Closed(closed) = state {
            self.state = state;
            return Ok(Fate::Closed(closed.reason));
        }
        if !matches!(state, State::SynReceived(_)) {
            self.sender.close();
        }
        self.enter(cx, state);
        Ok(Fate::Alive)
    }

    /// The application lets go of it: what was written goes out, nothing is read any more.
    pub fn close(&mut self, cx: &mut Context<'_>) -> Fate {
        self.application.flags |= GONE;
        if let State::Closed(closed) = self.state {
            return Fate::Closed(closed.reason);
        }
        // RFC 9293 §3.6.1 (SHLD-3), RFC 2525 §2.17: data nobody reads is lost, and the peer has to know.
        let lost = self.receiver.readable() > 0;
        if lost || self.application.flags & LINGER_ZERO != 0 {
            return self.abort_with_reset(cx, CloseReason::Aborted);
        }
        match self.shutdown(cx) {
            Ok(fate) => fate,
            // Our direction was closed before.
            Err(_) => {
                if let State::FinWait2(_) = self.state {
                    self.timer.on_orphan_fin_wait_2(cx.config, cx.now);
                }
                Fate::Alive
            }
        }
    }

    /// Ends it at once (RFC 9293 §3.10.5).
    pub fn abort(&mut self, cx: &mut Context<'_>) -> Fate {
        self.application.flags |= GONE;
        if let State::Closed(closed) = self.state {
            return Fate::Closed(closed.reason);
        }
        self.abort_with_reset(cx, CloseReason::Aborted)
    }

    /// Ends it, and the peer is to be told.
    pub(super) fn abort_with_reset(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> Fate {
        // RFC 9293 §3.10.5: in SYN-SENT there is nobody to tell.
        let tell = !matches!(self.state, State::SynSent(_));
        let seq = self.sender.nxt();
        self.end(cx, reason);
        if tell {
            Fate::Reset { reason, seq }
        } else {
            Fate::Closed(reason)
        }
    }

    /// Ends it: what was to be sent is given up, what can be read stays.
    pub(super) fn end(&mut self, cx: &mut Context<'_>, reason: CloseReason) -> Fate {
        self.sender.release(&mut cx.pools.send);
        self.persist.stop();
        self.state = self.state.end(reason);
        self.application.on_data();
        Fate::Closed(reason)
    }

    /// Enters a state, with what has to begin there.
    pub(super) fn enter(&mut self, cx: &mut Context<'_>, state: State) {
        self.state = state;
        if matches!(state, State::FinWait2(_)) && self.application.is_gone() {
            self.timer.on_orphan_fin_wait_2(cx.config, cx.now);
        }
    }

    /// Gives back all memory, before the record goes.
    pub fn clear(&mut self, cx: &mut Context<'_>) {
        self.sender.release(&mut cx.pools.send);
        self.receiver.clear(&mut cx.pools.receive);
    }

    /// Why it ended, if it did.
    #[must_use]
    pub const fn ended(&self) -> Option<CloseReason> {
        match self.state {
            State::Closed(closed) => Some(closed.reason),
            _ => None,
        }
    }

    /// The sequence number of what would be sent next.
    #[must_use]
    pub fn send_next(&self) -> SeqNum {
        self.sender.nxt()
    }
}
