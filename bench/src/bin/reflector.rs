//! `reflector`: the least a UDP echo can do on the dataplane's driver. It takes frames from the same
//! rings, behind the same steering, with the same configuration, swaps addresses and ports in place,
//! and sends them back: no checks, no routes, no sockets. What the dataplane's echo loses against it is
//! what the stack costs.
//!
//! ```text
//!   driver.rx ─► swap Ethernet, IP and port addresses ─► driver.tx ─► driver.flush
//! ```
//!
//! Swapping moves 16-bit words around and changes none, so every checksum stays as right, or as wrong,
//! as it was (RFC 1071 §2: the sum does not depend on the order).

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::clock::now_ns;
use bench::cpu::pin_current_thread;
use bench::queues;
use bench::signal::stop_flag;
use clap::Parser;
use config::{Config, Cores, IdlePolicy};
use dataplane::driver::{AfXdp, AfXdpOptions, Batch, Driver, Interface, Link};
use dataplane::steering::{PortRule, Protocol, RuleSet, Scope, Steering, SteeringError};
use stack::frame::{Frame as _, FramePool as _};

/// Sends UDP datagrams back from where the driver receives them, without a stack: the yardstick of the
/// dataplane's UDP echo.
///
/// It does what a configuration of the dataplane says about the interface, rings, busy polling and
/// idling, on one worker, and takes the ports its services listen on.
#[derive(Debug, Parser)]
#[command(name = "reflector", version)]
struct Arguments {
    /// Configuration of the dataplane
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// An address of the interface; may be given more than once
    #[arg(long, value_name = "ADDR", required = true)]
    address: Vec<IpAddr>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("reflector: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let stop = stop_flag().map_err(|error| format!("cannot handle signals: {error}"))?;
    let config = Config::load(&arguments.config).map_err(|errors| errors.to_string())?;
    let Cores::List(cores) = &config.workers.cores else {
        return Err("workers.cores must name the one core to run on".into());
    };
    let &[core] = cores.as_slice() else {
        return Err(format!(
            "workers.cores names {} cores, and there is one worker",
            cores.len()
        ));
    };
    pin_current_thread(core)?;
    let (mut driver, steering) = open(&config, &arguments.address)?;
    eprintln!("ready: {:?}", driver.report());
    let counts = reflect_all(&mut driver, &config, &stop)?;
    // Detached before the sockets close: what comes from here on is the kernel's.
    drop(steering);
    eprintln!("{counts}");
    Ok(())
}

/// Opens the driver and steers the services' ports to it, in the first mode that can be had.
fn open(config: &Config, addresses: &[IpAddr]) -> Result<(AfXdp, Steering), String> {
    let name = &config.interface.name;
    let interface = Interface::by_name(name).map_err(|error| error.to_string())?;
    let options = |attempt| {
        let queues = config.queue_ids(interface.queues());
        vec![AfXdpOptions::configured(config, queues, attempt)]
    };
    let interface = &config.interface;
    let mut opened = queues::open(name, interface.mode, &interface.vlan, options)?;
    steer(&mut opened.steering, &rules(config), addresses).map_err(|error| error.to_string())?;
    let driver = opened.drivers.pop();
    Ok((
        driver.expect("invariant: one driver was asked for"),
        opened.steering,
    ))
}

fn steer(
    steering: &mut Steering,
    rules: &RuleSet,
    addresses: &[IpAddr],
) -> Result<(), SteeringError> {
    steering.set_locals(addresses)?;
    steering.set_rules(rules)?;
    steering.set_enabled(true)
}

/// The services' ports on any address, as the dataplane has them for a wildcard listener.
fn rules(config: &Config) -> RuleSet {
    let ports = config
        .services
        .iter()
        .flat_map(|service| &service.listen)
        .flat_map(|listen| {
            [Scope::AnyV4, Scope::AnyV6].map(|scope| PortRule {
                protocol: Protocol::Udp,
                scope,
                port: listen.port(),
            })
        })
        .collect();
    RuleSet {
        ports,
        ..RuleSet::default()
    }
}

#[derive(Debug, Default)]
struct Counts {
    reflected: u64,
    /// Not UDP, or cut off: given back to the pool.
    refused: u64,
    /// The TX ring was full.
    dropped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reflected,
            refused,
            dropped,
        } = self;
        write!(
            out,
            "reflected {reflected} packets, refused {refused}, dropped {dropped} at a full TX ring"
        )
    }
}

