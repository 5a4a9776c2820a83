//! The namespaces, the cable or the bad network between them, the service, and the kernel's settings.

use crate::client::{Client, until_no_connection};
use crate::extent::{is_full, is_reference};
use crate::reference::Reference;
use crate::support::lab::{DEVICE, Lab, PEER, PEER_V4, PEER_V6, SERVER_V4, SERVER_V6, can_run};
use crate::support::namespace::Namespace;
use crate::support::service::Service;
use bench::impair::decide::Impairment;
use bench::impair::forward::{Forwarder, Plan};
use bench::impair::report::Report;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Ports of the three applications.
pub(crate) const ECHO: u16 = 7;
pub(crate) const DISCARD: u16 = 9;
pub(crate) const SOURCE: u16 = 19;

/// What is between the service and its peer.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// MTU of the service's interface.
    pub(crate) mtu: u32,
    /// MTU of the peer's.
    pub(crate) peer_mtu: u32,
    /// What happens on the way, from the peer to the service and back, and the seed of it.
    pub(crate) impaired: Option<(Impairment, Impairment, u64)>,
    /// Settings of the peer's kernel, below /proc/sys/net.
    pub(crate) sysctls: Vec<(&'static str, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mtu: 1500,
            peer_mtu: 1500,
            impaired: None,
            sysctls: Vec::new(),
        }
    }
}

/// Both hosts, running. Fields are dropped in this order.
pub(crate) struct Interop {
    server: Server,
    wire: Option<Wire>,
    pub(crate) lab: Lab,
}

enum Server {
    Service(Service),
    Reference(#[allow(dead_code)] Reference),
}

/// Says by name that a test is skipped, where something it needs is missing.
pub(crate) fn may_run(test: &str, tools: &[&str]) -> bool {
    can_run(test, &[&["ip", "ethtool"], tools].concat())
}

/// Starts what `setup` says, or returns from the test it is in, which is named, saying why.
macro_rules! interop {
    ($test:literal, $setup:expr $(, $tool:literal)*) => {{
        if !$crate::setup::may_run($test, &[$($tool),*]) {
            return;
        }
        $crate::setup::Interop::start(&$setup)
    }};
}
pub(crate) use interop;

impl Interop {
    #[track_caller]
    pub(crate) fn start(setup: &Setup) -> Self {
        let (lab, wire) = match &setup.impaired {
            None => (Lab::new(1), None),
            Some((to_server, to_peer, seed)) => {
                let lab = Lab::without_cable();
                let wire = Wire::between(&lab, to_server, to_peer, *seed);
                (lab, Some(wire))
            }
        };
        lab.server
            .ip(&format!("link set {DEVICE} mtu {}", setup.mtu));
        lab.peer
            .ip(&format!("link set {PEER} mtu {}", setup.peer_mtu));
        for (key, value) in &setup.sysctls {
            lab.peer.sysctl(key, value);
        }
        let server = if is_reference() {
            // A kernel over a cable may leave checksums to a NIC that does not exist; a capture
            // would call them wrong.
            lab.server.sh(&format!("ethtool -K {DEVICE} tx off"));
            Server::Reference(Reference::start(&lab.server))
        } else {
            // Frames of 2048 bytes hold packets of 1500 and their headers.
            let frame_size = if setup.mtu > 1500 { 4096 } else { 2048 };
            Server::Service(lab.start(&format!(
                "\n[rings]\nframe_size = {frame_size}\n{}{}{}",
                serve("echo", ECHO),
                serve("discard", DISCARD),
                serve("source", SOURCE),
            )))
        };
        Self { server, wire, lab }
    }

    /// The service, unless a kernel takes its place.
    pub(crate) fn service(&self) -> Option<&Service> {
        match &self.server {
            Server::Service(service) => Some(service),
            Server::Reference(_) => None,
        }
    }

    /// Connects to this port of this address.
    #[track_caller]
    pub(crate) fn connect(&self, to: SocketAddr) -> Client {
        Client::connect(&self.lab.peer, to)
    }

