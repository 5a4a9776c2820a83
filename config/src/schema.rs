//! Every key of the file, section by section, with its unit, its range and its default.
//!
//! `default.toml` tells the same to the people who write the file; a test holds the two together.

use crate::error::Source;
use crate::tcp::{Congestion, Tcp};
use crate::value::{Cidr, Deny, DenyProtocol};
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A configuration in which every value is in range and no two contradict each other.
///
/// Made by [`Config::load`] or [`Config::parse`]; what only the machine can tell (its cores, queues
/// and addresses) is checked by [`Config::check_against`]. `Display` prints the effective
/// configuration, defaults included, as a file that parses back to an equal value.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// `[interface]`: the NIC and its queues.
    pub interface: Interface,
    /// `[rings]`: AF_XDP rings and packet memory, for each queue.
    pub rings: Rings,
    /// `[busy_poll]`: whether the worker drives the NIC's receive work itself.
    pub busy_poll: BusyPoll,
    /// `[workers]`: pinned threads.
    pub workers: Workers,
    /// `[checksums]`: what is accepted on receive.
    pub checksums: Checksums,
    /// `[ip]`: IPv4, IPv6 and ICMP.
    pub ip: Ip,
    /// `[reassembly]`: fragments of our flows.
    pub reassembly: Reassembly,
    /// `[tcp]`: what TCP does.
    pub tcp: Tcp,
    /// `[limits]`: how much of everything there may be.
    pub limits: Limits,
    /// `[steering]`: what stays the kernel's whatever services ask for.
    pub steering: Steering,
    /// `[latency]`: histograms.
    pub latency: Latency,
    /// `[control]`: control socket, metrics and log.
    pub control: Control,
    /// `[[service]]`: the applications, in file order.
    #[serde(rename = "service")]
    pub services: Vec<Service>,
    /// Where each key was written, for the errors of later checks.
    #[serde(skip)]
    pub(crate) source: Source,
}

/// Equal when the service would run the same; where the values were written does not count.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            interface,
            rings,
            busy_poll,
            workers,
            checksums,
            ip,
            reassembly,
            tcp,
            limits,
            steering,
            latency,
            control,
            services,
            source: _,
        } = self;
        *interface == other.interface
            && *rings == other.rings
            && *busy_poll == other.busy_poll
            && *workers == other.workers
            && *checksums == other.checksums
            && *ip == other.ip
            && *reassembly == other.reassembly
            && *tcp == other.tcp
            && *limits == other.limits
            && *steering == other.steering
            && *latency == other.latency
            && *control == other.control
            && *services == other.services
    }
}

impl Eq for Config {}

impl Config {
    /// The built-in defaults on the interface `interface`, with no service.
    #[must_use]
    pub fn new(interface: &str) -> Self {
        Self {
            interface: Interface::new(interface),
            rings: Rings::default(),
            busy_poll: BusyPoll::default(),
            workers: Workers::default(),
            checksums: Checksums::default(),
            ip: Ip::default(),
            reassembly: Reassembly::default(),
            tcp: Tcp::default(),
            limits: Limits::default(),
            steering: Steering::default(),
            latency: Latency::default(),
            control: Control::default(),
            services: Vec::new(),
            source: Source::default(),
        }
    }

    /// Whether any TCP service has NewReno: only then is there memory for such connections.
    #[must_use]
    pub fn uses_new_reno(&self) -> bool {
        self.services.iter().any(|service| {
            service.protocol == Protocol::Tcp && service.congestion == Congestion::NewReno
        })
    }

    /// Whether any service opens connections: only then are [`Tcp::ports`] reserved and steered.
    #[must_use]
    pub fn opens_connections(&self) -> bool {
        self.services
            .iter()
            .any(|service| !service.connect.is_empty())
    }

    /// The effective configuration, defaults included, as TOML that parses back to an equal value.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("invariant: the schema has only tables, arrays and scalars")
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_toml())
    }
}

/// Declares an enum whose variants are words in the file.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value with its word in the file.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];

            /// The word in the file.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;

/// `[interface]`: the NIC and its queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Name of the interface, as `ip link` shows it: 1 to 15 bytes. Required.
    pub name: String,
    /// The receive queues that get an AF_XDP socket. Default: all.
    pub queues: Queues,
    /// How packets move between NIC and rings. Default: auto.
    pub mode: Mode,
    /// VLAN identifiers our packets carry, outermost first: none, one (802.1Q) or two (802.1ad),
    /// each 1 to 4094. Default: none.
    pub vlan: Vec<u16>,
    /// Longest wait for a carrier at start, in seconds, 0 to 3600. Default: 10.
    pub link_wait_s: u32,
}

