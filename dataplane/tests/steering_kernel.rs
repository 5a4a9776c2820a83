//! The program in the kernel decides as the pure function does: BPF_PROG_TEST_RUN over the corpus and
//! over mutations of it. Needs root; skipped by name without.
#![allow(unsafe_code)] // BPF_PROG_TEST_RUN takes pointers to a packet and to where it goes.

#[path = "../../ebpf/steer/tests/common/mod.rs"]
mod common;

use common::corpus::corpus;
use dataplane::steering::{
    Capacity, DenyRule, ExactRule, PortRule, Prefix, ProgramCost, Protocol, RuleSet, RunStats,
    Scope, Steering, SteeringConfig, SteeringError, Verdict, VerdictCounts,
};
use libbpf_rs::libbpf_sys::{
    bpf_map_freeze, bpf_map_get_fd_by_id, bpf_map_get_info_by_fd, bpf_map_get_next_key,
    bpf_map_info, bpf_prog_get_info_by_fd, bpf_prog_info, bpf_prog_test_run_opts,
    bpf_test_run_opts,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use steer::memory::MemoryTables;
use steer::tables::{LocalKey, flag, vlan_stack};
use steer::{stamp, steer};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The kernel takes no shorter packets for a test run: an Ethernet header.
const TEST_RUN_LEN_MIN: usize = 14;

macro_rules! need_root {
    ($name:literal) => {
        if let Err(error) = dataplane::steering::preflight::check() {
            println!("skipped: {}: needs root (CAP_BPF): {error}", $name);
            return;
        }
    };
}

/// The tables of the corpus, as the control plane would say them.
fn rules(tables: &MemoryTables) -> RuleSet {
    let protocol = |number: u32| match number {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        other => panic!("the corpus has no rules for protocol {other}"),
    };
    let port = |port: u32| u16::try_from(port).expect("it is a port");
    let any = |key: &LocalKey| key.address == key.address.any();
    RuleSet {
        deny: tables
            .deny
            .iter()
            .map(|key| DenyRule {
                protocol: (key.protocol != 0)
                    .then(|| u8::try_from(key.protocol).expect("it is a protocol")),
                address: (!any(key)).then(|| key.address.into()),
                port: (key.port != 0).then(|| port(key.port)),
            })
            .collect(),
        exact: tables
            .exact
            .iter()
            .map(|key| ExactRule {
                protocol: protocol(key.protocol),
                local: SocketAddr::new(key.local.into(), key.local_port),
                remote: SocketAddr::new(key.remote.into(), key.remote_port),
            })
            .collect(),
        ports: tables
            .ports
            .iter()
            .map(|key| PortRule {
                protocol: protocol(key.protocol),
                scope: match key.address.into() {
                    _ if !any(key) => Scope::Address(key.address.into()),
                    IpAddr::V4(_) => Scope::AnyV4,
                    IpAddr::V6(_) => Scope::AnyV6,
                },
                port: port(key.port),
            })
            .collect(),
        prefixes: tables
            .prefixes
            .iter()
            .map(|(address, len)| {
                let address: IpAddr = (*address).into();
                let len = if address.is_ipv4() { len - 96 } else { *len };
                Prefix {
                    address,
                    len: u8::try_from(len).expect("at most 128"),
                }
            })
            .collect(),
    }
}

fn locals(tables: &MemoryTables) -> Vec<IpAddr> {
    tables
        .locals
        .iter()
        .map(|address| (*address).into())
        .collect()
}

/// Runs the program `count` times over a packet that it passes.
fn test_run_repeated(program: &OwnedFd, frame: &[u8], count: i32) {
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as _,
        data_in: frame.as_ptr().cast(),
        data_size_in: u32::try_from(frame.len()).expect("it is a packet"),
        repeat: count,
        ..bpf_test_run_opts::default()
    };
    // SAFETY: `options` and the packet live until the call returns, and their sizes are given.
    let status = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    assert_eq!(status, 0, "a test run");
}

/// The program with the tables of the corpus, and a socket in the slot of queue 0, on which test runs
/// receive.
struct Kernel {
    steering: Steering,
    program: OwnedFd,
    counts: VerdictCounts,
    _socket: OwnedFd,
}

