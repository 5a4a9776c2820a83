//! From the TOML tree to a [`Config`]: every key with its type, range and default, in the order of
//! the file people write.

use crate::document::{Document, Section, number, string};
use crate::error::{ConfigError, ConfigErrors, Source};
use crate::relations;
use crate::schema::{
    Application, BusyPoll, Checksums, Config, Control, Cores, HugePages, IdlePolicy, Interface, Ip,
    Latency, Limits, Mode, Protocol, Queues, Reassembly, Rings, Service, ServiceWorkers, Steering,
    Workers,
};
use crate::tcp::{Congestion, tcp};
use crate::value::{Cidr, connect_address, listen_address, own_address};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Depths a ring may have; also the range of the handoff queues' lower end.
const DEPTHS: RangeInclusive<u32> = 64..=Rings::DEPTH_MAX;

/// IFNAMSIZ (linux/if.h) less the terminating NUL.
const INTERFACE_NAME_LEN_MAX: usize = 15;

/// `sun_path` (linux/un.h) less the terminating NUL.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// Queue and core numbers beyond this are typing errors; the kernel's own limits are lower.
const INDEX_MAX: u32 = 65_535;

/// Most services in one file. Every listener is an entry of the steering map.
const SERVICES_MAX: usize = 1024;

/// A larger file is no configuration, but something that was named by mistake.
const FILE_LEN_MAX: u64 = 4 << 20;

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it, or the one reason it cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let text = read_bounded(path).map_err(|reason| {
            ConfigErrors::from(ConfigError {
                file: file.clone(),
                line: None,
                key: String::new(),
                value: String::new(),
                message: format!("cannot be read: {reason}"),
            })
        })?;
        Self::parse(&text, &file)
    }

    /// Checks `text`; `file_name` is what errors call it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigErrors> {
        let (mut document, tree) = Document::parse(text, file_name);
        let tree = tree.get_ref();
        if document.findings.any() {
            // What parses around a syntax error is a guess, and errors about a guess mislead.
            return document.findings.into_result(Self::new(""));
        }
        let mut config = sections(&mut document, tree);
        let Document {
            source,
            mut findings,
            ..
        } = document;
        config.source = source;
        relations::check(&config, &mut findings);
        findings.into_result(config)
    }
}

/// The text of a file, unless it is far too long for a configuration (or endless).
fn read_bounded(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    let read = file.take(FILE_LEN_MAX + 1).read_to_end(&mut text);
    let length = read.map_err(|error| error.to_string())?;
    if u64::try_from(length).is_ok_and(|length| length > FILE_LEN_MAX) {
        return Err(format!(
            "longer than {FILE_LEN_MAX} bytes: not a configuration"
        ));
    }
    String::from_utf8(text).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not UTF-8 text")
    })
}

/// The names of the sections, in the order of the file.
const SECTIONS: [&str; 13] = [
    "interface",
    "rings",
    "busy_poll",
    "workers",
    "checksums",
    "ip",
    "reassembly",
    "tcp",
    "limits",
    "steering",
    "latency",
    "control",
    "service",
];

/// Every section; what is missing or wrong has its default.
fn sections<'t>(document: &mut Document<'t>, tree: &DeTable<'t>) -> Config {
    let interface = interface(document.section(tree, "interface"));
    // `rings.frames` by default depends on the batch.
    let workers = workers(document.section(tree, "workers"));
    let config = Config {
        interface,
        rings: rings(document.section(tree, "rings"), workers.batch),
        busy_poll: busy_poll(document.section(tree, "busy_poll")),
        workers,
        checksums: checksums(document.section(tree, "checksums")),
        ip: ip(document.section(tree, "ip")),
        reassembly: reassembly(document.section(tree, "reassembly")),
        tcp: tcp(document.section(tree, "tcp")),
        limits: limits(document.section(tree, "limits")),
        steering: steering(document.section(tree, "steering")),
        latency: latency(document.section(tree, "latency")),
        control: control(document.section(tree, "control")),
        services: services(document, tree),
        source: Source::default(),
    };
    document.reject_unknown(tree, &SECTIONS);
    config
}

