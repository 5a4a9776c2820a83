//! One AF_XDP socket: made, given its rings, filled, bound.
//!
//! ```text
//!   socket ─► XDP_UMEM_REG ─► ring sizes ─► mmap ─► fill ring full ─► bind ─► XDP_OPTIONS
//!             (first only)                                            (first: mode flags;
//!                                                                      others: XDP_SHARED_UMEM)
//! ```
//!
//! The order is the kernel's (`net/xdp/xsk.c`), except that filling could also come after the bind;
//! but a zero-copy bind hands the NIC its first buffers, and several drivers fail when there are
//! none.
#![allow(unsafe_code)] // mmap of the rings, and socket options that rustix does not have.

use super::error::DriverError;
use super::interface::Interface;
use super::mode::BindMode;
use super::ring::{ConsumerRing, ProducerRing, RingLayout, RingMemory};
use super::umem::Umem;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING,
    XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc,
    XdpOptionsFlags, XdpRingOffset, XdpStatistics, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
    sockopt,
};
use std::ffi::c_int;
use std::mem::size_of;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// `XDP_MAX_TX_SKB_BUDGET` (`include/uapi/linux/if_xdp.h`, Linux 6.18): packets that one `sendto`
/// sends in copy mode, 32 unless raised.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

/// How long to go on trying to bind a queue that is taken. A socket that was just closed gives its
/// queue up asynchronously, within tens of milliseconds as measured; one that is still there after
/// this long belongs to somebody.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// Pauses between those attempts: the first, doubled up to the last.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Preferred busy polling: the worker's own system calls drive the NIC's receive work, and the
/// NIC's interrupts stay off meanwhile. Pair it with `napi_defer_hard_irqs` and
/// `gro_flush_timeout` of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// `SO_BUSY_POLL`: how long one call may poll, in µs. More delays sending.
    pub usecs: u32,
    /// `SO_BUSY_POLL_BUDGET`: packets that one call may bring, at most 65535; above 64 needs
    /// CAP_NET_ADMIN.
    pub budget: u32,
}

/// What a socket is to be.
pub(super) struct XskOptions<'a> {
    pub(super) interface: &'a Interface,
    pub(super) queue_id: u32,
    pub(super) rx_ring: u32,
    pub(super) tx_ring: u32,
    pub(super) fill_ring: u32,
    pub(super) completion_ring: u32,
    pub(super) bind: BindMode,
    pub(super) need_wakeup: bool,
    pub(super) busy_poll: Option<BusyPoll>,
    /// The socket that registered the UMEM, if it was not this one.
    pub(super) shares_umem_of: Option<BorrowedFd<'a>>,
}

/// A bound socket and its four rings.
pub(super) struct XskSocket {
    // The rings first: a queue is free for the next socket only when they are unmapped as well.
    pub(super) rx: ConsumerRing<XdpDesc>,
    pub(super) tx: ProducerRing<XdpDesc>,
    pub(super) fill: ProducerRing<u64>,
    pub(super) completion: ConsumerRing<u64>,
    pub(super) zero_copy: bool,
    socket: OwnedFd,
}

impl XskSocket {
    /// Makes and binds a socket. Frames for its fill ring come from `umem`, and are home again if
    /// this fails.
    pub(super) fn open(options: &XskOptions<'_>, umem: &mut Umem) -> Result<Self, DriverError> {
        let mut lent = Vec::new();
        Self::make(options, umem, &mut lent).inspect_err(|_| {
            // The socket is closed, and was never bound: nobody knows these addresses any more.
            for address in lent {
                umem.reclaim(address);
            }
        })
    }

    fn make(
        options: &XskOptions<'_>,
        umem: &mut Umem,
        lent: &mut Vec<u64>,
    ) -> Result<Self, DriverError> {
        let socket = socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| match errno {
            Errno::PERM | Errno::ACCESS => DriverError::NotPermitted,
            Errno::AFNOSUPPORT => DriverError::KernelTooOld { lacks: "AF_XDP" },
            _ => DriverError::os("open an AF_XDP socket", errno),
        })?;
        if options.shares_umem_of.is_none() {
            register_umem(&socket, umem)?;
        }
        set_ring_sizes(&socket, options)?;
        let (rx, tx, mut fill, completion) = map_rings(&socket, options)?;

        while fill.reserve(1) == 1 {
            let Some(address) = umem.lend_free() else {
                break;
            };
            lent.push(address);
            let written = fill.write(address);
            debug_assert!(written.is_ok(), "there was room");
        }
        fill.submit();

        if let Some(busy_poll) = options.busy_poll {
            prefer_busy_poll(&socket, busy_poll)
                .map_err(|errno| DriverError::BusyPollRefused { errno })?;
        }
        bind_patiently(&socket, options)?;
        // Kernels without the option, and budgets they do not like, leave 32 a call; `flush` copes.
        let _ = set_u32(
            &socket,
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            options.tx_ring,
        );