impl Kernel {
    fn new(vlan: &[u16], tables: &MemoryTables) -> Self {
        let config = SteeringConfig {
            vlan: vlan.to_vec(),
            ..SteeringConfig::default()
        };
        let mut steering = Steering::load(&config).expect("root can load it");
        steering.set_mac(common::MAC).expect("it can be told");
        steering.set_locals(&locals(tables)).expect("there is room");
        steering.set_rules(&rules(tables)).expect("there is room");
        steering.set_enabled(true).expect("it can be switched on");
        // A slot takes any AF_XDP socket, bound or not.
        let socket = socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("root can have an AF_XDP socket");
        steering
            .register_socket(0, socket.as_fd())
            .expect("there is a slot");
        let program = steering.program_fd().expect("it is loaded");
        let counts = steering.counters().expect("they can be read");
        Self {
            steering,
            program,
            counts,
            _socket: socket,
        }
    }

    /// What the program returns for a packet, and the packet as it leaves, with its metadata.
    fn test_run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0_u8; frame.len() + 256];
        let mut options = bpf_test_run_opts {
            sz: size_of::<bpf_test_run_opts>() as _,
            data_in: frame.as_ptr().cast(),
            data_size_in: u32::try_from(frame.len()).expect("it is a packet"),
            data_out: out.as_mut_ptr().cast(),
            data_size_out: u32::try_from(out.len()).expect("it is a packet"),
            repeat: 1,
            ..bpf_test_run_opts::default()
        };
        // SAFETY: `options` and the buffers it points to live until the call returns, and their sizes
        // are given.
        let status = unsafe { bpf_prog_test_run_opts(self.program.as_raw_fd(), &mut options) };
        assert_eq!(status, 0, "a test run of {} bytes", frame.len());
        out.truncate(options.data_size_out as usize);
        (options.retval, out)
    }

    /// The verdict counted for a packet, after checking that what the program returned and did to the
    /// packet agrees with it.
    fn verdict(&mut self, frame: &[u8]) -> Verdict {
        let (action, out) = self.test_run(frame);
        let before = self.counts;
        self.counts = self.steering.counters().expect("they can be read");
        let mut counted = Vec::new();
        for (verdict, count) in self.counts.iter() {
            counted.extend((before.get(verdict)..count).map(|_| verdict));
        }
        let [verdict] = counted[..] else {
            panic!("one packet, one count, but {counted:?}");
        };
        let expected = if verdict.redirects() {
            XDP_REDIRECT
        } else {
            XDP_PASS
        };
        assert_eq!(action, expected, "{verdict:?}");
        let headroom = out.len() - frame.len();
        assert_eq!(out[headroom..], *frame, "the packet itself is not touched");
        assert_eq!(
            headroom,
            if verdict.redirects() {
                stamp::STAMP_LEN_BYTES
            } else {
                0
            }
        );
        verdict
    }
}

#[test]
fn the_kernel_decides_the_corpus_as_the_function_does() {
    need_root!("the_kernel_decides_the_corpus_as_the_function_does");
    let tables = common::tables();
    let mut kernel = Kernel::new(&[], &tables);
    let runnable = corpus()
        .into_iter()
        .filter(|case| case.frame.len() >= TEST_RUN_LEN_MIN);
    for case in runnable {
        assert_eq!(kernel.verdict(&case.frame), case.verdict, "{}", case.name);
    }
}

#[test]
fn truncated_packets_agree() {
    need_root!("truncated_packets_agree");
    let tables = common::tables();
    let mut kernel = Kernel::new(&[], &tables);
    for case in corpus() {
        for len in (TEST_RUN_LEN_MIN..case.frame.len()).step_by(3) {
            let frame = &case.frame[..len];
            let native = steer(frame, &tables);
            assert_eq!(kernel.verdict(frame), native, "{} cut to {len}", case.name);
        }
    }
}

#[test]
fn mutated_packets_agree() {
    need_root!("mutated_packets_agree");
    let frames: Vec<_> = corpus().into_iter().map(|case| case.frame).collect();
    // What headers are made of, so that mutations reach branches and not only random fields.
    let telling = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 17, 0x20, 43, 44, 0x45, 0x46, 0x4f, 51, 58, 60, 0x60,
        0x81, 135, 0xff,
    ];
    let mut random = Random(0x5eed_0001);
    for vlan in [&[][..], &[100], &[100, 200]] {
        let mut tables = common::tables();
        tables.config.vlan_stack = vlan_stack(vlan).expect("valid identifiers");
        let mut kernel = Kernel::new(vlan, &tables);
        for round in 0..8_000 {
            let mut frame = random.pick(&frames).clone();
            if !vlan.is_empty() && random.below(8) != 0 {
                let tags = vlan.iter().flat_map(|vid| {
                    let [high, low] = vid.to_be_bytes();
                    [0x81, 0, high, low]
                });
                frame.splice(12..12, tags);
            }
            for _ in 0..random.below(4) {
                let at = random.below(frame.len().min(90));
                frame[at] = if random.below(2) == 0 {
                    *random.pick(&telling)
                } else {
                    u8::try_from(random.below(256)).expect("below 256")
                };
            }
            if random.below(4) == 0 {
                let len = random.below(frame.len() + 1);
                frame.truncate(len.max(TEST_RUN_LEN_MIN));
            }
            let native = steer(&frame[..], &tables);
            assert_eq!(
                kernel.verdict(&frame),
                native,
                "vlan {vlan:?}, round {round}: {frame:02x?}"
            );
        }
    }
}