fn interface(mut section: Section<'_, '_, '_>) -> Interface {
    const NAME: &str = "the name of an interface, as `ip link` shows it";
    const QUEUES: &str = "\"all\" or a list of queues such as [0, 1]";
    const VLAN: &str = "a list of at most two VLAN identifiers, outermost first, such as [100]";
    section.require("name", NAME);
    let name = section.read("name", |value| string(value, NAME, interface_name));
    let default = Interface::new(&name.unwrap_or_default());
    let queues = section
        .word_or_list("queues", "all", QUEUES, |value| {
            number(value, &(0..=INDEX_MAX))
        })
        .map_or(default.queues, |list| {
            list.map_or(Queues::All, Queues::List)
        });
    let mode = section.word("mode", Mode::ALL).unwrap_or(default.mode);
    // IEEE 802.1Q table 9-2: 0 means no VLAN, 4095 is reserved.
    let vlan = section.list("vlan", VLAN, |value| number(value, &(1..=4094)));
    let vlan = vlan.unwrap_or(default.vlan);
    let link_wait_s = section.number("link_wait_s", 0..=3600, default.link_wait_s);
    section.finish();
    Interface {
        name: default.name,
        queues,
        mode,
        vlan,
        link_wait_s,
    }
}

/// As the kernel's dev_valid_name (net/core/dev.c).
fn interface_name(name: &str) -> Result<String, String> {
    let valid = !name.is_empty()
        && name.len() <= INTERFACE_NAME_LEN_MAX
        && !matches!(name, "." | "..")
        && !name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'));
    if valid {
        Ok(name.into())
    } else {
        Err(format!(
            "must be the name of an interface, as `ip link` shows it: 1 to \
             {INTERFACE_NAME_LEN_MAX} bytes without spaces, \"/\" and \":\""
        ))
    }
}

fn rings(mut section: Section<'_, '_, '_>, batch: u32) -> Rings {
    let default = Rings::default();
    let rx = section.power_of_two("rx", DEPTHS, default.rx);
    let tx = section.power_of_two("tx", DEPTHS, default.tx);
    let mut rings = Rings {
        rx,
        tx,
        fill: section.power_of_two("fill", DEPTHS, Rings::fill_default(rx)),
        completion: section.power_of_two("completion", DEPTHS, tx),
        frames: 0,
        frame_size: section
            .read("frame_size", |value| match number(value, &(2048..=4096)) {
                Ok(size @ (2048 | 4096)) => Ok(size),
                // The kernel refuses less than 2048 and more than a page (net/xdp/xdp_umem.c).
                _ => Err("must be 2048 or 4096".into()),
            })
            .unwrap_or(default.frame_size),
        huge_pages: section
            .word("huge_pages", HugePages::ALL)
            .unwrap_or(default.huge_pages),
        need_wakeup: section.boolean("need_wakeup", default.need_wakeup),
    };
    rings.frames = section.number("frames", 1..=Rings::FRAMES_MAX, rings.frames_default(batch));
    section.finish();
    rings
}

fn busy_poll(mut section: Section<'_, '_, '_>) -> BusyPoll {
    let default = BusyPoll::default();
    let busy_poll = BusyPoll {
        enabled: section.boolean("enabled", default.enabled),
        usecs: section.number("usecs", 1..=1000, default.usecs),
        budget: section.number("budget", 1..=1024, default.budget),
    };
    section.finish();
    busy_poll
}

