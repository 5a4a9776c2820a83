//! The program on real interfaces: veth pairs and loopback in network namespaces of their own, each of
//! which vanishes with its test. Needs root; skipped by name without.
#![allow(unsafe_code)] // raw BPF calls to make a program that is not ours.

#[path = "../../ebpf/steer/tests/common/mod.rs"]
mod common;
mod namespace;

use common::corpus::corpus;
use dataplane::steering::attached::{self, AttachedMode};
use dataplane::steering::{
    AttachMode, PortRule, Protocol, RuleSet, RunStats, Scope, Steering, SteeringConfig,
    SteeringError, Verdict,
};
use libbpf_rs::{Xdp, XdpFlags, libbpf_sys};
use namespace::{Namespace, ip};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, socket_with,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};
use steer::steer;

macro_rules! need_root {
    ($name:literal) => {
        if let Err(error) = dataplane::steering::preflight::check() {
            println!(
                "skipped: {}: needs root (CAP_BPF, CAP_NET_ADMIN): {error}",
                $name
            );
            return;
        }
    };
}

/// Runs `test` on a thread with a network namespace of its own.
fn in_namespace(test: impl FnOnce() + Send) {
    Namespace::new()
        .expect("root may make network namespaces")
        .run(test);
}

/// A pair of interfaces `near` and `far` that say nothing by themselves.
fn veth() {
    ip("link add near type veth peer name far");
    for end in ["near", "far"] {
        ip(&format!("link set {end} addrgenmode none"));
        ip(&format!("link set {end} up"));
    }
}

fn load() -> Steering {
    Steering::load(&SteeringConfig::default()).expect("root can load it")
}

fn query(interface: &str) -> Option<attached::Attached> {
    let index = attached::interface_index(interface).expect("it exists");
    attached::query(index).expect("the kernel answers")
}

/// Waits for a condition that the kernel brings about in its own time.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_is_attached_in_the_mode_asked_for() {
    need_root!("it_is_attached_in_the_mode_asked_for");
    in_namespace(|| {
        veth();
        let mut steering = load();
        for (mode, expected) in [
            (AttachMode::Native, AttachedMode::Native),
            (AttachMode::Generic, AttachedMode::Generic),
        ] {
            assert_eq!(query("near"), None);
            steering.attach("near", mode).expect("veth has both modes");
            let attached = query("near").expect("it is attached");
            assert_eq!(attached.mode, expected);
            assert_eq!(attached.name, "dataplane_steer");
            assert!(attached.is_ours());
            assert_eq!(
                attached.program_id,
                steering.program_id().expect("it is loaded")
            );
            let error = steering
                .attach("far", mode)
                .expect_err("one interface each");
            assert!(matches!(error, SteeringError::AlreadyAttached), "{error}");
            steering.detach();
            eventually("it is detached", || query("near").is_none());
        }
        steering
            .attach("near", AttachMode::Native)
            .expect("it is free again");
        drop(steering);
        eventually("dropping detaches", || query("near").is_none());
    });
}