impl Interface {
    /// The defaults, on the interface `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            queues: Queues::All,
            mode: Mode::Auto,
            vlan: Vec::new(),
            // Autonegotiation takes 2 to 5 s on gigabit ports and longer through transceivers.
            link_wait_s: 10,
        }
    }
}

/// Which receive queues of the interface are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queues {
    /// Every queue the interface has; the only choice that needs no RSS or flow rules.
    All,
    /// These, each once, in this order.
    List(Vec<u32>),
}

impl Serialize for Queues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::List(queues) => queues.serialize(serializer),
        }
    }
}

words! {
    /// How packets move between NIC and rings.
    Mode {
        /// The best of the three below that the driver gives; which one is reported.
        Auto = "auto",
        /// The NIC reads and writes packet memory itself; an error where the driver cannot.
        ZeroCopy = "zero-copy",
        /// The driver runs the XDP program, the kernel copies; an error where the driver cannot.
        Copy = "copy",
        /// The kernel runs the XDP program after its own receive path; works on every driver.
        Generic = "generic",
    }
}

/// `[rings]`: AF_XDP rings and packet memory, for each queue.
///
/// Relations: every ring is a power of two; `fill >= rx`; `completion >= tx`; `rx >= workers.batch` and
/// `tx >= workers.batch`; and [`Rings::frames_needed`] frames at least, so that no ring can starve
/// another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rings {
    /// Receive descriptors, a power of two from 64 to 32768. Default: 2048.
    pub rx: u32,
    /// Transmit descriptors, a power of two from 64 to 32768. Default: 2048.
    pub tx: u32,
    /// Fill ring (empty frames for the NIC), a power of two from 64 to 32768, at least `rx`.
    /// Default: twice `rx`.
    pub fill: u32,
    /// Completion ring (frames the NIC has sent), a power of two from 64 to 32768, at least `tx`.
    /// Default: `tx`.
    pub completion: u32,
    /// Frames of packet memory for each queue, up to 262144. Default: what the rings need, rounded
    /// up to 1024 (whole 2 MiB pages).
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096. Default: 2048.
    pub frame_size: u32,
    /// Whether packet memory is on huge pages. Default: auto.
    pub huge_pages: HugePages,
    /// Whether the kernel says when it must be woken, instead of being woken always.
    /// Default: true.
    pub need_wakeup: bool,
}

impl Rings {
    /// Default for `rx` and `tx`. 256 lose bursts; 2048 hold 1.4 ms of a million packets a second.
    pub(crate) const DEPTH: u32 = 2048;
    /// Deepest ring. The kernel would allow more; 32768 frames of 2 KiB are 64 MiB already.
    pub(crate) const DEPTH_MAX: u32 = 32768;
    /// Most frames of one queue: 512 MiB at 2048 bytes.
    pub(crate) const FRAMES_MAX: u32 = 262_144;
    /// Frames are given out in steps of a 2 MiB page of 2048-byte frames.
    const FRAMES_STEP: u32 = 1024;

    /// Frames that keep every ring full at once, plus one batch in the worker's hands:
    /// `rx + tx + fill + completion + batch`. Fewer, and a burst on one ring empties another.
    #[must_use]
    pub const fn frames_needed(&self, batch: u32) -> u32 {
        self.rx
            .saturating_add(self.tx)
            .saturating_add(self.fill)
            .saturating_add(self.completion)
            .saturating_add(batch)
    }

    /// What `frames` is when the file does not say.
    pub(crate) const fn frames_default(&self, batch: u32) -> u32 {
        self.frames_needed(batch).div_ceil(Self::FRAMES_STEP) * Self::FRAMES_STEP
    }

    /// What `fill` is when the file does not say: twice `rx`, since the worker refills the ring
    /// only after it has looked at a batch.
    pub(crate) const fn fill_default(rx: u32) -> u32 {
        if rx < Self::DEPTH_MAX {
            rx * 2
        } else {
            Self::DEPTH_MAX
        }
    }
}

const _: () = assert!(
    4 * Rings::DEPTH_MAX + Workers::BATCH_MAX <= Rings::FRAMES_MAX,
    "the deepest rings must be possible"
);

impl Default for Rings {
    fn default() -> Self {
        let mut rings = Self {
            rx: Self::DEPTH,
            tx: Self::DEPTH,
            fill: Self::fill_default(Self::DEPTH),
            completion: Self::DEPTH,
            frames: 0,
            // The smallest the kernel takes; holds 1500-byte packets with room for metadata.
            frame_size: 2048,
            huge_pages: HugePages::Auto,
            need_wakeup: true,
        };
        rings.frames = rings.frames_default(Workers::BATCH);
        rings
    }
}