fn workers(mut section: Section<'_, '_, '_>) -> Workers {
    const CORES: &str = "\"auto\" or a list of cores such as [1, 2]";
    let default = Workers::default();
    let cores = section.word_or_list("cores", "auto", CORES, |value| {
        number(value, &(0..=INDEX_MAX)).map(|core| core as usize)
    });
    let workers = Workers {
        cores: cores.map_or(default.cores, |list| list.map_or(Cores::Auto, Cores::List)),
        batch: section.number("batch", 1..=Workers::BATCH_MAX, default.batch),
        idle: section
            .word("idle", IdlePolicy::ALL)
            .unwrap_or(default.idle),
        spin_us: section.number("spin_us", 0..=1_000_000, default.spin_us),
        sleep_ms: section.number("sleep_ms", 1..=1000, default.sleep_ms),
        handoff_queue: section.power_of_two("handoff_queue", 64..=65_536, default.handoff_queue),
        drain_ms: section.number("drain_ms", 1..=60_000, default.drain_ms),
    };
    section.finish();
    workers
}

fn checksums(mut section: Section<'_, '_, '_>) -> Checksums {
    let default = Checksums::default();
    let checksums = Checksums {
        accept_incomplete: section.boolean("accept_incomplete", default.accept_incomplete),
    };
    section.finish();
    checksums
}

fn ip(mut section: Section<'_, '_, '_>) -> Ip {
    let default = Ip::default();
    let ip = Ip {
        ttl: section.number("ttl", 1..=255, default.ttl),
        icmp_rate_per_s: section.number("icmp_rate_per_s", 0..=1_000_000, default.icmp_rate_per_s),
        icmp_burst: section.number("icmp_burst", 1..=100_000, default.icmp_burst),
    };
    section.finish();
    ip
}

fn reassembly(mut section: Section<'_, '_, '_>) -> Reassembly {
    const MEMORY: RangeInclusive<usize> = Reassembly::MEMORY_MIN..=1 << 30;
    let default = Reassembly::default();
    let memory_bytes = section.read("memory_bytes", |value| {
        match number(value, &(0..=1 << 30)) {
            Ok(0) => Ok(0),
            Ok(bytes) if MEMORY.contains(&bytes) => Ok(bytes),
            _ => Err(format!(
                "must be 0 (off) or a number of bytes from {} to {}",
                MEMORY.start(),
                MEMORY.end()
            )),
        }
    });
    let reassembly = Reassembly {
        memory_bytes: memory_bytes.unwrap_or(default.memory_bytes),
        datagrams: section.number("datagrams", 1..=65_536, default.datagrams),
        timeout_s: section.number("timeout_s", 1..=120, default.timeout_s),
    };
    section.finish();
    reassembly
}

fn limits(mut section: Section<'_, '_, '_>) -> Limits {
    /// Records of connections: four million of 512 bytes are 2 GiB of each IP version.
    const RECORDS: RangeInclusive<u32> = 1..=1 << 22;
    /// Bytes of all connections.
    const MEMORY: RangeInclusive<u64> = 1 << 16..=1 << 36;
    /// Bytes of one connection: two full segments at least, and no more than a window can say
    /// (RFC 7323 §2.3).
    const BUFFER: RangeInclusive<u32> = 4096..=1 << 30;
    let default = Limits::default();
    let limits = Limits {
        neighbors: section.number("neighbors", 16..=65_536, default.neighbors),
        routes: section.number("routes", 16..=65_536, default.routes),
        udp_sockets: section.number("udp_sockets", 1..=65_534, default.udp_sockets),
        udp_queue: section.number("udp_queue", 1..=65_536, default.udp_queue),
        egress_queue: section.number("egress_queue", 64..=65_536, default.egress_queue),
        tcp_listeners: section.number("tcp_listeners", 1..=65_534, default.tcp_listeners),
        tcp_connections: section.number("tcp_connections", RECORDS, default.tcp_connections),
        tcp_half_open: section.number("tcp_half_open", 1..=1 << 20, default.tcp_half_open),
        tcp_time_wait: section.number("tcp_time_wait", RECORDS, default.tcp_time_wait),
        tcp_send_memory: section.number("tcp_send_memory", MEMORY, default.tcp_send_memory),
        tcp_receive_memory: section.number(
            "tcp_receive_memory",
            MEMORY,
            default.tcp_receive_memory,
        ),
        tcp_transmissions: section.number(
            "tcp_transmissions",
            64..=1 << 24,
            default.tcp_transmissions,
        ),
        tcp_out_of_order: section.number(
            "tcp_out_of_order",
            16..=1 << 20,
            default.tcp_out_of_order,
        ),
        tcp_send_buffer: section.number("tcp_send_buffer", BUFFER, default.tcp_send_buffer),
        tcp_receive_buffer: section.number(
            "tcp_receive_buffer",
            BUFFER,
            default.tcp_receive_buffer,
        ),
        tcp_receive_buffer_max: section.number(
            "tcp_receive_buffer_max",
            BUFFER,
            default.tcp_receive_buffer_max,
        ),
    };
    section.finish();
    limits
}

