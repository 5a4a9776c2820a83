//! Many datagrams in one system call: recvmmsg(2) and sendmmsg(2) on buffers that are allocated
//! once.
//!
//! ```text
//!            ┌──────── headers ────────┐      ┌─ iovecs ─┐      ┌───────── buffers ──────────┐
//!  message 0 │ name ─┐  iov ──────────────►   │ base,len ──────►│ stride bytes               │
//!  message 1 │       │  iov ──────────────►   │ base,len ──────►│ stride bytes               │
//!            └───────┼─────────────────┘      └──────────┘      └────────────────────────────┘
//!                    └► addresses[0] (unless the socket is connected)
//! ```
//!
//! A batch that was received can be sent back as it is ([`MessageBatch::send_back`]): the header
//! still holds the peer's address and only the lengths change, so an echo copies nothing.
#![allow(unsafe_code)] // recvmmsg and sendmmsg have no safe wrapper that keeps its arrays between calls.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, sockaddr_storage};

/// Whether the messages of a batch carry the peer's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// The socket is connected: the kernel knows the peer and need not copy its address.
    Connected,
    /// Received messages keep their sender's address, and are sent back to it.
    Recorded,
}

/// What a receiving call does when nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Returns `WouldBlock` (MSG_DONTWAIT).
    Never,
    /// Blocks for the first message and takes what else is there (MSG_WAITFORONE).
    ForOne,
}

/// Buffers, addresses and headers for up to `capacity` datagrams of at most `stride` bytes.
#[derive(Debug)]
pub struct MessageBatch {
    /// Bytes a message may have.
    stride: usize,
    /// Bytes from one buffer to the next.
    pitch: usize,
    buffers: Vec<u8>,
    addresses: Vec<sockaddr_storage>,
    iovecs: Vec<iovec>,
    headers: Vec<mmsghdr>,
    /// Headers `..dirty` were used and must get their lengths back before the next receive.
    dirty: usize,
    /// How many messages the last receive brought.
    received: usize,
}

impl MessageBatch {
    /// Allocates a batch of `capacity` messages of up to `stride` bytes each; nothing is allocated
    /// afterwards.
    ///
    /// # Panics
    /// When `capacity` is 0 or above 1024, the kernel's own limit (UIO_MAXIOV, include/linux/uio.h).
    #[must_use]
    pub fn new(capacity: usize, stride: usize, peers: Peers) -> Self {
        assert!(
            (1..=1024).contains(&capacity),
            "a batch holds 1 to 1024 messages"
        );
        let addresses = match peers {
            Peers::Connected => Vec::new(),
            // SAFETY: sockaddr_storage is plain bytes; all zeroes is AF_UNSPEC.
            Peers::Recorded => vec![unsafe { std::mem::zeroed::<sockaddr_storage>() }; capacity],
        };
        // Buffers a power of two apart would start in the same few sets of the L1 cache and evict one
        // another; one cache line more spreads them.
        let pitch = stride.next_multiple_of(CACHE_LINE) + CACHE_LINE;
        let mut batch = Self {
            stride,
            pitch,
            // Written once here, so that the pages are there before the first measurement.
            buffers: vec![0xA5; capacity * pitch],
            addresses,
            iovecs: Vec::with_capacity(capacity),
            headers: Vec::with_capacity(capacity),
            dirty: 0,
            received: 0,
        };
        for index in 0..capacity {
            let base = batch.buffers[index * pitch..].as_mut_ptr();
            batch.iovecs.push(iovec {
                iov_base: base.cast::<c_void>(),
                iov_len: stride,
            });
        }
        for index in 0..capacity {
            // SAFETY: msghdr is integers and pointers; zero means absent for all of them.
            let mut header: msghdr = unsafe { std::mem::zeroed() };
            header.msg_iov = &raw mut batch.iovecs[index];
            header.msg_iovlen = 1;
            if let Some(address) = batch.addresses.get_mut(index) {
                header.msg_name = std::ptr::from_mut(address).cast::<c_void>();
                header.msg_namelen = NAME_LEN;
            }
            batch.headers.push(mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            });
        }
        batch
    }

    /// The largest number of messages one call moves.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Receives up to `limit` datagrams and returns how many came. [`Self::message`] reads them.
    ///
    /// # Errors
    /// As recvmmsg(2): `WouldBlock` when there is nothing, `ConnectionRefused` when an ICMP port
    /// unreachable arrived for a connected socket. An error after the first message is kept by the
    /// kernel for the next call.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        limit: usize,
        wait: Wait,
    ) -> io::Result<usize> {
        for index in 0..self.dirty {
            self.iovecs[index].iov_len = self.stride;
            if !self.addresses.is_empty() {
                self.headers[index].msg_hdr.msg_namelen = NAME_LEN;
            }
        }
        self.dirty = 0;
        self.received = 0;
        let limit = limit.min(self.headers.len());
        let flags = match wait {
            Wait::Never => libc::MSG_DONTWAIT,
            Wait::ForOne => libc::MSG_WAITFORONE,
        };
        // SAFETY: `headers`, and the iovecs, buffers and addresses they point at, belong to `self`,
        // are at least `limit` long and were never moved since `new` took their addresses: no Vec
        // here is ever grown. `socket` is open for the length of the borrow.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                message_count(limit),
                flags,
                std::ptr::null_mut(),
            )
        };
        let count = messages_moved(count)?;
        self.dirty = count;
        self.received = count;
        Ok(count)
    }

    /// The bytes of message `index` of the last receive. A datagram longer than the stride is cut;
    /// see [`Self::truncated`].
    ///
    /// # Panics
    /// When `index` is not below what [`Self::receive`] returned.
    #[must_use]
    pub fn message(&self, index: usize) -> &[u8] {
        assert!(
            index < self.received,
            "message {index} of {}",
            self.received
        );
        let length = (self.headers[index].msg_len as usize).min(self.stride);
        &self.buffers[index * self.pitch..][..length]
    }

    /// Whether message `index` was longer than the stride and lost its end (MSG_TRUNC).
    ///
    /// # Panics
    /// When `index` is not below what [`Self::receive`] returned.
    #[must_use]
    pub fn truncated(&self, index: usize) -> bool {
        assert!(
            index < self.received,
            "message {index} of {}",
            self.received
        );
        self.headers[index].msg_hdr.msg_flags & libc::MSG_TRUNC != 0
    }

    /// Sends the messages of the last receive in `range` back to where they came from, and returns
    /// how many the kernel took: the caller tries again from there.
    ///
    /// # Errors
    /// As sendmmsg(2), for the first message of the range.
    pub fn send_back(&mut self, socket: BorrowedFd<'_>, range: Range<usize>) -> io::Result<usize> {
        let range = range.start.min(self.received)..range.end.min(self.received);
        for index in range.clone() {
            let length = (self.headers[index].msg_len as usize).min(self.stride);
            self.iovecs[index].iov_len = length;
        }
        self.transmit(socket, range)
    }

    /// The buffer of message `index`, to be filled and sent with [`Self::send`].
    ///
    /// # Panics
    /// When `index` is not below the capacity.
    pub fn payload_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.buffers[index * self.pitch..][..self.stride]
    }

    /// Sends the messages in `range`, each `stride` bytes long, on a connected socket, and returns
    /// how many the kernel took: the caller tries again from there.
    ///
    /// # Errors
    /// As sendmmsg(2), for the first message of the range. An error after the first message is
    /// reported as a short count only.
    pub fn send(&mut self, socket: BorrowedFd<'_>, range: Range<usize>) -> io::Result<usize> {
        let range = range.start.min(self.headers.len())..range.end.min(self.headers.len());
        self.transmit(socket, range)
    }

    fn transmit(&mut self, socket: BorrowedFd<'_>, range: Range<usize>) -> io::Result<usize> {
        let messages = &mut self.headers[range];
        // SAFETY: as for recvmmsg in `receive`; the kernel only writes `msg_len`, which callers
        // do not read after sending (`send_back` reads it before, and only for unsent messages).
        let count = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                message_count(messages.len()),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        messages_moved(count)
    }
}