words! {
    /// Whether packet memory is on huge pages.
    HugePages {
        /// Where there are free ones, else ordinary pages; which is reported.
        Auto = "auto",
        /// An error at start where there are not enough.
        Require = "require",
        /// Ordinary pages.
        Never = "never",
    }
}

/// `[busy_poll]`: the worker runs the NIC's receive work on its own core (SO_PREFER_BUSY_POLL,
/// SO_BUSY_POLL, SO_BUSY_POLL_BUDGET; kernel 5.11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BusyPoll {
    /// Whether to. Default: false.
    pub enabled: bool,
    /// SO_BUSY_POLL: how long one call polls the NIC, in µs, 1 to 1000. Default: 20.
    pub usecs: u32,
    /// SO_BUSY_POLL_BUDGET: most packets of one call, 1 to 1024. Default: 64.
    pub budget: u32,
}

impl Default for BusyPoll {
    fn default() -> Self {
        // 20 µs and 64 (NAPI_POLL_WEIGHT) are what the kernel's AF_XDP samples use.
        Self {
            enabled: false,
            usecs: 20,
            budget: 64,
        }
    }
}

/// `[workers]`: pinned threads, one on each core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workers {
    /// The cores, one worker each; worker N runs on the Nth of them. Default: auto.
    pub cores: Cores,
    /// Most packets taken from a ring in one turn, 1 to 256. Default: 64.
    pub batch: u32,
    /// What a worker does when there is nothing to do. Default: adaptive.
    pub idle: IdlePolicy,
    /// Adaptive only: how long a worker spins before it sleeps, in µs, 0 to 1000000. Default: 50.
    pub spin_us: u32,
    /// Adaptive only: longest sleep in `poll`, in ms, 1 to 1000. Default: 10.
    pub sleep_ms: u32,
    /// Packets that wait, for each pair of workers, when one receives what belongs to the other: a
    /// power of two from 64 to 65536. Default: 1024.
    pub handoff_queue: u32,
    /// How long workers that are to end go on with what is in their rings, in ms, 1 to 60000.
    /// Default: 1000.
    pub drain_ms: u32,
}

impl Workers {
    /// Default for `batch`: NAPI_POLL_WEIGHT, so that one turn takes what one NAPI poll brings.
    pub(crate) const BATCH: u32 = 64;
    /// More packets than this a turn delay the first of them visibly, and win nothing.
    pub(crate) const BATCH_MAX: u32 = 256;
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            cores: Cores::Auto,
            batch: Self::BATCH,
            idle: IdlePolicy::Adaptive,
            // About what a sleep and its wakeup cost: sleeping sooner cannot pay.
            spin_us: 50,
            sleep_ms: 10,
            handoff_queue: 1024,
            // Full rings empty within milliseconds on a link that is up; a second is for those that
            // pause (Ethernet flow control), and no burden to whoever restarts the service.
            drain_ms: 1000,
        }
    }
}

/// Which cores the workers run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// One worker for each queue, as far as there are cores; see [`Config::worker_cores`].
    Auto,
    /// These, each once.
    List(Vec<usize>),
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("\"auto\""),
            Self::List(cores) => write!(f, "{cores:?}"),
        }
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::List(cores) => cores.serialize(serializer),
        }
    }
}

words! {
    /// What a worker does when there is nothing to do.
    IdlePolicy {
        /// Looks again at once: lowest latency, one core at 100 %.
        Spin = "spin",
        /// Spins for `spin_us`, then sleeps in `poll` for at most `sleep_ms`.
        Adaptive = "adaptive",
    }
}

/// `[checksums]`: what is accepted on receive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checksums {
    /// Whether a packet with an incomplete checksum (only the pseudo-header summed, as a veth
    /// peer or a virtio host with checksum offload sends) is accepted. Default: false: counted,
    /// explained and dropped.
    pub accept_incomplete: bool,
}

/// `[ip]`: IPv4, IPv6 and ICMP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ip {
    /// Time to live (IPv4) or hop limit (IPv6) of what we send, 1 to 255. Default: 64.
    pub ttl: u8,
    /// ICMP and ICMPv6 errors sent per worker, in messages a second, 0 to 1000000; 0 sends none.
    /// Default: 1000.
    pub icmp_rate_per_s: u32,
    /// ICMP and ICMPv6 errors that may go out at once after a pause, 1 to 100000. Default: 50.
    pub icmp_burst: u32,
}