fn steering(mut section: Section<'_, '_, '_>) -> Steering {
    const DENY: &str = "a list of ports such as [\"tcp/22\", \"udp/53@192.0.2.1\"]";
    const ENTRY: &str = "a port such as \"tcp/22\" or \"udp/53@192.0.2.1\"";
    let deny = section.list("deny", DENY, |value| string(value, ENTRY, str::parse));
    section.finish();
    deny.map_or_else(Steering::default, |deny| Steering { deny })
}

fn latency(mut section: Section<'_, '_, '_>) -> Latency {
    const DIRECTORY: &str = "a directory, or \"\" to write no files";
    let default = Latency::default();
    let directory = section.read("directory", |value| {
        string(value, DIRECTORY, |text| match text {
            "" => Ok(None),
            text if text.contains('\0') => Err(format!("must be {DIRECTORY}, without NUL")),
            text => Ok(Some(text.into())),
        })
    });
    let latency = Latency {
        enabled: section.boolean("enabled", default.enabled),
        directory: directory.unwrap_or(default.directory),
        significant_digits: section.number("significant_digits", 2..=3, default.significant_digits),
    };
    section.finish();
    latency
}

fn control(mut section: Section<'_, '_, '_>) -> Control {
    const SOCKET: &str = "the absolute path of a Unix socket";
    const METRICS: &str = "an address and port such as \"127.0.0.1:9464\", or \"\" for no metrics";
    const LOG: &str = "a level (off, error, warn, info, debug, trace), or several target=level \
                       separated by commas";
    let default = Control::default();
    let socket = section.read("socket", |value| {
        string(value, SOCKET, |path| {
            let valid = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
            if valid && path.len() <= SOCKET_PATH_LEN_MAX {
                Ok(path.into())
            } else {
                Err(format!(
                    "must be {SOCKET}, at most {SOCKET_PATH_LEN_MAX} bytes long"
                ))
            }
        })
    });
    let metrics = section.read("metrics", |value| {
        string(value, METRICS, |text| {
            match (text, text.parse::<SocketAddr>()) {
                ("", _) => Ok(None),
                (_, Ok(address)) if address.port() != 0 => Ok(Some(address)),
                _ => Err(format!("must be {METRICS}")),
            }
        })
    });
    let log = section.read("log", |value| {
        string(value, LOG, |text| {
            if text.split(',').all(is_log_directive) {
                Ok(text.to_owned())
            } else {
                Err(format!("must be {LOG}"))
            }
        })
    });
    section.finish();
    Control {
        socket: socket.unwrap_or(default.socket),
        metrics: metrics.unwrap_or(default.metrics),
        log: log.unwrap_or(default.log),
    }
}

/// `info` or `dataplane::driver=debug`.
fn is_log_directive(directive: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let (target, level) = directive.rsplit_once('=').unwrap_or(("any", directive));
    let is_target = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-');
    !target.is_empty() && target.bytes().all(is_target) && LEVELS.contains(&level)
}

