//! What the driver tests need of the kernel: a network namespace of their own, a veth pair in it, a
//! packet socket on its far end, and an XDP program that redirects everything.
#![allow(unsafe_code)] // bpf(2) and packet sockets have no safe form here.
#![allow(dead_code)]
// Each test binary uses its own part.
// The kernel's structures are full of descriptors and lengths of other widths than Rust's.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap
)]

#[path = "../namespace/mod.rs"]
pub(crate) mod namespace;

pub(crate) use namespace::ip;

use namespace::Namespace;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ffi::c_int;
use std::io;
use std::mem::size_of;
use std::process::Command;
use std::time::{Duration, Instant};

/// The interface under test, and the far end of its cable.
pub(crate) const DEVICE: &str = "dut0";
pub(crate) const PEER: &str = "peer0";

/// Runs `test` on a thread in a network namespace of its own, which vanishes with it. Says so by
/// name and does nothing where the privileges, or `ip`, are missing.
pub(crate) fn in_namespace(name: &str, test: impl FnOnce() + Send) {
    if !is_root() {
        println!("skipped: {name}: needs root (CAP_NET_RAW)");
        return;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        println!("skipped: {name}: needs ip (package iproute2)");
        return;
    }
    let namespace = Namespace::new().expect("root may make network namespaces");
    // Keeps the kernel from sending packets of its own (DAD, MLD) among ours.
    for which in ["all", "default"] {
        namespace.sysctl(&format!("ipv6/conf/{which}/disable_ipv6"), "1");
    }
    namespace.run(test);
}

fn is_root() -> bool {
    // SAFETY: reads a number.
    unsafe { libc::geteuid() == 0 }
}

/// A veth pair of `queues` queues on each end, up.
pub(crate) fn veth(queues: u32) {
    ip(&format!(
        "link add {DEVICE} numrxqueues {queues} numtxqueues {queues} \
         type veth peer name {PEER} numrxqueues {queues} numtxqueues {queues}"
    ));
    ip(&format!("link set {PEER} up"));
    ip(&format!("link set {DEVICE} up"));
}

pub(crate) fn index_of(interface: &str) -> u32 {
    let name = std::ffi::CString::new(interface).expect("no zero in it");
    // SAFETY: a terminated string, alive for the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{interface}: {}", io::Error::last_os_error());
    index
}

/// An Ethernet frame with a UDP datagram in it, of `flow` (its ports) and with `number` in its
/// payload. Different flows take different queues of a veth.
pub(crate) fn packet(flow: u16, number: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(64);
    packet.extend([0x02, 0, 0, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0x02, 0x08, 0x00]);
    packet.extend([0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend([10, 0, 0, 2, 10, 0, 0, 1]);
    packet.extend((1024 + flow).to_be_bytes());
    packet.extend(7u16.to_be_bytes());
    packet.extend([0, 30, 0, 0]);
    packet.extend(number.to_be_bytes());
    packet.resize(64, 0);
    packet
}

/// The number in a frame that [`packet`] made.
pub(crate) fn number_in(packet: &[u8]) -> Option<u32> {
    (packet.len() == 64 && packet[12..14] == [0x08, 0x00])
        .then(|| u32::from_be_bytes(packet[42..46].try_into().expect("four bytes")))
}

/// A raw packet socket on one interface.
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    pub(crate) fn open(interface: &str) -> Self {
        const PACKET_IGNORE_OUTGOING: c_int = 23;
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: makes a socket.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                i32::from(all),
            )
        };
        assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: just made, and ours.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // Nothing of a whole test may be dropped here.
        set_int(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20);
        set_int(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 64 << 20);
        set_int(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
        set_int(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1);
        // SAFETY: integers; zeros are a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = index_of(interface) as i32;
        // SAFETY: a live address of that length.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(result, 0, "bind: {}", io::Error::last_os_error());
        Self(socket)
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(error) = rustix::net::send(&self.0, packet, rustix::net::SendFlags::empty()) {
            assert!(Instant::now() < deadline, "send: {error}");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The next packet as it was on the wire, if there is one already.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = [0u8; 4096];
        let mut control = [0u64; 16];
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: pointers and integers; zeros are a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: all that the message points at is alive and as long as it says.
        let len = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        let mut packet = buffer[..usize::try_from(len).ok()?].to_vec();
        // SAFETY: the kernel has filled in the message.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: null, or a header within `control`; PACKET_AUXDATA is all we asked for, and is
        // whole.
        let told = (!header.is_null()).then(|| unsafe {
            libc::CMSG_DATA(header)
                .cast::<libc::tpacket_auxdata>()
                .read_unaligned()
        });
        // The kernel takes the outer tag out before packet sockets see the packet
        // (`skb_vlan_untag`), and tells of it beside (packet(7)).
        if let Some(told) = told.filter(|told| told.tp_status & libc::TP_STATUS_VLAN_VALID != 0) {
            let tag = [
                told.tp_vlan_tpid.to_be_bytes(),
                told.tp_vlan_tci.to_be_bytes(),
            ];
            packet.splice(12..12, tag.concat());
        }
        Some(packet)
    }
}

fn set_int(socket: &OwnedFd, level: c_int, option: c_int, value: c_int) {
    // SAFETY: reads one int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<c_int>() as u32,
        )
    };
    assert_eq!(
        result,
        0,
        "setsockopt {option}: {}",
        io::Error::last_os_error()
    );
}

/// Goes on until `done` says so, for ten seconds at most. The bound is generous: nothing here
/// measures time.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::yield_now();
    }
}

/// Nanoseconds of the clock that the XDP program stamps with.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).expect("positive") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("positive")
}