impl Default for Ip {
    fn default() -> Self {
        // 64 is IANA's recommended value; 1000 and 50 are Linux's icmp_msgs_per_sec and
        // icmp_msgs_burst.
        Self {
            ttl: 64,
            icmp_rate_per_s: 1000,
            icmp_burst: 50,
        }
    }
}

/// `[reassembly]`: fragments of our flows, for each worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reassembly {
    /// Most bytes of fragments kept, 65536 to 1073741824; 0 turns reassembly off.
    /// Default: 4194304 (4 MiB).
    pub memory_bytes: usize,
    /// Most datagrams put together at once, 1 to 65536. Default: 256.
    pub datagrams: usize,
    /// How long a datagram may stay incomplete, in seconds, 1 to 120. Default: 30.
    pub timeout_s: u32,
}

impl Reassembly {
    /// The least that can hold one largest datagram.
    pub(crate) const MEMORY_MIN: usize = 65_536;
}

impl Default for Reassembly {
    fn default() -> Self {
        // 4 MiB and 30 s are Linux's ipfrag_high_thresh and ipfrag_time.
        Self {
            memory_bytes: 4 << 20,
            datagrams: 256,
            timeout_s: 30,
        }
    }
}

/// `[limits]`: how much of everything there may be, for each worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Neighbour (ARP, NDP) entries, 16 to 65536. Default: 1024.
    pub neighbors: usize,
    /// Routes, 16 to 65536. Default: 1024.
    pub routes: usize,
    /// UDP sockets, 1 to 65534. Default: 1024.
    pub udp_sockets: usize,
    /// Received datagrams that wait in one UDP socket, 1 to 65536. Default: 512.
    pub udp_queue: usize,
    /// Packets that wait for room in the TX ring, 64 to 65536. Default: 1024.
    pub egress_queue: usize,
    /// TCP listeners, 1 to 65534. Default: 64.
    pub tcp_listeners: usize,
    /// TCP connections of each IP version, 1 to 4194304. Default: 16384.
    pub tcp_connections: u32,
    /// TCP connections of each IP version whose handshake is not complete, 1 to 1048576. Default: 4096.
    pub tcp_half_open: u32,
    /// TCP connections of each IP version in TIME-WAIT, 1 to 4194304. Default: 16384.
    pub tcp_time_wait: u32,
    /// Bytes that wait to be sent or acknowledged, of all connections, 65536 to 68719476736.
    /// Default: 33554432 (32 MiB).
    pub tcp_send_memory: u64,
    /// Bytes that wait to be read, of all connections, 65536 to 68719476736. Default: 33554432 (32 MiB).
    pub tcp_receive_memory: u64,
    /// Segments under way, of all connections, 64 to 16777216. Default: 65536.
    pub tcp_transmissions: u32,
    /// Pieces of data out of order, of all connections, 16 to 1048576. Default: 4096.
    pub tcp_out_of_order: u32,
    /// Bytes that wait to be sent or acknowledged, of one connection, 4096 to 1073741824.
    /// Default: 1048576 (1 MiB).
    pub tcp_send_buffer: u32,
    /// Bytes a connection offers to receive at first, 4096 to 1073741824. Default: 65536 (64 KiB).
    pub tcp_receive_buffer: u32,
    /// Bytes a connection offers to receive at most, 4096 to 1073741824. Default: 4194304 (4 MiB).
    pub tcp_receive_buffer_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Linux's gc_thresh3.
            neighbors: 1024,
            routes: 1024,
            udp_sockets: 1024,
            // A few batches: what a handler cannot take within that it will not catch up with.
            udp_queue: 512,
            egress_queue: 1024,
            tcp_listeners: 64,
            tcp_connections: 16_384,
            tcp_half_open: 4096,
            tcp_time_wait: 16_384,
            tcp_send_memory: 32 << 20,
            tcp_receive_memory: 32 << 20,
            // What the send memory takes in full segments of 512 bytes.
            tcp_transmissions: 65_536,
            tcp_out_of_order: 4096,
            // 8 ms of 1 Gb/s: the longest path at that rate that one connection fills.
            tcp_send_buffer: 1 << 20,
            tcp_receive_buffer: 64 << 10,
            tcp_receive_buffer_max: 4 << 20,
        }
    }
}

/// `[steering]`: what stays the kernel's whatever services ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Steering {
    /// Ports that always go to the kernel; looked at before anything else. At most 256.
    /// Default: `["tcp/22"]`.
    pub deny: Vec<Deny>,
}

impl Steering {
    /// Room in the deny map of the steering program.
    pub(crate) const DENY_MAX: usize = 256;
}