        let obtained = sockopt::xdp_options(&socket)
            .map_err(|errno| DriverError::os("ask an AF_XDP socket for its mode", errno))?;
        let zero_copy = obtained.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        if options.bind == BindMode::ZeroCopy && !zero_copy {
            return Err(refused(options, Errno::OPNOTSUPP));
        }
        Ok(Self {
            rx,
            tx,
            fill,
            completion,
            zero_copy,
            socket,
        })
    }

    /// Tells the kernel to send what is in the TX ring.
    pub(super) fn kick_tx(&self) -> Result<(), Errno> {
        // Without DONTWAIT the kernel refuses (xsk_sendmsg).
        send(&self.socket, &[], SendFlags::DONTWAIT).map(drop)
    }

    /// Tells the kernel to look at the fill ring; with busy polling, to receive.
    pub(super) fn kick_rx(&self) -> Result<(), Errno> {
        let nothing: &mut [u8] = &mut [];
        recv(&self.socket, nothing, RecvFlags::DONTWAIT).map(drop)
    }

    /// `XDP_STATISTICS`.
    pub(super) fn statistics(&self) -> Result<XdpStatistics, Errno> {
        sockopt::xdp_statistics(&self.socket)
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn register_umem(socket: &OwnedFd, umem: &Umem) -> Result<(), DriverError> {
    let (base, len) = umem.region();
    let registration = XdpUmemReg {
        addr: base.addr().get() as u64,
        len: len as u64,
        chunk_size: umem.chunk_size(),
        // On top of the kernel's own 256 bytes (XDP_PACKET_HEADROOM): none.
        headroom: 0,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    sockopt::set_xdp_umem_reg(socket, registration).map_err(|errno| match errno {
        // xdp_umem_account_pages: over RLIMIT_MEMLOCK.
        Errno::NOBUFS => DriverError::MemoryLocked,
        _ => DriverError::os("register packet memory", errno),
    })
}

fn set_ring_sizes(socket: &OwnedFd, options: &XskOptions<'_>) -> Result<(), DriverError> {
    let XskOptions {
        rx_ring,
        tx_ring,
        fill_ring,
        completion_ring,
        ..
    } = *options;
    sockopt::set_xdp_umem_fill_ring_size(socket, fill_ring)
        .and_then(|()| sockopt::set_xdp_umem_completion_ring_size(socket, completion_ring))
        .and_then(|()| sockopt::set_xdp_rx_ring_size(socket, rx_ring))
        .and_then(|()| sockopt::set_xdp_tx_ring_size(socket, tx_ring))
        .map_err(|errno| DriverError::os("make the rings of an AF_XDP socket", errno))
}

type Rings = (
    ConsumerRing<XdpDesc>,
    ProducerRing<XdpDesc>,
    ProducerRing<u64>,
    ConsumerRing<u64>,
);

fn map_rings(socket: &OwnedFd, options: &XskOptions<'_>) -> Result<Rings, DriverError> {
    let offsets = sockopt::xdp_mmap_offsets(socket)
        .map_err(|errno| DriverError::os("ask an AF_XDP socket where its rings are", errno))?;
    let rx = map_ring(socket, offsets.rx, options.rx_ring, XDP_PGOFF_RX_RING)?;
    let tx = map_ring(socket, offsets.tx, options.tx_ring, XDP_PGOFF_TX_RING)?;
    let fill = map_ring(
        socket,
        offsets.fr,
        options.fill_ring,
        XDP_UMEM_PGOFF_FILL_RING,
    )?;
    let completion = map_ring(
        socket,
        offsets.cr,
        options.completion_ring,
        XDP_UMEM_PGOFF_COMPLETION_RING,
    )?;
    Ok((
        ConsumerRing::new(rx),
        ProducerRing::new(tx),
        ProducerRing::new(fill),
        ConsumerRing::new(completion),
    ))
}

/// A ring's mapping. Unmapped on drop.
struct RingMapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length; what is behind them is reached through the rings only.
unsafe impl Send for RingMapping {}
// SAFETY: as above.
unsafe impl Sync for RingMapping {}
impl RingMemory for RingMapping {}

impl Drop for RingMapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole; every ring that points into it holds a reference.
        if let Err(errno) = unsafe { munmap(self.base.as_ptr().cast(), self.len) } {
            tracing::error!(%errno, "a ring could not be unmapped");
        }
    }
}