/// An XDP program, attached, that stamps every packet and redirects it to the AF_XDP socket of its
/// queue. It is detached when this is dropped.
pub(crate) struct Redirect {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

/// Where the program runs: `XDP_FLAGS_SKB_MODE`, `XDP_FLAGS_DRV_MODE`.
pub(crate) const IN_STACK: u32 = 1 << 1;
pub(crate) const IN_DRIVER: u32 = 1 << 2;

/// One BPF instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Insn {
    Insn {
        code,
        registers: to | from << 4,
        offset,
        immediate,
    }
}

/// Both halves of a 64-bit load. `from` 1 makes the value a map.
fn load64(to: u8, from: u8, value: u64) -> [Insn; 2] {
    [
        insn(0x18, to, from, 0, value as u32 as i32),
        insn(0, 0, 0, 0, (value >> 32) as u32 as i32),
    ]
}

impl Redirect {
    pub(crate) fn attach(interface: &str, flags: u32) -> Self {
        const BPF_MAP_CREATE: c_int = 0;
        const BPF_PROG_LOAD: c_int = 5;
        const BPF_LINK_CREATE: c_int = 28;
        const BPF_MAP_TYPE_XSKMAP: u32 = 17;
        const BPF_PROG_TYPE_XDP: u32 = 6;
        const BPF_XDP: u32 = 37;
        const ADJUST_META: i32 = 54;
        const KTIME_GET_NS: i32 = 5;
        const REDIRECT_MAP: i32 = 51;
        const XDP_PASS: i32 = 2;

        #[repr(C)]
        struct MapCreate {
            map_type: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
        }
        let map = bpf(
            BPF_MAP_CREATE,
            &MapCreate {
                map_type: BPF_MAP_TYPE_XSKMAP,
                key_size: 4,
                value_size: 4,
                max_entries: 64,
            },
        )
        .expect("an XSKMAP");

        let [magic, magic_high] = load64(5, 0, steer::stamp::STAMP_MAGIC);
        let map_fd = u64::try_from(map.as_raw_fd()).expect("a descriptor");
        let [load_map, load_map_high] = load64(1, 1, map_fd);
        let program = [
            insn(0xbf, 6, 1, 0, 0),            // r6 = context
            insn(0xb7, 2, 0, 0, -16),          // r2 = -16
            insn(0x85, 0, 0, 0, ADJUST_META),  // make room before the packet
            insn(0x55, 0, 0, 10, 0),           // none? redirect without a stamp
            insn(0x85, 0, 0, 0, KTIME_GET_NS), // r0 = now
            insn(0x61, 2, 6, 8, 0),            // r2 = start of metadata
            insn(0x61, 3, 6, 0, 0),            // r3 = start of packet
            insn(0xbf, 4, 2, 0, 0),            // r4 = r2
            insn(0x07, 4, 0, 0, 16),           // r4 += 16
            insn(0x2d, 4, 3, 4, 0),            // beyond the packet's start? (for the verifier)
            magic,                             // r5 = the magic
            magic_high,
            insn(0x7b, 2, 5, 0, 0),  // store it
            insn(0x7b, 2, 0, 8, 0),  // store now
            insn(0x61, 2, 6, 16, 0), // r2 = number of the queue
            load_map,                // r1 = map
            load_map_high,
            insn(0xb7, 3, 0, 0, XDP_PASS), // r3 = what to do if the slot is empty
            insn(0x85, 0, 0, 0, REDIRECT_MAP),
            insn(0x95, 0, 0, 0, 0),
        ];
        #[repr(C)]
        struct ProgLoad {
            prog_type: u32,
            insn_cnt: u32,
            insns: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log_buf: u64,
        }
        let mut log = vec![0u8; 64 << 10];
        let program = bpf(
            BPF_PROG_LOAD,
            &ProgLoad {
                prog_type: BPF_PROG_TYPE_XDP,
                insn_cnt: program.len() as u32,
                insns: program.as_ptr() as u64,
                license: c"Dual MIT/GPL".as_ptr() as u64,
                log_level: 1,
                log_size: log.len() as u32,
                log_buf: log.as_mut_ptr() as u64,
            },
        )
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&log)));

        #[repr(C)]
        struct LinkCreate {
            prog_fd: u32,
            target_ifindex: u32,
            attach_type: u32,
            flags: u32,
        }
        let link = bpf(
            BPF_LINK_CREATE,
            &LinkCreate {
                prog_fd: program.as_raw_fd() as u32,
                target_ifindex: index_of(interface),
                attach_type: BPF_XDP,
                flags,
            },
        )
        .expect("a link");
        Self {
            map,
            _program: program,
            _link: link,
        }
    }

    /// Puts sockets into the slots of their queues.
    pub(crate) fn register<'fd>(&self, sockets: impl Iterator<Item = (u32, BorrowedFd<'fd>)>) {
        const BPF_MAP_UPDATE_ELEM: c_int = 2;
        #[repr(C)]
        struct MapUpdate {
            map_fd: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        for (queue_id, socket) in sockets {
            let value = socket.as_raw_fd() as u32;
            let update = MapUpdate {
                map_fd: self.map.as_raw_fd() as u32,
                padding: 0,
                key: std::ptr::from_ref(&queue_id) as u64,
                value: std::ptr::from_ref(&value) as u64,
                flags: 0,
            };
            bpf_call(BPF_MAP_UPDATE_ELEM, &update).expect("a socket in the map");
        }
    }
}

fn bpf<T>(command: c_int, attributes: &T) -> io::Result<OwnedFd> {
    let fd = bpf_call(command, attributes)?;
    // SAFETY: these commands return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf_call<T>(command: c_int, attributes: &T) -> io::Result<c_int> {
    // SAFETY: the attributes are alive, as long as said, and lead to live memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as c_int)
}