#[test]
fn a_redirected_packet_carries_its_arrival_time() {
    need_root!("a_redirected_packet_carries_its_arrival_time");
    let kernel = Kernel::new(&[], &common::tables());
    let case = corpus()
        .into_iter()
        .find(|case| case.name == "port, IPv4")
        .expect("it is there");
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("after boot")
    };
    let before = now();
    let (action, mut out) = kernel.test_run(&case.frame);
    let after = now();
    assert_eq!(action, XDP_REDIRECT);
    let (headroom, frame) = out.split_at_mut(stamp::STAMP_LEN_BYTES);
    assert_eq!(frame, case.frame);
    let stamp = stamp::take(headroom).expect("test runs have room for a stamp");
    assert!(
        (before..=after).contains(&stamp),
        "{before} <= {stamp} <= {after}"
    );
}

#[test]
fn without_a_worker_everything_is_the_kernels() {
    need_root!("without_a_worker_everything_is_the_kernels");
    let tables = common::tables();
    let mut kernel = Kernel::new(&[], &tables);
    kernel
        .steering
        .unregister_socket(0)
        .expect("it is registered");
    kernel
        .steering
        .unregister_socket(0)
        .expect("doing it twice does no harm");
    for case in corpus() {
        let expected = if case.verdict.redirects() {
            Verdict::PassNoWorker
        } else {
            case.verdict
        };
        assert_eq!(kernel.verdict(&case.frame), expected, "{}", case.name);
    }
}

#[test]
fn the_kill_switch_keeps_the_rules() {
    need_root!("the_kill_switch_keeps_the_rules");
    let tables = common::tables();
    let mut kernel = Kernel::new(&[], &tables);
    kernel
        .steering
        .set_enabled(false)
        .expect("it can be switched off");
    assert!(!kernel.steering.is_enabled());
    for case in corpus() {
        assert_eq!(
            kernel.verdict(&case.frame),
            Verdict::PassDisabled,
            "{}",
            case.name
        );
    }
    kernel
        .steering
        .set_enabled(true)
        .expect("it can be switched on");
    let case = corpus()
        .into_iter()
        .find(|case| case.name == "exact, IPv6")
        .expect("it is there");
    assert_eq!(kernel.verdict(&case.frame), Verdict::RedirectExact);
}

#[test]
fn rules_are_replaced_and_taken_back() {
    need_root!("rules_are_replaced_and_taken_back");
    let tables = common::tables();
    let mut kernel = Kernel::new(&[], &tables);
    let mut fewer = tables.clone();
    fewer.deny.clear();
    fewer.exact.clear();
    fewer.prefixes.clear();
    fewer.ports.retain(|key| key.address == key.address.any());
    fewer.locals.pop_first();
    fewer.sync_flags();
    let mut nothing = MemoryTables::default();
    nothing.config.mac = tables.config.mac;
    for round in [&fewer, &tables, &nothing, &fewer, &tables, &tables] {
        let mut expected = round.clone();
        expected.config.flags |= flag::ENABLED;
        kernel
            .steering
            .set_rules(&rules(round))
            .expect("there is room");
        kernel
            .steering
            .set_locals(&locals(round))
            .expect("there is room");
        for case in corpus() {
            let native = steer(&case.frame[..], &expected);
            // The kernel's table of fragments outlives a change of rules, the native one is new.
            if !case.name.contains("fragment") {
                assert_eq!(kernel.verdict(&case.frame), native, "{}", case.name);
            }
        }
    }
}

/// Rules for TCP ports on any address.
fn ports_of_any_address(ports: impl Iterator<Item = u16>) -> Vec<PortRule> {
    let rule = |port| PortRule {
        protocol: Protocol::Tcp,
        scope: Scope::AnyV4,
        port,
    };
    ports.map(rule).collect()
}