    /// Waits until neither side has a connection left.
    #[track_caller]
    pub(crate) fn until_quiet(&self) {
        until_no_connection(&self.lab.peer);
    }

    /// Ends the service alone; the namespaces stay for as long as what it returns.
    #[track_caller]
    pub(crate) fn stop_server(self) -> Lab {
        if let Server::Service(service) = self.server {
            service.stop();
        }
        self.lab
    }

    /// Ends everything, and asserts that the service was well to its end.
    #[track_caller]
    pub(crate) fn stop(self) -> Option<Report> {
        if let Server::Service(service) = self.server {
            service.stop();
        }
        self.wire.map(Wire::stop)
    }
}

/// A port of the service by IPv4.
pub(crate) fn v4(port: u16) -> SocketAddr {
    address(SERVER_V4, port)
}

/// A port of the service by IPv6.
pub(crate) fn v6(port: u16) -> SocketAddr {
    address(SERVER_V6, port)
}

/// A port of the service by both.
pub(crate) fn both(port: u16) -> [SocketAddr; 2] {
    [v4(port), v6(port)]
}

fn address(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(text.parse().expect("an address"), port)
}

fn serve(application: &str, port: u16) -> String {
    format!(
        "\n[[service]]\nname = \"{application}\"\napplication = \"{application}\"\n\
         protocol = \"tcp\"\nlisten = [\"[::]:{port}\"]\n"
    )
}

/// The bad network: a forwarder in a namespace of its own, in a thread.
struct Wire {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Report, String>>>,
    _middle: Namespace,
}

/// Ends of the cables in the forwarder's namespace: the peer's and the service's.
const LEFT: &str = "left";
const RIGHT: &str = "right";

impl Wire {
    fn between(lab: &Lab, to_server: &Impairment, to_peer: &Impairment, seed: u64) -> Self {
        let middle = Namespace::new().expect("it was possible a moment ago");
        for namespace in [&lab.server, &lab.peer] {
            namespace.sysctl("ipv6/conf/default/accept_dad", "0");
            namespace.sysctl("ipv6/conf/default/router_solicitations", "0");
        }
        // A wire does not speak.
        middle.sysctl("ipv6/conf/default/disable_ipv6", "1");
        for (host, device, near, v4, v6) in [
            (&lab.server, DEVICE, RIGHT, SERVER_V4, SERVER_V6),
            (&lab.peer, PEER, LEFT, PEER_V4, PEER_V6),
        ] {
            middle.ip(&format!(
                "link add {near} mtu 9000 type veth peer name {device} netns {}",
                host.path()
            ));
            middle.ip(&format!("link set {near} up"));
            host.ip(&format!("address add {v4}/24 dev {device}"));
            host.ip(&format!("address add {v6}/64 dev {device} nodad"));
            host.ip(&format!("link set {device} up"));
        }
        let plan = Plan {
            a_to_b: to_server.clone(),
            b_to_a: to_peer.clone(),
            ..Plan::new([LEFT, RIGHT], seed, &Impairment::default())
        };
        let forwarder = middle
            .run(|| Forwarder::open(&plan))
            .unwrap_or_else(|reason| panic!("{reason}"));
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || forwarder.run(&told));
        Self {
            stop,
            thread: Some(thread),
            _middle: middle,
        }
    }

    #[track_caller]
    fn stop(mut self) -> Report {
        self.end()
            .expect("it is ended once")
            .unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn end(&mut self) -> Option<Result<Report, String>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        Some(thread.join().expect("a forwarder does not panic"))
    }
}

/// A test that fails shows what happened on the way.
impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(ended) = self.end()
            && std::thread::panicking()
        {
            match ended {
                Ok(report) => println!("-- impair:\n{report}"),
                Err(reason) => println!("-- impair: {reason}"),
            }
        }
    }
}

/// What full runs do beside the sample, said where a person reads it.
pub(crate) fn say(line: &str) {
    if is_full() {
        println!("{line}");
    }
}
