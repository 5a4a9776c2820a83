//! Socket options that neither `std` nor `rustix` offer, and the ones set on every socket here.
#![allow(unsafe_code)] // getsockopt and setsockopt with options that have no safe wrapper.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, c_void, socklen_t};
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Receive buffer asked for, in bytes: about 5,000 small datagrams (each costs 768 bytes of it), or
/// 5 ms at a million a second. Smaller buffers lose bursts while the program is off the CPU.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Raises the receive buffer to `bytes`, past `net.core.rmem_max` where the process may
/// (CAP_NET_ADMIN), and returns what the kernel granted (it doubles the figure for its own
/// bookkeeping, socket(7)).
///
/// # Errors
/// As setsockopt(2); a buffer cut down to `net.core.rmem_max` is not an error.
pub fn raise_receive_buffer(socket: impl AsFd, bytes: usize) -> io::Result<usize> {
    let socket = socket.as_fd();
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, bytes)?;
    }
    Ok(sockopt::socket_recv_buffer_size(socket)?)
}

/// Datagrams the kernel dropped at this socket because its receive buffer was full
/// (`SK_MEMINFO_DROPS`, include/uapi/linux/sock_diag.h; `ss -m` shows it as `d`).
///
/// # Errors
/// As getsockopt(2).
pub fn receive_drops(socket: impl AsFd) -> io::Result<u64> {
    /// SO_MEMINFO fills an array of this many u32 (SK_MEMINFO_VARS).
    const SK_MEMINFO_VARS: usize = 9;
    const SK_MEMINFO_DROPS: usize = 8;
    let mut meminfo = [0_u32; SK_MEMINFO_VARS];
    let mut length = SK_MEMINFO_BYTES;
    const SK_MEMINFO_BYTES: socklen_t = 36;
    const _: () = assert!(size_of::<[u32; SK_MEMINFO_VARS]>() == SK_MEMINFO_BYTES as usize);
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `meminfo`.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            meminfo.as_mut_ptr().cast::<c_void>(),
            &raw mut length,
        )
    };
    if returned != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(meminfo[SK_MEMINFO_DROPS].into())
}

/// Makes blocking calls on the socket poll the device's queue for up to `microseconds` before they
/// sleep (SO_BUSY_POLL), and asks that the queue be polled rather than interrupted while they do
/// (SO_PREFER_BUSY_POLL).
///
/// # Errors
/// As setsockopt(2): raising the value needs CAP_NET_ADMIN.
pub fn busy_poll(socket: impl AsFd, microseconds: u32) -> io::Result<()> {
    // socket(7) takes an int; more than 2³¹ µs of polling is as good as for ever.
    let microseconds = c_int::try_from(microseconds).unwrap_or(c_int::MAX);
    for (option, value) in [
        (libc::SO_BUSY_POLL, microseconds),
        (libc::SO_PREFER_BUSY_POLL, 1),
    ] {
        // SAFETY: the kernel reads an int from a pointer to an int.
        let returned = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const value).cast::<c_void>(),
                INT_BYTES,
            )
        };
        if returned != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

const INT_BYTES: socklen_t = 4;
const _: () = assert!(size_of::<c_int>() == INT_BYTES as usize);

/// Raises the limit on open files so that `sockets` more fit beside what a program has open anyway.
///
/// # Errors
/// A sentence that names the limit, when the hard limit is lower and the process may not raise it.
pub fn allow_open_sockets(sockets: usize) -> Result<(), String> {
    /// Files a program has open besides its sockets: the standard streams, epoll, outputs.
    const OTHERS: u64 = 64;
    let needed = sockets as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(needed),
            maximum,
        },
    )
    .map_err(|error| {
        format!(
            "{sockets} sockets need {needed} open files but the limit is {}: raise it (ulimit -n), \
             or ask for fewer ({error})",
            limit.maximum.unwrap_or(u64::MAX)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn counts_what_a_full_buffer_drops() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        assert_eq!(receive_drops(&server).unwrap(), 0);
        // 0 gives the smallest buffer the kernel allows (SOCK_MIN_RCVBUF, about 2 KiB).
        sockopt::set_socket_recv_buffer_size(&server, 0).unwrap();
        for _ in 0..100 {
            client.send(&[0; 1000]).unwrap();
        }
        let drops = receive_drops(&server).unwrap();
        assert!((50..=100).contains(&drops), "{drops} dropped of 100");
    }

    #[test]
    fn raises_the_receive_buffer() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = sockopt::socket_recv_buffer_size(&socket).unwrap();
        let after = raise_receive_buffer(&socket, before * 2).unwrap();
        assert!(after >= before);
    }

    #[test]
    fn open_sockets_up_to_the_limit_are_allowed() {
        assert_eq!(allow_open_sockets(1), Ok(()));
    }
}