#[test]
fn a_new_port_is_never_taken_from_under_a_new_deny_entry() {
    need_root!("a_new_port_is_never_taken_from_under_a_new_deny_entry");
    let mut kernel = Kernel::new(&[], &common::tables());
    let few = RuleSet {
        ports: ports_of_any_address([9].into_iter()),
        ..RuleSet::default()
    };
    // Port 22 is added among the first, and the many others take a while.
    let many = RuleSet {
        ports: ports_of_any_address((1..1500).filter(|port| port % 3 != 0 || *port == 9)),
        deny: vec![DenyRule {
            protocol: Some(6),
            address: None,
            port: Some(22),
        }],
        ..RuleSet::default()
    };
    let denied = corpus()
        .into_iter()
        .find(|case| case.name == "denied although a port of ours")
        .expect("it is there");
    kernel.steering.set_rules(&few).expect("there is room");
    kernel.counts = kernel.steering.counters().expect("they can be read");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let program = kernel.program.try_clone().expect("there are descriptors");
        let (done, frame) = (&done, &denied.frame);
        scope.spawn(move || {
            loop {
                // Few at a time, so that the times at which they run are many.
                test_run_repeated(&program, frame, 20);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..40 {
            for rules in [&many, &few] {
                kernel.steering.set_rules(rules).expect("there is room");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let counts = kernel.steering.counters().expect("they can be read");
    let grew = |verdict| counts.get(verdict) - kernel.counts.get(verdict);
    assert_eq!(grew(Verdict::RedirectPortAny), 0);
    assert!(grew(Verdict::PassDenied) + grew(Verdict::PassUnmatched) > 0);
}

#[test]
fn rules_that_the_configuration_cannot_follow_are_taken_back() {
    need_root!("rules_that_the_configuration_cannot_follow_are_taken_back");
    let deny = |port| RuleSet {
        deny: vec![DenyRule {
            protocol: Some(6),
            address: None,
            port: Some(port),
        }],
        ..RuleSet::default()
    };
    let port = RuleSet {
        ports: ports_of_any_address([9].into_iter()),
        ..RuleSet::default()
    };
    // The one fails where deny shapes are written, the other where flags are.
    for (first, second) in [(&port, &deny(22)), (&deny(22), &port)] {
        let mut steering = Steering::load(&SteeringConfig::default()).expect("root can load it");
        steering.set_rules(first).expect("there is room");
        let maps = maps_of(&steering.program_fd().expect("it is loaded"));
        let before = [key_count(&maps["DENY"]), key_count(&maps["PORTS"])];
        // What is frozen, user space cannot write to any more.
        // SAFETY: the descriptor is open.
        let status = unsafe { bpf_map_freeze(maps["CONFIG"].as_raw_fd()) };
        assert_eq!(status, 0, "root can freeze a map");
        steering.set_rules(second).expect_err("it is frozen");
        let after = [key_count(&maps["DENY"]), key_count(&maps["PORTS"])];
        assert_eq!(before, after);
        steering.set_rules(first).expect("nothing has to change");
    }
}

/// The maps of a program by name.
fn maps_of(program: &OwnedFd) -> BTreeMap<String, OwnedFd> {
    let mut ids = [0_u32; 32];
    let mut info = bpf_prog_info {
        nr_map_ids: 32,
        map_ids: ids.as_mut_ptr() as u64,
        ..bpf_prog_info::default()
    };
    let mut len = u32::try_from(size_of::<bpf_prog_info>()).expect("it is small");
    // SAFETY: `info` and the array it points to live until the call returns, with the lengths given.
    let status = unsafe { bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut len) };
    assert_eq!(status, 0, "root can ask");
    ids[..info.nr_map_ids as usize]
        .iter()
        .map(|&id| {
            // SAFETY: no pointers; the descriptor is new, and nobody else has it.
            let map = unsafe { OwnedFd::from_raw_fd(bpf_map_get_fd_by_id(id)) };
            let mut info = bpf_map_info::default();
            let mut len = u32::try_from(size_of::<bpf_map_info>()).expect("it is small");
            // SAFETY: as above.
            let status = unsafe { bpf_map_get_info_by_fd(map.as_raw_fd(), &mut info, &mut len) };
            assert_eq!(status, 0, "root can ask");
            let name = info.name.iter().take_while(|&&byte| byte != 0);
            (
                name.map(|&byte| char::from(byte.cast_unsigned())).collect(),
                map,
            )
        })
        .collect()
}

/// How many keys a map of [`LocalKey`]s has.
fn key_count(map: &OwnedFd) -> usize {
    let mut key = [0_u8; size_of::<LocalKey>()];
    let mut start = std::ptr::null();
    for count in 0.. {
        // SAFETY: both keys have the size of the map's, and the first may be null.
        let status =
            unsafe { bpf_map_get_next_key(map.as_raw_fd(), start, key.as_mut_ptr().cast()) };
        if status != 0 {
            return count;
        }
        start = key.as_ptr().cast();
    }
    unreachable!("maps end")
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    need_root!("a_full_table_refuses_and_keeps_what_it_has");
    let capacity = Capacity {
        deny: 2,
        exact: 2,
        ports: 2,
        locals: 2,
        prefixes: 2,
    };
    let mut steering = Steering::load(&SteeringConfig {
        capacity,
        ..SteeringConfig::default()
    })
    .expect("root can load it");
    let port = |port| PortRule {
        protocol: Protocol::Udp,
        scope: Scope::AnyV4,
        port,
    };
    let prefix = |text: &str, len| Prefix {
        address: text.parse().expect("an address"),
        len,
    };
    let set = |ports: &[u16], prefixes: &[Prefix]| RuleSet {
        ports: ports.iter().map(|&number| port(number)).collect(),
        prefixes: prefixes.to_vec(),
        ..RuleSet::default()
    };
    let here = prefix("10.0.0.0", 8);
    steering
        .set_rules(&set(&[1, 2], &[here]))
        .expect("there is room");

    let error = steering
        .set_rules(&set(&[1, 2, 3], &[here]))
        .expect_err("three in a table of two");
    assert!(
        matches!(
            error,
            SteeringError::TableFull {
                table: "PORTS",
                capacity: 2
            }
        ),
        "{error}"
    );
    // Two would fit, but not beside the two that stay until the new ones are there.
    let error = steering
        .set_rules(&set(&[3, 4], &[]))
        .expect_err("additions come first");
    assert!(
        matches!(error, SteeringError::TableFull { table: "PORTS", .. }),
        "{error}"
    );
    let many = [prefix("10.0.0.0", 9), prefix("10.128.0.0", 9)];
    let error = steering
        .set_rules(&set(&[1, 2], &many))
        .expect_err("additions come first");
    assert!(
        matches!(
            error,
            SteeringError::TableFull {
                table: "PREFIXES",
                ..
            }
        ),
        "{error}"
    );
    let locals = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| text.parse().expect("an address"));
    let error = steering
        .set_locals(&locals)
        .expect_err("three in a table of two");
    assert!(
        matches!(
            error,
            SteeringError::TableFull {
                table: "LOCALS",
                ..
            }
        ),
        "{error}"
    );

    // The old rules are still there, so that this changes nothing and needs no room.
    steering
        .set_rules(&set(&[2, 1], &[prefix("10.7.7.7", 8)]))
        .expect("the same rules");
}

#[test]
fn misuse_is_an_error() {
    need_root!("misuse_is_an_error");
    let bad = SteeringConfig {
        vlan: vec![4095],
        ..SteeringConfig::default()
    };
    let error = Steering::load(&bad).expect_err("no VLAN identifier");
    assert!(error.to_string().contains("1 to 4094"), "{error}");
    let mut steering = Steering::load(&SteeringConfig::default()).expect("root can load it");
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("anybody can have one");
    let error = steering
        .register_socket(256, socket.as_fd())
        .expect_err("no such slot");
    assert!(
        matches!(error, SteeringError::Queue { queue: 256 }),
        "{error}"
    );
    steering
        .register_socket(0, socket.as_fd())
        .expect_err("not an AF_XDP socket");
}

#[test]
fn the_cost_of_a_packet_is_known() {
    need_root!("the_cost_of_a_packet_is_known");
    let mut kernel = Kernel::new(&[], &common::tables());
    let id = kernel.steering.program_id().expect("it is loaded");
    let stats = RunStats::enable().expect("root can measure");
    let before = ProgramCost::of(id).expect("it is loaded");
    let case = corpus()
        .into_iter()
        .find(|case| case.name == "port, IPv4")
        .expect("it is there");
    for _ in 0..100 {
        kernel.test_run(&case.frame);
    }
    drop(stats);
    let cost = ProgramCost::of(id).expect("it is loaded").since(before);
    assert_eq!(cost.runs, 100);
    assert!(cost.ns_per_packet().expect("it ran") > 0.0);
    ProgramCost::of(u32::MAX).expect_err("no such program");
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same packets in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).expect("below a usize")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
