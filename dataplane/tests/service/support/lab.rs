//! The two namespaces, their cable, and a directory for files.

use super::kernel::Udp;
use super::namespace::Namespace;
use super::process::{Finished, Process};
use super::service::Service;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The service's interface, and the far end of its cable.
pub(crate) const DEVICE: &str = "dp0";
pub(crate) const PEER: &str = "peer0";

/// Addresses the kernel has on [`DEVICE`].
pub(crate) const SERVER_V4: &str = "10.77.0.1";
pub(crate) const SERVER_V6: &str = "fd77::1";
/// Addresses the kernel has on [`PEER`].
pub(crate) const PEER_V4: &str = "10.77.0.2";
pub(crate) const PEER_V6: &str = "fd77::2";

/// Two namespaces with a cable between them, and a directory; all of them gone when it is dropped.
pub(crate) struct Lab {
    pub(crate) server: Namespace,
    pub(crate) peer: Namespace,
    directory: PathBuf,
}

/// Says by name that a test is skipped, where something it needs is missing. The names of what it
/// needs beside root are those of tools.
pub(crate) fn can_run(test: &str, tools: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() || Namespace::new().is_none() {
        println!("\nskipped: {test}: needs root (CAP_NET_ADMIN)");
        return false;
    }
    for tool in tools {
        let package = match *tool {
            "ip" => "iproute2",
            "nc" => "netcat-openbsd",
            "ping" | "arping" => "iputils-ping, iputils-arping",
            "setpriv" => "util-linux",
            other => other,
        };
        if !is_installed(tool) {
            println!("\nskipped: {test}: needs {tool} (package {package})");
            return false;
        }
    }
    true
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

/// Makes a [`Lab`] named after the test function it is in, or returns from it, saying why.
macro_rules! lab {
    ($test:literal, queues: $queues:literal $(, $tool:literal)*) => {{
        if !$crate::support::lab::can_run($test, &["ip", "ethtool" $(, $tool)*]) {
            return;
        }
        $crate::support::lab::Lab::new($queues)
    }};
}
pub(crate) use lab;

impl Lab {
    /// A veth pair of `queues` queues at each end, with addresses, up, and with the peer's checksum
    /// offload off.
    pub(crate) fn new(queues: u32) -> Self {
        let lab = Self::without_cable();
        let Self { server, peer, .. } = &lab;
        // No second of waiting for duplicate address detection; tests about it switch it on again.
        for namespace in [server, peer] {
            namespace.sysctl("ipv6/conf/default/accept_dad", "0");
            namespace.sysctl("ipv6/conf/default/router_solicitations", "0");
        }
        server.ip(&format!(
            "link add {DEVICE} numrxqueues {queues} numtxqueues {queues} type veth \
             peer name {PEER} numrxqueues {queues} numtxqueues {queues} netns {}",
            peer.path()
        ));
        server.ip(&format!("address add {SERVER_V4}/24 dev {DEVICE}"));
        server.ip(&format!("address add {SERVER_V6}/64 dev {DEVICE} nodad"));
        peer.ip(&format!("address add {PEER_V4}/24 dev {PEER}"));
        peer.ip(&format!("address add {PEER_V6}/64 dev {PEER} nodad"));
        server.ip(&format!("link set {DEVICE} up"));
        peer.ip(&format!("link set {PEER} up"));
        peer.sh(&format!("ethtool -K {PEER} tx off"));
        lab
    }

    /// Two namespaces that nothing connects.
    pub(crate) fn without_cable() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("dataplane-test-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("a directory");
        Self {
            server: Namespace::new().expect("it was possible a moment ago"),
            peer: Namespace::new().expect("it was possible a moment ago"),
            directory,
        }
    }

    /// The Ethernet address of the service's interface, as `ip` writes it.
    pub(crate) fn mac(&self, device: &str) -> String {
        let shown = self.server.ip(&format!("-o link show dev {device}"));
        let mut words = shown.split_whitespace();
        words.find(|word| *word == "link/ether");
        words.next().expect("an Ethernet address").to_owned()
    }

    /// The same in bytes.
    pub(crate) fn mac_bytes(&self, device: &str) -> [u8; 6] {
        let text = self.mac(device);
        let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let bytes: Result<Vec<u8>, _> = bytes.collect();
        bytes.expect("hexadecimal").try_into().expect("six bytes")
    }

    /// A file of this lab.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the service's control socket is, if the test does not say otherwise.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// Writes a configuration: `[interface]` and `[control]` of this lab, and then `rest`, whose
    /// first lines may add to `[interface]`.
    pub(crate) fn write_config(&self, rest: &str) -> PathBuf {
        self.write_config_as("service.toml", &self.socket(), rest)
    }

    /// The same under another name and with another control socket.
    pub(crate) fn write_config_as(&self, name: &str, socket: &Path, rest: &str) -> PathBuf {
        let path = self.path(name);
        let text = format!(
            "[control]\nsocket = \"{}\"\n\n[interface]\nname = \"{DEVICE}\"\n{rest}",
            socket.display()
        );
        // Renamed into place: nobody reads half of it.
        let new = self.path("new.toml");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, &path).expect("a file");
        path
    }

    /// Starts the service with [`write_config`](Self::write_config) and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&self, rest: &str) -> Service {
        let config = self.write_config(rest);
        Service::start(&self.server, &config, &self.socket())
    }

    /// The same with this as its standard output.
    #[track_caller]
    pub(crate) fn start_with_stdout(&self, rest: &str, stdout: impl Into<Stdio>) -> Service {
        let config = self.write_config(rest);
        Service::start_with_stdout(&self.server, &config, &self.socket(), stdout.into())
    }

    /// Starts a service that is not to become ready.
    #[track_caller]
    pub(crate) fn start_in_vain(&self, rest: &str) -> Finished {
        let config = self.write_config(rest);
        Service::launch(&self.server, &config).finish()
    }

    /// The program under test, in the service's namespace.
    pub(crate) fn dataplane(&self) -> Command {
        self.server.command(&super::service::program())
    }

    /// A UDP socket of the peer's kernel, of the version of `to`, that talks to `to`.
    #[track_caller]
    pub(crate) fn client(&self, to: &str) -> Udp {
        let to: SocketAddr = to
            .parse()
            .unwrap_or_else(|_| panic!("{to:?} is no address"));
        let any: IpAddr = match to {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0; 16].into(),
        };
        Udp::connect(&self.peer, SocketAddr::new(any, 0), to)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A test that fails shows what the kernels knew.
            for (whose, namespace) in [("server", &self.server), ("peer", &self.peer)] {
                for what in ["address", "neighbour"] {
                    let mut command = namespace.command("ip");
                    command.arg(what);
                    let mut shown = Process::start(command, &format!("ip {what} of the {whose}"));
                    let _ = shown.wait_for(Duration::from_secs(5));
                }
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A `[[service]]` of this application that listens there.
pub(crate) fn serve(application: &str, listen: &[&str]) -> String {
    serve_as(application, application, listen, "")
}

/// The same with a name of its own and more keys.
pub(crate) fn serve_as(name: &str, application: &str, listen: &[&str], more: &str) -> String {
    let listen: Vec<String> = listen.iter().map(|local| format!("\"{local}\"")).collect();
    format!(
        "\n[[service]]\nname = \"{name}\"\napplication = \"{application}\"\nprotocol = \"udp\"\n\
         listen = [{}]\n{more}\n",
        listen.join(", ")
    )
}