#[test]
fn a_driver_without_native_xdp_is_named() {
    need_root!("a_driver_without_native_xdp_is_named");
    in_namespace(|| {
        // The loopback driver has no native XDP.
        let mut steering = load();
        let error = steering
            .attach("lo", AttachMode::Native)
            .expect_err("it has none");
        assert!(
            matches!(error, SteeringError::NoNativeXdp { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("\"generic\""), "{error}");
        assert_eq!(query("lo"), None, "there is no silent fallback");
        steering
            .attach("lo", AttachMode::Generic)
            .expect("every interface has this");
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    need_root!("an_interface_that_is_not_there_is_named");
    in_namespace(|| {
        let mut steering = load();
        for name in ["nowhere", "", "a-name-that-is-far-too-long"] {
            let error = steering
                .attach(name, AttachMode::Generic)
                .expect_err("it does not exist");
            assert!(
                matches!(error, SteeringError::NoSuchInterface { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
    });
}

#[test]
fn an_mtu_that_native_xdp_cannot_have_is_explained() {
    need_root!("an_mtu_that_native_xdp_cannot_have_is_explained");
    in_namespace(|| {
        veth();
        ip("link set far mtu 9000");
        ip("link set near mtu 9000");
        let error = load()
            .attach("near", AttachMode::Native)
            .expect_err("veth refuses");
        assert!(
            matches!(error, SteeringError::InterfaceSettings { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("MTU"), "{error}");
    });
}

/// A program that passes everything, named "somebody_elses".
fn foreign_program() -> OwnedFd {
    // r0 = XDP_PASS; exit
    let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
    // SAFETY: the strings end in zero, and there are as many instructions as said.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_XDP,
            c"somebody_elses".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr().cast(),
            instructions.len() as _,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "root can load a program");
    // SAFETY: the kernel has just opened it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    need_root!("a_foreign_program_is_named_and_left_alone");
    in_namespace(|| {
        veth();
        let foreign = foreign_program();
        let index = attached::interface_index("near").expect("it exists");
        let index = i32::try_from(index).expect("it is small");
        let modes = [AttachMode::Native, AttachMode::Generic];
        for (flags, word) in [
            (XdpFlags::DRV_MODE, "xdpdrv"),
            (XdpFlags::SKB_MODE, "xdpgeneric"),
        ] {
            let xdp = Xdp::new(foreign.as_fd());
            xdp.attach(index, flags).expect("nothing is attached");
            for mode in modes {
                let error = load().attach("near", mode).expect_err("it is taken");
                assert!(matches!(error, SteeringError::Foreign { .. }), "{error}");
                let text = error.to_string();
                assert!(
                    text.contains("somebody_elses") && text.contains(word),
                    "{text}"
                );
            }
            assert_eq!(
                query("near").expect("it is left alone").name,
                "somebody_elses"
            );
            // The command the sentence recommends works.
            ip(&format!("link set dev near {word} off"));
            assert_eq!(query("near"), None);
        }
        let mut first = load();
        first
            .attach("near", AttachMode::Native)
            .expect("it is free");
        let error = load()
            .attach("near", AttachMode::Native)
            .expect_err("it is taken");
        assert!(error.to_string().contains("dataplane_steer"), "{error}");
    });
}

#[test]
fn packets_on_a_wire_get_their_verdicts_and_reach_the_kernel() {
    need_root!("packets_on_a_wire_get_their_verdicts_and_reach_the_kernel");
    for mode in [AttachMode::Native, AttachMode::Generic] {
        in_namespace(move || {
            veth();
            let tables = common::tables();
            let mut steering = load();
            let port = |scope| PortRule {
                protocol: Protocol::Udp,
                scope,
                port: 7,
            };
            let host = "10.0.0.1".parse().expect("an address");
            steering.set_mac(common::MAC).expect("it can be told");
            steering.set_locals(&[host]).expect("there is room");
            let host = Scope::Address(host);
            steering
                .set_rules(&RuleSet {
                    ports: vec![port(host)],
                    ..RuleSet::default()
                })
                .expect("there is room");
            steering.set_enabled(true).expect("it can be switched on");
            let _stats = RunStats::enable().expect("root can measure");
            steering.attach("near", mode).expect("veth has both modes");

            let mut expected = tables.clone();
            expected.deny.clear();
            expected.exact.clear();
            expected.prefixes.clear();
            expected
                .ports
                .retain(|key| key.port == 7 && key.address == common::address("10.0.0.1"));
            expected.sync_flags();

            // Every packet the kernel gets on `near` is seen here.
            let kernel = packet_socket("near");
            let wire = packet_socket("far");
            // Tags would be taken off by the sender's kernel, and short frames padded by nobody.
            let frames = corpus().into_iter().map(|case| case.frame);
            let frames: Vec<_> = frames
                .filter(|frame| {
                    frame.len() > 14 && frame[12..14] != [0x81, 0] && frame[12..14] != [0x88, 0xa8]
                })
                .collect();
            let mut ours = 0;
            for frame in &frames {
                ours += u64::from(steer(&frame[..], &expected).redirects());
                rustix::net::send(&wire, frame, SendFlags::empty()).expect("the link is up");
            }
            assert!(ours > 5 && ours < frames.len() as u64 / 2);
            let total = frames.len() as u64;
            eventually("all packets are counted", || {
                let counts = steering.counters().expect("they can be read");
                counts.iter().map(|(_, count)| count).sum::<u64>() >= total
            });
            let counts = steering.counters().expect("they can be read");
            // No worker is there, so the kernel gets ours, too.
            assert_eq!(counts.get(Verdict::PassNoWorker), ours, "{mode:?}");
            let mut seen = 0;
            let mut buffer = [0_u8; 2048];
            eventually("the kernel gets every packet", || {
                while rustix::net::recv(&kernel, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {
                    seen += 1;
                }
                seen >= total
            });
            let id = steering.program_id().expect("it is loaded");
            let cost = dataplane::steering::ProgramCost::of(id).expect("it is loaded");
            assert!(cost.runs >= total, "{cost:?}");
        });
    }
}

/// A socket that sends and receives whole frames on an interface.
fn packet_socket(interface: &str) -> OwnedFd {
    const ETH_P_ALL: u16 = 3;
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("root can have one");
    let index = netdevice::name_to_index(&socket, interface).expect("it exists");
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("it is small");
    address.sll_protocol = ETH_P_ALL.to_be();
    address.sll_ifindex = i32::try_from(index).expect("it is small");
    // SAFETY: the address is a sockaddr_ll of the size given.
    let status = unsafe {
        libc::bind(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            (&raw const address).cast(),
            libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("it is small"),
        )
    };
    assert_eq!(status, 0, "bind to {interface}");
    socket
}

/// Set in the child of [`kill_9_leaves_nothing_attached`].
const CHILD: &str = "STEERING_TEST_CHILD";

#[test]
fn kill_9_leaves_nothing_attached() {
    need_root!("kill_9_leaves_nothing_attached");
    if env::var_os(CHILD).is_some() {
        let mut steering = load();
        steering
            .attach("near", AttachMode::Native)
            .expect("it is free");
        println!("\nattached");
        thread::sleep(Duration::from_secs(60));
        return;
    }
    in_namespace(|| {
        veth();
        let mut child = Command::new(env::current_exe().expect("it is running"))
            .args(["--exact", "--nocapture", "kill_9_leaves_nothing_attached"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can run again");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let attached = output
            .lines()
            .map_while(Result::ok)
            .any(|line| line == "attached");
        let while_alive = query("near");
        child.kill().expect("it is ours to kill");
        let status = child.wait().expect("it is ours to wait for");
        assert!(attached, "the child said what it did");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGKILL)
        );
        assert_eq!(
            while_alive.expect("it was attached").name,
            "dataplane_steer"
        );
        eventually("the interface is the kernel's again", || {
            query("near").is_none()
        });
    });
}

#[test]
fn three_capabilities_are_enough_and_without_them_they_are_named() {
    need_root!("three_capabilities_are_enough_and_without_them_they_are_named");
    in_namespace(|| {
        veth();
        // Capabilities are a thread's own, and this thread ends with the test.
        let all = capabilities(None).expect("everybody may ask");
        let keep = |effective| {
            set_capabilities(None, CapabilitySets { effective, ..all }).expect("fewer are allowed");
        };
        let three = CapabilitySet::NET_ADMIN | CapabilitySet::BPF | CapabilitySet::PERFMON;
        keep(three);
        let mut steering = load();
        steering
            .attach("near", AttachMode::Native)
            .expect("CAP_NET_ADMIN allows it");
        let error = RunStats::enable().expect_err("it takes CAP_SYS_ADMIN");
        assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");

        keep(CapabilitySet::NET_RAW);
        let error = Steering::load(&SteeringConfig::default()).expect_err("none of them is there");
        let text = error.to_string();
        for name in ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"] {
            assert!(text.contains(name), "{text}");
        }
        assert!(!text.contains('\n'), "{text}");
        keep(all.effective);
        assert!(
            query("near").is_some(),
            "what is there already is not harmed"
        );
    });
}