/// Bytes in a cache line of x86-64 and of most arm64 cores.
const CACHE_LINE: usize = 64;

/// `sizeof(struct sockaddr_storage)` is 128 (RFC 3493 §3.10 as Linux has it).
const NAME_LEN: libc::socklen_t = 128;
const _: () = assert!(size_of::<sockaddr_storage>() == NAME_LEN as usize);

/// A batch never holds more than 1024 messages (`MessageBatch::new`), so this cannot saturate.
fn message_count(count: usize) -> c_uint {
    c_uint::try_from(count).unwrap_or(c_uint::MAX)
}

/// The return value of both calls: -1 and errno, or a count.
fn messages_moved(returned: c_int) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair() -> (UdpSocket, UdpSocket) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        (client, server)
    }

    #[test]
    fn a_batch_goes_there_and_back_with_its_lengths() {
        let (client, server) = pair();
        let mut echo = MessageBatch::new(4, 100, Peers::Recorded);
        let mut replies = MessageBatch::new(4, 100, Peers::Connected);
        // Two rounds: the second finds the lengths the first one shortened restored.
        for round in 0..2_u8 {
            for length in [1_usize, 40, 99] {
                client.send(&vec![round + 1; length]).unwrap();
            }
            let count = echo.receive(server.as_fd(), 4, Wait::ForOne).unwrap();
            assert_eq!(count, 3);
            assert_eq!(echo.send_back(server.as_fd(), 0..count).unwrap(), 3);
            assert_eq!(replies.receive(client.as_fd(), 4, Wait::ForOne).unwrap(), 3);
            for (index, length) in [1_usize, 40, 99].into_iter().enumerate() {
                assert_eq!(replies.message(index), vec![round + 1; length]);
                assert!(!replies.truncated(index));
            }
        }
    }

    #[test]
    fn sends_what_was_filled_in() {
        let (client, server) = pair();
        let mut out = MessageBatch::new(3, 8, Peers::Connected);
        for index in 0..3_u8 {
            out.payload_mut(index.into()).fill(index);
        }
        assert_eq!(out.send(client.as_fd(), 1..3).unwrap(), 2);
        let mut buffer = [0; 16];
        for expected in 1..3 {
            assert_eq!(server.recv(&mut buffer).unwrap(), 8);
            assert_eq!(buffer[..8], [expected; 8]);
        }
    }

    #[test]
    fn a_datagram_longer_than_the_stride_is_cut_and_says_so() {
        let (client, server) = pair();
        client.send(&[7; 50]).unwrap();
        let mut batch = MessageBatch::new(1, 20, Peers::Recorded);
        assert_eq!(batch.receive(server.as_fd(), 1, Wait::ForOne).unwrap(), 1);
        assert_eq!(batch.message(0), [7; 20]);
        assert!(batch.truncated(0));
    }

    #[test]
    fn an_empty_socket_would_block() {
        let (_client, server) = pair();
        let mut batch = MessageBatch::new(1, 20, Peers::Recorded);
        let error = batch.receive(server.as_fd(), 1, Wait::Never).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