/// The loop: the worker's, without a stack.
fn reflect_all(driver: &mut AfXdp, config: &Config, stop: &AtomicBool) -> Result<Counts, String> {
    let workers = &config.workers;
    let spin_ns = u64::from(workers.spin_us) * 1000;
    let sleep = Duration::from_millis(workers.sleep_ms.into());
    let mut batch = Batch::with_capacity(workers.batch as usize);
    let mut counts = Counts::default();
    let mut busy_ns = now_ns();
    while !stop.load(Ordering::Relaxed) {
        let now = now_ns();
        let received = driver.rx(&mut batch, now);
        for mut frame in batch.drain() {
            if !reflect(frame.data_mut()) {
                counts.refused += 1;
                driver.give(frame);
                continue;
            }
            match driver.tx(frame) {
                Ok(()) => counts.reflected += 1,
                Err(frame) => {
                    counts.dropped += 1;
                    driver.give(frame);
                }
            }
        }
        driver.flush();
        if received > 0 {
            busy_ns = now;
        } else if driver.link() == Link::Gone {
            return Err(format!("{} is gone", config.interface.name));
        } else if workers.idle == IdlePolicy::Adaptive && now.saturating_sub(busy_ns) >= spin_ns {
            driver.wait(sleep);
        }
    }
    Ok(counts)
}

/// Offsets of what is swapped.
mod offset {
    /// Ethernet: destination, source, 6 bytes each (IEEE 802.3 §3.1.1).
    pub(super) const ETHERNET: usize = 0;
    pub(super) const ETHERTYPE: usize = 12;
    pub(super) const IP: usize = 14;
    /// RFC 791 §3.1.
    pub(super) const IPV4_PROTOCOL: usize = IP + 9;
    pub(super) const IPV4_ADDRESSES: usize = IP + 12;
    /// RFC 8200 §3.
    pub(super) const IPV6_NEXT_HEADER: usize = IP + 6;
    pub(super) const IPV6_ADDRESSES: usize = IP + 8;
    pub(super) const IPV6_PAYLOAD: usize = IP + 40;
}

const UDP: u8 = 17;

/// Turns a UDP packet around in place; false, and nothing changed, for anything else.
#[inline]
fn reflect(packet: &mut [u8]) -> bool {
    let ethertype = packet.get(offset::ETHERTYPE..offset::IP);
    let (addresses, width, ports) = match ethertype {
        Some([0x08, 0x00]) if packet.get(offset::IPV4_PROTOCOL) == Some(&UDP) => {
            // RFC 791 §3.1: the header's length in 32-bit words.
            let header_len = usize::from(packet[offset::IP] & 0x0F) * 4;
            (offset::IPV4_ADDRESSES, 4, offset::IP + header_len)
        }
        Some([0x86, 0xDD]) if packet.get(offset::IPV6_NEXT_HEADER) == Some(&UDP) => {
            (offset::IPV6_ADDRESSES, 16, offset::IPV6_PAYLOAD)
        }
        _ => return false,
    };
    // An IPv4 header shorter than its own addresses would have them swapped as ports, too.
    if ports < addresses + 2 * width || packet.len() < ports + 4 {
        return false;
    }
    swap(packet, offset::ETHERNET, 6);
    swap(packet, addresses, width);
    swap(packet, ports, 2);
    true
}

/// Swaps `width` bytes at `at` with the `width` bytes after them.
#[inline]
fn swap(packet: &mut [u8], at: usize, width: usize) {
    let (first, second) = packet[at..at + 2 * width].split_at_mut(width);
    first.swap_with_slice(second);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(ip_header: &[u8], payload: &[u8], ethertype: u16) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(ip_header);
        bytes.extend(payload);
        bytes
    }

    const UDP_HEADER: [u8; 8] = [0x30, 0x39, 0, 7, 0, 8, 0xAB, 0xCD];

    #[test]
    fn ipv4_with_options() {
        let mut header = vec![0; 24];
        header[0] = 0x46;
        header[9] = UDP;
        header[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let mut bytes = packet(&header, &UDP_HEADER, 0x0800);
        assert!(reflect(&mut bytes));
        assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[26..34], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(bytes[38..], [0, 7, 0x30, 0x39, 0, 8, 0xAB, 0xCD]);
    }

    #[test]
    fn ipv6() {
        let mut header = vec![0; 40];
        header[0] = 0x60;
        header[6] = UDP;
        header[8..24].fill(1);
        header[24..40].fill(2);
        let mut bytes = packet(&header, &UDP_HEADER, 0x86DD);
        assert!(reflect(&mut bytes));
        assert_eq!(bytes[22..38], [2; 16]);
        assert_eq!(bytes[38..54], [1; 16]);
        assert_eq!(bytes[54..58], [0, 7, 0x30, 0x39]);
    }

    proptest! {
        /// Whatever is refused is untouched; whatever is turned around twice is what it was.
        #[test]
        fn twice_is_nothing(mut bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0..3_u8) {
            if bytes.len() > 24 && kind < 2 {
                let (ethertype, at) = if kind == 0 { ([0x08, 0x00], 23) } else { ([0x86, 0xDD], 20) };
                bytes[12..14].copy_from_slice(&ethertype);
                bytes[at] = UDP;
            }
            let before = bytes.clone();
            if reflect(&mut bytes) {
                prop_assert!(reflect(&mut bytes));
            }
            prop_assert_eq!(bytes, before);
        }
    }
}
