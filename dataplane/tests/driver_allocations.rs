//! The seal on the hot path: once a driver is open, moving packets allocates nothing.

#[path = "../../stack/tests/support/allocator.rs"]
mod allocator;
mod driver_support;

use allocator::allocations;
use dataplane::driver::{
    AfXdp, AfXdpOptions, Batch, Driver, MemoryDriver, MemoryOptions, attempts,
};
use driver_support::*;
use stack::frame::Frame as _;
use std::time::Duration;

/// One turn of a worker: receive, send back, send one of its own, sleep.
fn turn(driver: &mut impl Driver, batch: &mut Batch, request: &[u8]) {
    driver.rx(batch, 1);
    for frame in batch.drain() {
        if let Err(frame) = driver.tx(frame) {
            driver.give(frame);
        }
    }
    if let Some(mut frame) = driver.take() {
        frame.set_len(request.len());
        frame.data_mut().copy_from_slice(request);
        if let Err(frame) = driver.tx(frame) {
            driver.give(frame);
        }
    }
    driver.flush();
    driver.wait(Duration::from_nanos(1));
}

#[test]
fn memory_driver_allocates_nothing_after_start() {
    let (mut driver, peer) = MemoryDriver::with_peer(MemoryOptions::default()).unwrap();
    let mut batch = Batch::with_capacity(64);
    let request = packet(1, 1);
    let mut collected = 0;
    let allocations = allocations(|| {
        for _ in 0..2000 {
            peer.inject(&request);
            turn(&mut driver, &mut batch, &request);
            while peer.collect_with(<[u8]>::len).is_some() {
                collected += 1;
            }
        }
    });
    assert_eq!(allocations, 0);
    assert_eq!(collected, 4000, "the turns moved packets both ways");
}

#[test]
fn af_xdp_driver_allocates_nothing_after_start() {
    in_namespace("af_xdp_driver_allocates_nothing_after_start", || {
        veth(2);
        let peer = PacketSocket::open(PEER);
        let redirect = Redirect::attach(DEVICE, IN_DRIVER);
        let attempt = attempts(config::Mode::Copy)[0];
        let mut driver = AfXdp::open(&AfXdpOptions::new(DEVICE, vec![0, 1], attempt)).unwrap();
        redirect.register(driver.sockets());
        let mut batch = Batch::with_capacity(64);
        let request = packet(1, 1);
        let mut statistics = Vec::with_capacity(2);
        let allocations = allocations(|| {
            for _ in 0..2000 {
                peer.send(&request);
                turn(&mut driver, &mut batch, &request);
            }
            driver.statistics(&mut statistics);
        });
        assert_eq!(allocations, 0);
        assert!(statistics.iter().all(|queue| queue.rx_refused == 0));
        let received: u64 = statistics.iter().map(|queue| queue.rx_packets).sum();
        let sent: u64 = statistics.iter().map(|queue| queue.tx_packets).sum();
        assert!(
            received > 1000 && sent > 3000,
            "received {received}, sent {sent}"
        );
    });
}
