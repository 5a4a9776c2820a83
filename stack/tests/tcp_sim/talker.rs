//! What runs on the hosts: both ends of conversations whose content is known beforehand.

use stack::Stack;
use stack::heap::HeapPool;
use stack::sim::Application;
use stack::tcp::connection::Misuse;
use stack::tcp::listener::CongestionKind;
use stack::tcp::manage::State;
use stack::tcp::manage::states::CloseReason;
use stack::tcp::{TcpId, TcpListenerId};
use stack::time::{Duration, Instant};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

/// Byte `index` of a stream: any mistake of place shows.
pub fn byte(stream: u64, index: u64) -> u8 {
    let mixed = (index ^ stream << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8 ^ (index >> 8) as u8
}

/// When an end closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its direction, as soon as all is written: the other direction goes on.
    AtOnce,
    /// When the peer has.
    AfterPeer,
    /// It aborts once so many bytes are written.
    Abort(u64),
}

/// How one end behaves.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Bytes it writes in all.
    pub total: u64,
    /// Bytes of one write, at most.
    pub write_at_most: usize,
    /// Bytes it reads each time it looks, at most.
    pub read_at_most: usize,
    /// It stops reading once so many bytes are read, for so long.
    pub stall: Option<(u64, Duration)>,
    pub end: End,
}

/// A conversation: who behaves how.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub number: u64,
    pub client: Behaviour,
    pub server: Behaviour,
}

/// The plans under way, by the client's end.
pub type Plans = Rc<RefCell<BTreeMap<SocketAddr, Plan>>>;

/// A connection to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub at: Instant,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub congestion: CongestionKind,
    pub nodelay: bool,
    pub plan: Plan,
}

/// Which end of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// One end of one conversation.
#[derive(Debug)]
pub struct Talker {
    id: TcpId,
    plan: Plan,
    side: Side,
    pub written: u64,
    pub read: u64,
    shut: bool,
    stalled_until: Option<Instant>,
    /// It has something to do, whatever the stack has to tell.
    wake: Option<Instant>,
    over: bool,
}

/// An application of a host.
pub struct Talkers {
    pub listener: Option<TcpListenerId>,
    pub plans: Plans,
    pub calls: Vec<Call>,
    pub talkers: Vec<Talker>,
    /// It does nothing in this time.
    pub pause: Option<(Instant, Instant)>,
    /// Conversations that are over.
    pub finished: usize,
    /// Of these, the ones that the peer aborted.
    pub aborted: usize,
    /// Bytes read, in conversations that are over.
    pub bytes_read: u64,
    /// When the last was over.
    pub last_end: Instant,
}

/// How long a slow reader waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Talkers {
    pub fn new(plans: &Plans) -> Self {
        Self {
            listener: None,
            plans: plans.clone(),
            calls: Vec::new(),
            talkers: Vec::new(),
            pause: None,
            finished: 0,
            aborted: 0,
            bytes_read: 0,
            last_end: Instant::ZERO,
        }
    }

    fn call(&mut self, stack: &mut Stack<HeapPool>, now: Instant) {
        let due = self.calls.extract_if(.., |call| call.at <= now);
        for call in due.collect::<Vec<_>>() {
            let Call {
                local,
                remote,
                congestion,
                nodelay,
                plan,
                ..
            } = call;
            let id = stack
                .tcp_connect(local, remote, congestion, nodelay, now)
                .unwrap_or_else(|error| panic!("{local} to {remote}: {error}"));
            let (local, _) = stack.tcp_ends(id).expect("it was made just now");
            self.plans.borrow_mut().insert(local, plan);
            self.talkers.push(Talker::new(id, plan, Side::Client, now));
        }
    }

    fn accept(&mut self, stack: &mut Stack<HeapPool>, now: Instant) {
        let Some(listener) = self.listener else {
            return;
        };
        while let Some(id) = stack.tcp_accept(listener) {
            let (_, remote) = stack.tcp_ends(id).expect("it was accepted just now");
            let plan = self.plans.borrow().get(&remote).copied();
            let plan = plan.unwrap_or_else(|| panic!("nobody called from {remote}"));
            self.talkers.push(Talker::new(id, plan, Side::Server, now));
        }
    }
}

impl Application for Talkers {
    /// Only what there is news of is looked at: an application that relies on them must not wait for
    /// ever.
    fn poll(
        &mut self,
        stack: &mut Stack<HeapPool>,
        _: &mut HeapPool,
        now: Instant,
    ) -> Option<Instant> {
        if let Some((from, until)) = self.pause
            && (from..until).contains(&now)
        {
            return Some(until);
        }
        self.call(stack, now);
        self.accept(stack, now);
        while let Some(id) = stack.tcp_next_ready() {
            if let Some(talker) = self.talkers.iter_mut().find(|talker| talker.id == id) {
                talker.wake = Some(now);
            }
        }
        let mut ended = 0;
        for talker in &mut self.talkers {
            if talker.wake.is_some_and(|at| at <= now) {
                talker.wake = None;
                let aborted = talker.work(stack, now);
                if talker.over {
                    ended += 1;
                    self.aborted += usize::from(aborted);
                    self.bytes_read += talker.read;
                }
            }
        }
        if ended > 0 {
            self.finished += ended;
            self.last_end = now;
            self.talkers.retain(|talker| !talker.over);
        }
        let wakes = self.talkers.iter().filter_map(|talker| talker.wake);
        let calls = self.calls.iter().map(|call| call.at);
        let pause = self.pause.map(|(from, _)| from).filter(|from| *from > now);
        wakes.chain(calls).chain(pause).min()
    }
}