impl Default for Steering {
    fn default() -> Self {
        // SSH: a mistake in the services must not lock the administrator out.
        Self {
            deny: vec![Deny {
                protocol: DenyProtocol::Tcp,
                port: 22,
                address: None,
            }],
        }
    }
}

/// `[latency]`: histograms, for each worker and stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Whether stages are timed. Default: true.
    pub enabled: bool,
    /// Where `.hgrm` and `.json` are written on exit and on SIGUSR1; `None` (`""` in the file)
    /// only prints them. Default: none.
    #[serde(serialize_with = "empty_when_none_path")]
    pub directory: Option<PathBuf>,
    /// Significant decimal digits of a histogram value, 2 or 3. Default: 3.
    pub significant_digits: u8,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            enabled: true,
            directory: None,
            significant_digits: 3,
        }
    }
}

/// `[control]`: control socket, metrics and log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Control {
    /// The Unix socket `dataplane stats` and its like talk to; an absolute path of at most 107
    /// bytes. Default: `/run/dataplane/control.sock`.
    pub socket: PathBuf,
    /// Where Prometheus metrics are served over HTTP; `None` (`""` in the file) serves none.
    /// Default: none.
    #[serde(serialize_with = "empty_when_none")]
    pub metrics: Option<SocketAddr>,
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or several
    /// `target=level` separated by commas. Default: `info`.
    pub log: String,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: "/run/dataplane/control.sock".into(),
            metrics: None,
            log: "info".into(),
        }
    }
}

/// `[[service]]`: an application and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// A name of its own, for logs and metrics: 1 to 63 letters, digits, `-`, `_`, `.`. Required.
    pub name: String,
    /// What answers. Required.
    pub application: Application,
    /// The transport protocol. Required.
    pub protocol: Protocol,
    /// Addresses and ports. An address is a wildcard, one of the interface's, or one of any service's
    /// `own_addresses`. Required, one at least, unless there is `connect`.
    pub listen: Vec<SocketAddr>,
    /// TCP only: addresses and ports of hosts to open connections to; the application serves them as it
    /// serves those of its listeners. Default: none.
    pub connect: Vec<SocketAddr>,
    /// TCP only: connections opened to each address of `connect`, 1 to 65535. Default: 1.
    pub connections: u32,
    /// Whether `[::]` takes IPv6 only (IPV6_V6ONLY, RFC 3493 §5.3). Default: false.
    pub v6only: bool,
    /// Addresses the kernel does not have, for which the stack answers ARP, neighbour discovery
    /// and ping itself. Default: none.
    pub own_addresses: Vec<Cidr>,
    /// The workers that run the application. Default: all.
    pub workers: ServiceWorkers,
    /// TCP only: congestion control. Default: cubic.
    pub congestion: Congestion,
    /// TCP only: whether small segments are sent at once (TCP_NODELAY, RFC 9293 §3.7.4).
    /// Default: true.
    pub nodelay: bool,
    /// TCP only: connections, of each worker, that are half-open or wait to be accepted, 1 to 65535.
    /// Default: 1024.
    pub backlog: u32,
}

impl Service {
    /// Default for `nodelay`: the applications answer in whole writes, which waiting cannot improve.
    pub(crate) const NODELAY: bool = true;
    /// Default for `connections`.
    pub(crate) const CONNECTIONS: u32 = 1;
    /// Default for `backlog`: a burst of a thousand connections between two turns of a worker.
    pub(crate) const BACKLOG: u32 = 1024;
}

words! {
    /// What answers.
    Application {
        /// Sends everything back to its sender (RFC 862).
        Echo = "echo",
        /// Throws everything away (RFC 863).
        Discard = "discard",
        /// Sends characters without end, as fast as the peer takes them (RFC 864). TCP only.
        Source = "source",
    }
}

words! {
    /// The transport protocol of a service.
    Protocol {
        /// UDP (RFC 768).
        Udp = "udp",
        /// TCP (RFC 9293).
        Tcp = "tcp",
    }
}

/// The workers that run a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceWorkers {
    /// Every worker.
    All,
    /// These, by index into `workers.cores`, each once.
    List(Vec<usize>),
}

impl Serialize for ServiceWorkers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::List(workers) => workers.serialize(serializer),
        }
    }
}

/// TOML has no null: a key that is switched off is written as the empty string.
fn empty_when_none<T: fmt::Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_str(""),
    }
}

/// As [`empty_when_none`], for a path, which has no `Display`.
fn empty_when_none_path<S: Serializer>(
    value: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(path) => serializer.collect_str(&path.display()),
        None => serializer.serialize_str(""),
    }
}