fn map_ring<T: Copy>(
    socket: &OwnedFd,
    offsets: XdpRingOffset,
    size: u32,
    page_offset: u64,
) -> Result<RingLayout<T>, DriverError> {
    let Some(flags) = offsets.flags else {
        return Err(DriverError::KernelTooOld {
            lacks: "XDP_USE_NEED_WAKEUP",
        });
    };
    // Offsets of a mapping that fits the address space.
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let len = at(offsets.desc) + size as usize * size_of::<T>();
    // SAFETY: a fresh shared mapping of the socket's ring, placed where the kernel likes.
    let base = unsafe {
        mmap(
            std::ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::POPULATE,
            socket,
            page_offset,
        )
    }
    .and_then(|base| NonNull::new(base.cast::<u8>()).ok_or(Errno::FAULT))
    .map_err(|errno| DriverError::os("map a ring of an AF_XDP socket", errno))?;
    let memory = Arc::new(RingMapping { base, len });
    // SAFETY: the kernel says that the indices, the flags and `size` entries lie at these offsets,
    // aligned, and the mapping of `len` bytes reaches to the last entry. It is the other party, and
    // follows the protocol. The size was accepted by the kernel, which takes powers of two only.
    Ok(unsafe {
        RingLayout::new(
            base.add(at(offsets.producer)).cast::<AtomicU32>(),
            base.add(at(offsets.consumer)).cast::<AtomicU32>(),
            base.add(at(flags)).cast::<AtomicU32>(),
            base.add(at(offsets.desc)).cast::<T>(),
            size,
            memory,
        )
    })
}

fn bind_patiently(socket: &OwnedFd, options: &XskOptions<'_>) -> Result<(), DriverError> {
    let started = Instant::now();
    let mut pause = BUSY_PAUSE;
    loop {
        let errno = match bind_once(socket, options) {
            Ok(()) => return Ok(()),
            Err(errno) => errno,
        };
        if errno != Errno::BUSY {
            return Err(explain_bind(options, errno));
        }
        if started.elapsed() >= BUSY_PATIENCE {
            return Err(DriverError::QueueBusy {
                interface: options.interface.name.clone(),
                queue_id: options.queue_id,
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(BUSY_PAUSE_MAX);
    }
}

fn bind_once(socket: &OwnedFd, options: &XskOptions<'_>) -> Result<(), Errno> {
    let address = |flags| SocketAddrXdp::new(flags, options.interface.index, options.queue_id);
    if let Some(shared_umem_fd) = options.shares_umem_of {
        // xsk_bind: with XDP_SHARED_UMEM every other flag is EINVAL; mode and need_wakeup are those
        // of the first socket.
        let addr = address(SocketAddrXdpFlags::XDP_SHARED_UMEM);
        return bind(
            socket,
            &SocketAddrXdpWithSharedUmem {
                addr,
                shared_umem_fd,
            },
        );
    }
    let mut flags = match options.bind {
        BindMode::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
        BindMode::Copy => SocketAddrXdpFlags::XDP_COPY,
    };
    if options.need_wakeup {
        flags |= SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
    }
    bind(socket, &address(flags))
}

fn explain_bind(options: &XskOptions<'_>, errno: Errno) -> DriverError {
    let Interface { name, .. } = options.interface;
    match errno {
        Errno::NODEV => DriverError::NoSuchInterface {
            interface: name.clone(),
        },
        Errno::PERM | Errno::ACCESS => DriverError::NotPermitted,
        Errno::NOMEM | Errno::NOBUFS | Errno::NETDOWN => DriverError::os(
            format!(
                "bind an AF_XDP socket to queue {} of {name}",
                options.queue_id
            ),
            errno,
        ),
        // Drivers say no in different words: EOPNOTSUPP, EINVAL, ENOTSUPP, EIO.
        _ if options.bind == BindMode::ZeroCopy => refused(options, errno),
        _ => DriverError::os(
            format!(
                "bind an AF_XDP socket to queue {} of {name}",
                options.queue_id
            ),
            errno,
        ),
    }
}

fn refused(options: &XskOptions<'_>, errno: Errno) -> DriverError {
    DriverError::ZeroCopyRefused {
        interface: options.interface.name.clone(),
        driver: options.interface.driver.clone(),
        queue_id: options.queue_id,
        errno,
    }
}

fn prefer_busy_poll(socket: &OwnedFd, busy_poll: BusyPoll) -> Result<(), Errno> {
    set_u32(socket, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)?;
    set_u32(
        socket,
        libc::SOL_SOCKET,
        libc::SO_BUSY_POLL,
        busy_poll.usecs,
    )?;
    set_u32(
        socket,
        libc::SOL_SOCKET,
        libc::SO_BUSY_POLL_BUDGET,
        busy_poll.budget,
    )
}

fn set_u32(socket: &OwnedFd, level: c_int, option: c_int, value: u32) -> Result<(), Errno> {
    // Four bytes.
    #[expect(clippy::cast_possible_truncation)]
    let len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel reads four bytes from a live u32.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            len,
        )
    };
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(())
}
