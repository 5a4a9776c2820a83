//! An interface as a port of the forwarder: every frame that comes in, and frames to send as they
//! are.
//!
//! Two packet sockets (packet(7)): one that receives, with a header that tells what the kernel left
//! undone (see [`super::offload`]), and one that only sends, around the queueing discipline.
#![allow(unsafe_code)] // recvmmsg, sendmmsg and the options of packet sockets have no safe wrapper.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_uint, c_void, iovec, mmsghdr, sockaddr_ll, socklen_t, tpacket_auxdata};

use super::offload::{HEADER_LEN, Offload, Tag};
use crate::socket::raise_receive_buffer;

/// Frames one call moves: what a 64-frame NAPI poll of the kernel brings at once, and few enough
/// that the first does not wait long for the last.
pub const BATCH: usize = 64;

/// Longest frame a port takes: a large send of 64 KiB (`GSO_LEGACY_MAX_SIZE`, include/linux/
/// netdevice.h) behind an Ethernet header with one tag.
const FRAME_BYTES_MAX: usize = (1 << 16) + 18;

/// Bytes from one receive buffer to the next; the one cache line more keeps the buffers from
/// starting in the same sets of the cache.
const PITCH: usize = (HEADER_LEN + FRAME_BYTES_MAX).next_multiple_of(64) + 64;

/// Receive buffer of the socket: 20 ms of small frames at a million a second, or of full ones at
/// 10 Gb/s. Frames that find it full are counted as missed.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;

/// Room for one control message: a header of 16 bytes and `tpacket_auxdata` of 20, padded.
const CONTROL_WORDS: usize = 6;
const _: () = assert!(CONTROL_WORDS * 8 >= 16 + size_of::<tpacket_auxdata>());

/// A frame as it came from the kernel.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// What the kernel left undone.
    pub offload: Offload,
    /// The VLAN tag it took out.
    pub tag: Option<Tag>,
    /// The frame. `None` when it was longer than any that can be.
    pub bytes: Option<&'a mut [u8]>,
}

/// An interface. Promiscuous as long as this lives.
#[derive(Debug)]
pub struct Port {
    name: String,
    index: c_int,
    receiver: OwnedFd,
    sender: OwnedFd,
    buffers: Vec<u8>,
    /// Frames the socket had no room for, as far as they were asked for.
    missed: u64,
}