impl Talker {
    fn new(id: TcpId, plan: Plan, side: Side, now: Instant) -> Self {
        Self {
            id,
            plan,
            side,
            written: 0,
            read: 0,
            shut: false,
            stalled_until: None,
            wake: Some(now),
            over: false,
        }
    }

    pub fn id(&self) -> TcpId {
        self.id
    }

    fn ends(&self) -> (Behaviour, Behaviour) {
        match self.side {
            Side::Client => (self.plan.client, self.plan.server),
            Side::Server => (self.plan.server, self.plan.client),
        }
    }

    /// The streams of one conversation: what the client writes, what the server writes.
    fn streams(&self) -> (u64, u64) {
        let up = self.plan.number * 2;
        match self.side {
            Side::Client => (up, up + 1),
            Side::Server => (up + 1, up),
        }
    }

    /// Does what can be done now. Returns whether the peer has aborted.
    fn work(&mut self, stack: &mut Stack<HeapPool>, now: Instant) -> bool {
        let (mine, theirs) = self.ends();
        self.receive(stack, now, &mine);
        if let Some(State::Closed(closed)) = stack.tcp_state(self.id)
            && closed.reason != CloseReason::Finished
        {
            self.broke(stack, now, &theirs, closed.reason);
            return true;
        }
        if self.send(stack, now, &mine, &theirs) {
            return true;
        }
        if let End::Abort(at) = mine.end
            && self.written >= at.min(mine.total)
        {
            stack.tcp_abort(self.id, now);
            self.over = true;
            return false;
        }
        let open = stack.tcp_state(self.id).is_some_and(State::is_synchronized);
        let at_end = stack.tcp_is_at_end(self.id);
        let may_close = mine.end == End::AtOnce || at_end;
        if self.written == mine.total && open && may_close && !self.shut {
            stack.tcp_shutdown(self.id, now).expect("it was open");
            self.shut = true;
        }
        if at_end && self.shut {
            if !matches!(theirs.end, End::Abort(_)) {
                assert_eq!(self.read, theirs.total, "the peer closed early: {self:?}");
            }
            stack.tcp_close(self.id, now);
            self.over = true;
        }
        false
    }

    fn broke(
        &mut self,
        stack: &mut Stack<HeapPool>,
        now: Instant,
        theirs: &Behaviour,
        reason: CloseReason,
    ) {
        let aborts = matches!(theirs.end, End::Abort(_));
        assert!(aborts, "it broke: {reason:?}: {self:?}");
        stack.tcp_close(self.id, now);
        self.over = true;
    }

    fn receive(&mut self, stack: &mut Stack<HeapPool>, now: Instant, mine: &Behaviour) {
        if let Some((at, long)) = mine.stall
            && self.read >= at
        {
            let until = *self.stalled_until.get_or_insert(now + long);
            if now < until {
                self.wake = Some(until);
                return;
            }
        }
        let (_, stream) = self.streams();
        let mut room = mine.read_at_most;
        // Up to the place where it stalls, and not a byte further.
        if let Some((at, _)) = mine.stall
            && self.read < at
        {
            room = room.min(usize::try_from(at - self.read).expect("short"));
        }
        let (mut read, mut left) = (self.read, room);
        let taken = stack.tcp_receive_with(self.id, now, |bytes| {
            let take = bytes.len().min(left);
            for &got in &bytes[..take] {
                assert_eq!(got, byte(stream, read), "byte {read} of stream {stream}");
                read += 1;
            }
            left -= take;
            take
        });
        if taken.is_ok() {
            self.read = read;
        }
        if left == 0 {
            self.wake = Some(now + LOOK_AGAIN);
        }
    }

    /// Returns whether the peer has aborted.
    fn send(
        &mut self,
        stack: &mut Stack<HeapPool>,
        now: Instant,
        mine: &Behaviour,
        theirs: &Behaviour,
    ) -> bool {
        let (stream, _) = self.streams();
        let total = match mine.end {
            End::Abort(at) => at.min(mine.total),
            _ => mine.total,
        };
        while self.written < total {
            let len = (total - self.written).min(mine.write_at_most as u64);
            let bytes = self.written..self.written + len;
            let bytes: Vec<u8> = bytes.map(|index| byte(stream, index)).collect();
            match stack.tcp_send(self.id, now, &bytes) {
                Ok(sent) => self.written += sent as u64,
                Err(Misuse::WouldBlock) => break,
                Err(Misuse::Ended(reason)) => {
                    self.broke(stack, now, theirs, reason);
                    return true;
                }
                Err(error) => panic!("{error:?}: {self:?}"),
            }
        }
        false
    }
}
