//! A simulated host: one stack, the frames it may use, and the application on it.

use crate::frame::{Frame as _, FramePool as _};
use crate::heap::{HeapFrame, HeapPool};
use crate::ip::route::{Route, RouteTable};
use crate::link::{AddressOwner, LinkState, LocalAddress, MacAddr};
use crate::time::Instant;
use crate::{Config, Origin, Stack};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What runs on a host. Polled in every turn of its host, as a worker polls its handlers.
pub trait Application {
    /// Does what can be done now. Returns when it wants to be polled even if no packet arrives;
    /// `None` if only packets matter.
    fn poll(
        &mut self,
        stack: &mut Stack<HeapPool>,
        pool: &mut HeapPool,
        now: Instant,
    ) -> Option<Instant>;
}

/// No application.
impl Application for () {
    fn poll(&mut self, _: &mut Stack<HeapPool>, _: &mut HeapPool, _: Instant) -> Option<Instant> {
        None
    }
}

impl<A: Application + ?Sized> Application for Box<A> {
    fn poll(
        &mut self,
        stack: &mut Stack<HeapPool>,
        pool: &mut HeapPool,
        now: Instant,
    ) -> Option<Instant> {
        (**self).poll(stack, pool, now)
    }
}

/// How hosts find each other's Ethernet addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Neighbors {
    /// They know them from the start.
    #[default]
    Preset,
    /// By ARP and neighbour discovery over the simulated links.
    Resolved,
}

/// What a host is made of.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The name in captures and messages.
    pub name: String,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses, with the lengths of their on-link prefixes in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Its own idea of the link's MTU, in bytes.
    pub mtu: u32,
    /// Frames it may use.
    pub frames: usize,
    /// Bytes of a frame.
    pub frame_bytes: usize,
    /// The stack's configuration. The secret is drawn from the network's seed if it is the default.
    pub stack: Config,
}

impl HostConfig {
    /// Host `number` (1 to 253) of a segment: 192.0.2.`number`/24 (RFC 5737), 2001:db8::`number`/64
    /// (RFC 3849), and an Ethernet address that says the number too.
    #[must_use]
    pub fn new(name: &str, number: u8) -> Self {
        Self {
            name: name.into(),
            mac: [2, 0, 0, 0, 0, number],
            addresses: alloc::vec![(v4(number), 24), (v6(number), 64)],
            mtu: 1500,
            frames: 1024,
            frame_bytes: 2048,
            stack: Config {
                announce: false,
                ..Config::default()
            },
        }
    }
}

/// The IPv4 address of host `number`.
#[must_use]
pub const fn v4(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, number))
}

/// The IPv6 address of host `number`.
#[must_use]
pub const fn v6(number: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16))
}

/// A simulated host.
pub struct Host<A> {
    /// Its name.
    pub name: String,
    /// Its stack.
    pub stack: Stack<HeapPool>,
    /// Its frames.
    pub pool: HeapPool,
    /// What runs on it.
    pub application: A,
    /// Frames that arrived while none of the pool's was free.
    pub frames_missed: u64,
    pub(super) addresses: Vec<IpAddr>,
    /// When its next turn is due; `None` if only a packet wakes it.
    pub(super) wake: Option<Instant>,
}

impl<A: Application> Host<A> {
    pub(super) fn new(config: HostConfig, application: A, now: Instant) -> Self {
        let HostConfig {
            name,
            mac,
            addresses,
            mtu,
            frames,
            frame_bytes,
            stack,
        } = config;
        let mut stack = Stack::new(stack);
        let routes = addresses
            .iter()
            .map(|(address, prefix_len)| Route::on_link(*address, *prefix_len))
            .collect();
        let link = LinkState {
            mac,
            mtu,
            up: true,
            addresses: addresses.iter().map(local_address).collect(),
            routes: RouteTable::new(routes, addresses.len())
                .expect("invariant: prefixes of addresses of a test"),
        };
        stack.set_link(Box::new(link), now);
        Self {
            name,
            stack,
            pool: HeapPool::new(frames, frame_bytes),
            application,
            frames_missed: 0,
            addresses: addresses.iter().map(|(address, _)| *address).collect(),
            wake: Some(now),
        }
    }

    /// One turn of a worker: what arrived goes in, timers and the application run, what is to be
    /// sent comes out.
    pub(super) fn turn(&mut self, arrivals: &mut Vec<Vec<u8>>, now: Instant) -> Vec<Vec<u8>> {
        for bytes in arrivals.drain(..) {
            match self.pool.receive(&bytes) {
                Some(frame) => self.stack.ingest(&mut self.pool, frame, Origin::Ring, now),
                None => self.frames_missed += 1,
            }
        }
        // There is one worker and no kernel: nobody to hand packets to or to ask.
        while let Some((_, frame)) = self.stack.next_handoff() {
            self.pool.give(frame);
        }
        while self.stack.next_wanted_neighbor().is_some() {}
        self.stack.expire(&mut self.pool, now);
        let wish = self.application.poll(&mut self.stack, &mut self.pool, now);
        self.stack.tcp_transmit(&mut self.pool, now);
        let mut sent: Vec<HeapFrame> = Vec::new();
        self.stack.egress(|frame| {
            sent.push(frame);
            Ok(())
        });
        let bytes = sent.iter().map(|frame| frame.data().to_vec()).collect();
        for frame in sent {
            self.pool.give(frame);
        }
        let deadline = self.stack.next_deadline();
        self.wake = Some(wish.map_or(deadline, |wish| wish.min(deadline)));
        bytes
    }
}

/// An address that the stack answers for.
fn local_address(&(address, prefix_len): &(IpAddr, u8)) -> LocalAddress {
    let broadcast = match address {
        IpAddr::V4(address) if prefix_len < 31 => {
            let host_bits = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
            Some(Ipv4Addr::from(u32::from(address) | host_bits))
        }
        _ => None,
    };
    LocalAddress {
        address,
        prefix_len,
        broadcast,
        owner: AddressOwner::Stack,
    }
}