impl Port {
    /// Opens the interface of this name in the namespace of the calling thread.
    ///
    /// # Errors
    /// A sentence that says what failed: no such interface, no CAP_NET_RAW.
    pub fn open(name: &str) -> Result<Self, String> {
        Self::try_open(name).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("interface {name}: packet sockets need root (CAP_NET_RAW): {error}")
            }
            _ => format!("interface {name}: {error}"),
        })
    }

    fn try_open(name: &str) -> io::Result<Self> {
        let index = index_of(name)?;
        // Protocol 0: nothing arrives before everything is set.
        let receiver = packet_socket()?;
        let packet = libc::SOL_PACKET;
        set_option(&receiver, packet, libc::PACKET_VNET_HDR, &1)?;
        set_option(&receiver, packet, libc::PACKET_AUXDATA, &1)?;
        // What goes out at a port must not come in again.
        set_option(&receiver, packet, libc::PACKET_IGNORE_OUTGOING, &1)?;
        raise_receive_buffer(&receiver, RECEIVE_BUFFER_BYTES)?;
        bind(&receiver, index, libc::ETH_P_ALL)?;
        let promiscuous = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC).expect("invariant: it is 1"),
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_option(&receiver, packet, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)?;
        let sender = packet_socket()?;
        set_option(&sender, packet, libc::PACKET_QDISC_BYPASS, &1)?;
        bind(&sender, index, 0)?;
        Ok(Self {
            name: name.to_owned(),
            index,
            receiver,
            sender,
            buffers: vec![0; BATCH * PITCH],
            missed: 0,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the interface still exists: it was not removed, or moved to another namespace.
    #[must_use]
    pub fn exists(&self) -> bool {
        index_of(&self.name).is_ok_and(|index| index == self.index)
    }

    /// Gives `take` the frames that have come, [`BATCH`] at most, and returns how many there were.
    /// Does not wait.
    ///
    /// # Errors
    /// As recvmmsg(2): `NetworkDown` once when the interface goes down; it may come up again.
    pub fn receive(&mut self, mut take: impl FnMut(Arrival<'_>)) -> io::Result<usize> {
        let mut controls = [[0_u64; CONTROL_WORDS]; BATCH];
        // SAFETY: integers and pointers, for all of which zero means absent.
        let mut vectors: [iovec; BATCH] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let buffers = self.buffers.as_mut_ptr();
        for (at, header) in headers.iter_mut().enumerate() {
            vectors[at] = iovec {
                // SAFETY: there are BATCH buffers of PITCH bytes.
                iov_base: unsafe { buffers.add(at * PITCH) }.cast::<c_void>(),
                iov_len: HEADER_LEN + FRAME_BYTES_MAX,
            };
            header.msg_hdr.msg_iov = &raw mut vectors[at];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = controls[at].as_mut_ptr().cast::<c_void>();
            header.msg_hdr.msg_controllen = size_of_val(&controls[at]);
        }
        // SAFETY: the headers point at vectors, controls and buffers that outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                self.receiver.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH_COUNT,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = match usize::try_from(received) {
            Ok(received) => received,
            Err(_) => {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                    _ => Err(error),
                };
            }
        };
        for (header, buffer) in headers[..received]
            .iter()
            .zip(self.buffers.chunks_exact_mut(PITCH))
        {
            let tag = tag_of(&header.msg_hdr);
            let is_cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let len = usize::try_from(header.msg_len).unwrap_or(0);
            let Some((before, bytes)) = buffer[..len].split_first_chunk_mut::<HEADER_LEN>() else {
                continue;
            };
            take(Arrival {
                offload: Offload::parse(before),
                tag,
                bytes: (!is_cut).then_some(bytes),
            });
        }
        Ok(received)
    }

    /// Sends frames as they are and returns how many the interface did not take.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn send(&self, frames: &[Vec<u8>]) -> io::Result<u64> {
        let mut refused = 0;
        for frames in frames.chunks(BATCH) {
            let mut left = frames;
            while !left.is_empty() {
                match self.send_batch(left) {
                    // Never 0: then there is an error.
                    Ok(sent) => left = &left[sent.max(1)..],
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => match error.raw_os_error() {
                        Some(libc::ENXIO | libc::ENODEV) => return Err(error),
                        // ENOBUFS, EAGAIN: its queue is full. ENETDOWN: it is down. EMSGSIZE: its MTU
                        // is smaller. Whatever it is, it is the first frame's.
                        _ => {
                            refused += 1;
                            left = &left[1..];
                        }
                    },
                }
            }
        }
        Ok(refused)
    }

    fn send_batch(&self, frames: &[Vec<u8>]) -> io::Result<usize> {
        // SAFETY: integers and pointers, for all of which zero means absent.
        let mut vectors: [iovec; BATCH] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let count = frames.len().min(BATCH);
        for (at, frame) in frames[..count].iter().enumerate() {
            vectors[at] = iovec {
                iov_base: frame.as_ptr().cast_mut().cast::<c_void>(),
                iov_len: frame.len(),
            };
            headers[at].msg_hdr.msg_iov = &raw mut vectors[at];
            headers[at].msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the headers point at vectors and frames that outlive the call; sending does not
        // write to frames.
        let sent = unsafe {
            libc::sendmmsg(
                self.sender.as_raw_fd(),
                headers.as_mut_ptr(),
                c_uint::try_from(count).expect("invariant: a batch"),
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Frames that came while the socket's buffer was full, since the port was opened.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn missed(&mut self) -> io::Result<u64> {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = option_length::<libc::tpacket_stats>();
        // SAFETY: the kernel writes at most `length` bytes, the size of `statistics`.
        let returned = unsafe {
            libc::getsockopt(
                self.receiver.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast::<c_void>(),
                &raw mut length,
            )
        };
        if returned != 0 {
            return Err(io::Error::last_os_error());
        }
        // Reading sets it back to zero.
        self.missed += u64::from(statistics.tp_drops);
        Ok(self.missed)
    }
}

/// To wait on: readable when frames have come.
impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

const BATCH_COUNT: c_uint = 64;
const _: () = assert!(BATCH_COUNT as usize == BATCH);

fn index_of(name: &str) -> io::Result<c_int> {
    let name = CString::new(name)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a name without zero bytes"))?;
    // SAFETY: a string that ends with zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    match c_int::try_from(index) {
        Ok(index) if index > 0 => Ok(index),
        _ => Err(io::Error::last_os_error()),
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn bind(socket: &OwnedFd, index: c_int, protocol: c_int) -> io::Result<()> {
    let protocol = u16::try_from(protocol).expect("invariant: an EtherType");
    let address = sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("invariant: it is 17"),
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: an address of the length given.
    let returned = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast::<libc::sockaddr>(),
            option_length::<sockaddr_ll>(),
        )
    };
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_option<T>(socket: &OwnedFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as `T` has, which its callers make what the option takes.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast::<c_void>(),
            option_length::<T>(),
        )
    };
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn option_length<T>() -> socklen_t {
    socklen_t::try_from(size_of::<T>()).expect("invariant: options are small")
}

/// The VLAN tag in a message's control data.
fn tag_of(message: &libc::msghdr) -> Option<Tag> {
    // SAFETY: the kernel filled in the control data of this message and its length.
    let first = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or the header of a whole control message.
    let header = unsafe { first.as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: behind a header of this type is a `tpacket_auxdata`, aligned or not.
    let auxiliary = unsafe {
        libc::CMSG_DATA(first)
            .cast::<tpacket_auxdata>()
            .read_unaligned()
    };
    let is_tagged = auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
    is_tagged.then_some(Tag {
        protocol: auxiliary.tp_vlan_tpid,
        control: auxiliary.tp_vlan_tci,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_cannot_be_says_why() {
        let error = Port::open("no-such-if").unwrap_err();
        assert!(error.contains("no-such-if"), "{error}");
        let error = Port::open("zero\0byte").unwrap_err();
        assert!(error.contains("zero bytes"), "{error}");
    }
}