fn services<'t>(document: &mut Document<'t>, tree: &DeTable<'t>) -> Vec<Service> {
    let count = document.count(tree, "service");
    if count > SERVICES_MAX {
        let message = format!("{count} services: must be at most {SERVICES_MAX}");
        document
            .findings
            .add(&document.source, "service", "", message);
    }
    // Indices in errors are those of the file, so a wrong service keeps its place.
    (0..count.min(SERVICES_MAX))
        .map(|index| service(document.element(tree, "service", index)))
        .collect()
}

/// One `[[service]]`. What is required and missing or wrong is a finding, and stands in the result
/// as something the relations do not look at.
fn service(mut section: Section<'_, '_, '_>) -> Service {
    const NAME: &str = "1 to 63 letters, digits, \"-\", \"_\" and \".\"";
    const LISTEN: &str = "a list of addresses and ports such as [\"[::]:7\"]";
    const ADDRESS: &str = "an address and port such as \"0.0.0.0:7\" or \"[::]:7\"";
    const CONNECT: &str = "a list of addresses and ports such as [\"192.0.2.1:7\"]";
    const HOST: &str = "an address and port such as \"192.0.2.1:7\" or \"[2001:db8::1]:7\"";
    const OWN: &str = "a list of addresses such as [\"192.0.2.50/24\", \"2001:db8::50/64\"]";
    const CIDR: &str = "an address with its prefix length, such as \"192.0.2.50/24\"";
    const WORKERS: &str = "\"all\" or a list of worker indices such as [0, 1]";
    section.require("name", NAME);
    let name = section.read("name", |value| {
        string(value, NAME, |name| {
            let is_part = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
            if (1..=63).contains(&name.len()) && name.bytes().all(is_part) {
                Ok(name.to_owned())
            } else {
                Err(format!("must be {NAME}"))
            }
        })
    });
    section.require("application", &words(Application::ALL));
    let application = section.word("application", Application::ALL);
    section.require("protocol", &words(Protocol::ALL));
    let protocol = section.word("protocol", Protocol::ALL);
    if !section.has("connect") {
        section.require("listen", LISTEN);
    }
    let listen = section.list("listen", LISTEN, |value| {
        string(value, ADDRESS, listen_address)
    });
    let connect = section.list("connect", CONNECT, |value| {
        string(value, HOST, connect_address)
    });
    let connections = section.number("connections", 1..=65_535, Service::CONNECTIONS);
    let v6only = section.boolean("v6only", false);
    let own: Option<Vec<Cidr>> = section.list("own_addresses", OWN, |value| {
        string(value, CIDR, own_address)
    });
    let workers = section.word_or_list("workers", "all", WORKERS, |value: &DeValue<'_>| {
        number(value, &(0..=INDEX_MAX)).map(|index| index as usize)
    });
    let congestion = section.word("congestion", Congestion::ALL);
    let nodelay = section.boolean("nodelay", Service::NODELAY);
    let backlog = section.number("backlog", 1..=65_535, Service::BACKLOG);
    section.finish();
    Service {
        name: name.unwrap_or_default(),
        application: application.unwrap_or(Application::Echo),
        protocol: protocol.unwrap_or(Protocol::Udp),
        listen: listen.unwrap_or_default(),
        connect: connect.unwrap_or_default(),
        connections,
        v6only,
        own_addresses: own.unwrap_or_default(),
        workers: workers
            .flatten()
            .map_or(ServiceWorkers::All, ServiceWorkers::List),
        congestion: congestion.unwrap_or(Congestion::Cubic),
        nodelay,
        backlog,
    }
}

/// `"echo", "discard"`: what a required word may be.
fn words<T>(words: &[(&'static str, T)]) -> String {
    let list: Vec<_> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    list.join(" or ")
}
