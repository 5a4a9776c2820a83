//! The AF_XDP driver on the real kernel: a veth pair in a namespace of its own for each test.

mod driver_support;

use dataplane::driver::{
    AfXdp, AfXdpOptions, AttachMode, Attempt, Batch, BindMode, BusyPoll, Driver, DriverError,
    Interface, Link, ObtainedMode, QueueStatistics, Wakeup, attempts,
};
use driver_support::*;
use stack::frame::{Frame as _, FramePool as _};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const COPY: Attempt = Attempt {
    attach: AttachMode::Native,
    bind: BindMode::Copy,
};

fn options(queues: &[u32]) -> AfXdpOptions {
    AfXdpOptions {
        rx_ring: 256,
        tx_ring: 256,
        fill_ring: 256,
        completion_ring: 256,
        frames: 1024,
        ..AfXdpOptions::new(DEVICE, queues.to_vec(), COPY)
    }
}

fn open(queues: &[u32]) -> AfXdp {
    AfXdp::open(&options(queues)).expect("the driver opens")
}

/// Sends packets numbered from `first` on alternating queues, as fast as the driver takes them.
fn send_numbered(driver: &mut AfXdp, first: u32, count: u32, queues: u8) {
    for number in first..first + count {
        let mut next = None;
        until("a frame to send", || {
            driver.flush();
            next = driver.take();
            next.is_some()
        });
        let mut frame = next.expect("a frame");
        let bytes = packet(7, number);
        frame.set_len(bytes.len());
        frame.data_mut().copy_from_slice(&bytes);
        frame.set_queue(u8::try_from(number % u32::from(queues)).expect("a queue"));
        let mut unsent = Some(frame);
        until("room to send", || {
            unsent = driver.tx(unsent.take().expect("unsent")).err();
            driver.flush();
            unsent.is_none()
        });
    }
}

fn collect_numbered(
    peer: &PacketSocket,
    count: usize,
    mut meanwhile: impl FnMut(),
) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    until("packets at the peer", || {
        meanwhile();
        while let Some(packet) = peer.receive() {
            if let Some(number) = number_in(&packet) {
                assert!(numbers.insert(number), "packet {number} came twice");
            }
        }
        numbers.len() >= count
    });
    numbers
}

/// Sends back whatever comes, until `count` packets have.
fn echo(driver: &mut AfXdp, count: usize, mut look: impl FnMut(&[u8], u64, u64, u8)) {
    let mut batch = Batch::with_capacity(64);
    let mut seen = 0;
    until("packets to echo", || {
        seen += driver.rx(&mut batch, now_ns());
        for frame in batch.drain() {
            let stamps = frame.stamps();
            look(
                frame.data(),
                stamps.arrival_ns,
                stamps.taken_ns,
                frame.queue(),
            );
            if let Err(frame) = driver.tx(frame) {
                driver.flush();
                driver.tx(frame).expect("room after a flush");
            }
        }
        driver.flush();
        seen >= count
    });
}

fn statistics(driver: &AfXdp) -> Vec<QueueStatistics> {
    let mut statistics = Vec::new();
    driver.statistics(&mut statistics);
    statistics
}

fn sum(driver: &AfXdp, of: impl Fn(&QueueStatistics) -> u64) -> u64 {
    statistics(driver).iter().map(of).sum()
}

/// All frames are accounted for, and none is out.
fn assert_all_accounted_for(driver: &AfXdp) {
    let census = driver.census();
    assert_eq!(census.out, 0, "{census:?}");
    assert_eq!(census.home + census.in_rings, census.total, "{census:?}");
}

#[test]
fn packets_sent_on_two_queues_of_one_worker_arrive_at_the_peer() {
    in_namespace(
        "packets_sent_on_two_queues_of_one_worker_arrive_at_the_peer",
        || {
            veth(2);
            let peer = PacketSocket::open(PEER);
            let mut driver = open(&[0, 1]);
            assert_eq!(driver.report().mode, ObtainedMode::Copy);
            assert_eq!(driver.report().queues, [0, 1]);
            assert_eq!(driver.report().driver, "veth");
            // More than all frames there are: they have to come back through the completion rings.
            const COUNT: u32 = 5000;
            send_numbered(&mut driver, 0, COUNT, 2);
            let numbers = collect_numbered(&peer, COUNT as usize, || driver.flush());
            assert_eq!(numbers, (0..COUNT).collect());
            until("completions", || {
                driver.flush();
                sum(&driver, |queue| queue.tx_completions) == u64::from(COUNT)
            });
            assert_eq!(sum(&driver, |queue| queue.tx_invalid_descs), 0);
            for queue in statistics(&driver) {
                assert_eq!(queue.tx_packets, u64::from(COUNT / 2), "{queue:?}");
            }
            assert_all_accounted_for(&driver);
        },
    );
}

#[test]
fn two_workers_have_a_queue_each() {
    in_namespace("two_workers_have_a_queue_each", || {
        veth(2);
        let peer = PacketSocket::open(PEER);
        let mut drivers = [open(&[0]), open(&[1])];
        send_numbered(&mut drivers[0], 0, 500, 1);
        send_numbered(&mut drivers[1], 500, 500, 1);
        let numbers = collect_numbered(&peer, 1000, || {
            drivers.iter_mut().for_each(AfXdp::flush);
        });
        assert_eq!(numbers, (0..1000).collect());
    });
}

fn received_and_echoed(attach_flags: u32, attempt: Attempt, busy_poll: Option<BusyPoll>) {
    veth(2);
    let peer = PacketSocket::open(PEER);
    let redirect = Redirect::attach(DEVICE, attach_flags);
    let mut driver = AfXdp::open(&AfXdpOptions {
        attempt,
        busy_poll,
        ..options(&[0, 1])
    })
    .expect("opens");
    redirect.register(driver.sockets());
    assert_eq!(driver.report().mode, attempt.obtains());

    // Ten times as many as there are frames: the fill rings have to be refilled with what came back.
    const ROUNDS: u32 = 200;
    const BURST: u32 = 100;
    let mut by_queue = [0u32; 2];
    for round in 0..ROUNDS {
        let started_ns = now_ns();
        for number in 0..BURST {
            peer.send(&packet(
                u16::try_from(number).expect("small"),
                round * BURST + number,
            ));
        }
        echo(
            &mut driver,
            BURST as usize,
            |data, arrival_ns, taken_ns, queue| {
                let number = number_in(data).expect("one of ours");
                let flow = u16::try_from(number % BURST).expect("small");
                assert_eq!(
                    data,
                    packet(flow, number),
                    "packet {number} arrived changed"
                );
                assert!(
                    arrival_ns >= started_ns,
                    "no stamp of this packet: {arrival_ns}"
                );
                assert!(
                    arrival_ns <= taken_ns,
                    "arrived {arrival_ns}, taken {taken_ns}"
                );
                by_queue[usize::from(queue)] += 1;
            },
        );
        let numbers = collect_numbered(&peer, BURST as usize, || driver.flush());
        assert_eq!(numbers, (round * BURST..(round + 1) * BURST).collect());
    }
    // veth without a native program has no queues to speak of: all packets are of the first.
    if attempt.attach == AttachMode::Native {
        assert!(
            by_queue.iter().all(|&count| count > 0),
            "one queue had nothing: {by_queue:?}"
        );
    }
    assert_eq!(
        sum(&driver, |queue| queue.rx_packets),
        u64::from(ROUNDS * BURST)
    );
    assert_eq!(
        sum(&driver, |queue| queue.rx_refused
            + queue.rx_dropped
            + queue.rx_ring_full),
        0
    );
    assert_all_accounted_for(&driver);
}

#[test]
fn packets_are_received_stamped_and_echoed_in_copy_mode() {
    in_namespace(
        "packets_are_received_stamped_and_echoed_in_copy_mode",
        || {
            received_and_echoed(IN_DRIVER, COPY, None);
        },
    );
}

#[test]
fn packets_are_received_stamped_and_echoed_in_generic_mode() {
    in_namespace(
        "packets_are_received_stamped_and_echoed_in_generic_mode",
        || {
            let generic = attempts(config::Mode::Generic)[0];
            received_and_echoed(IN_STACK, generic, None);
        },
    );
}

#[test]
fn packets_are_received_with_preferred_busy_polling() {
    in_namespace("packets_are_received_with_preferred_busy_polling", || {
        received_and_echoed(
            IN_DRIVER,
            COPY,
            Some(BusyPoll {
                usecs: 20,
                budget: 64,
            }),
        );
    });
}

#[test]
fn packets_are_moved_without_need_wakeup_and_in_large_chunks() {
    in_namespace(
        "packets_are_moved_without_need_wakeup_and_in_large_chunks",
        || {
            veth(1);
            for interface in [DEVICE, PEER] {
                ip(&format!("link set {interface} mtu 3000"));
            }
            let peer = PacketSocket::open(PEER);
            let redirect = Redirect::attach(DEVICE, IN_DRIVER);
            let mut driver = AfXdp::open(&AfXdpOptions {
                need_wakeup: false,
                chunk_size: 4096,
                ..options(&[0])
            })
            .expect("opens");
            redirect.register(driver.sockets());
            // An Ethernet frame of the whole MTU, no two bytes in a row alike.
            let mut long: Vec<u8> = (0..3014u32).map(|at| (at % 251) as u8).collect();
            long[12..14].copy_from_slice(&[0x88, 0xb5]);
            for _ in 0..300 {
                peer.send(&long);
                echo(&mut driver, 1, |data, _, _, _| assert_eq!(data, long));
                until("the long packet back", || {
                    driver.flush();
                    peer.receive().is_some_and(|packet| packet == long)
                });
            }
            assert!(sum(&driver, |queue| queue.tx_kicks) >= 300);
            assert_all_accounted_for(&driver);
        },
    );
}

#[test]
fn huge_pages_carry_packets_where_they_are_required() {
    let name = "huge_pages_carry_packets_where_they_are_required";
    let free = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = free
        .lines()
        .find_map(|line| line.strip_prefix("HugePages_Free:"));
    if free
        .and_then(|free| free.trim().parse::<u32>().ok())
        .is_none_or(|free| free == 0)
    {
        println!("skipped: {name}: needs a free huge page (sysctl vm.nr_hugepages=1)");
        return;
    }
    in_namespace(name, || {
        veth(1);
        let peer = PacketSocket::open(PEER);
        // 1024 frames of 2048 bytes: one huge page.
        let huge_pages = config::HugePages::Require;
        let mut driver = AfXdp::open(&AfXdpOptions {
            huge_pages,
            ..options(&[0])
        })
        .expect("opens");
        assert!(driver.report().huge_pages);
        send_numbered(&mut driver, 0, 100, 1);
        collect_numbered(&peer, 100, || driver.flush());
    });
}

#[test]
fn queue_is_bound_again_ten_times_in_a_row() {
    in_namespace("queue_is_bound_again_ten_times_in_a_row", || {
        veth(2);
        let peer = PacketSocket::open(PEER);
        for turn in 0..10 {
            let mut driver = open(&[0, 1]);
            send_numbered(&mut driver, turn, 1, 1);
            collect_numbered(&peer, 1, || driver.flush());
        }
    });
}

#[test]
fn zero_copy_that_cannot_be_had_is_an_error_that_says_what_to_do() {
    in_namespace(
        "zero_copy_that_cannot_be_had_is_an_error_that_says_what_to_do",
        || {
            veth(1);
            let attempt = attempts(config::Mode::ZeroCopy)[0];
            let error = AfXdp::open(&AfXdpOptions {
                attempt,
                ..options(&[0])
            })
            .unwrap_err();
            assert!(error.mode_refusal().is_some(), "{error:?}");
            let sentence = error.to_string();
            assert!(
                sentence.contains("dut0 (driver veth) refuses zero-copy on queue 0")
                    && sentence.contains("mode copy"),
                "{sentence}"
            );
            // The refused socket holds nothing: the next mode has the queue at once.
            drop(open(&[0]));
        },
    );
}

#[test]
fn queue_that_somebody_else_has_is_an_error() {
    in_namespace("queue_that_somebody_else_has_is_an_error", || {
        veth(2);
        let _first = open(&[1]);
        let error = AfXdp::open(&options(&[0, 1])).unwrap_err();
        assert_eq!(
            error,
            DriverError::QueueBusy {
                interface: DEVICE.to_owned(),
                queue_id: 1
            }
        );
        // Queue 0 was bound on the way there, and is free again.
        drop(open(&[0]));
    });
}

#[test]
fn options_that_cannot_be_are_errors() {
    in_namespace("options_that_cannot_be_are_errors", || {
        veth(2);
        let refused = |options: AfXdpOptions| AfXdp::open(&options).unwrap_err().to_string();
        for (options, expected) in [
            (options(&[2]), "dut0 has no queue 2: it has 2"),
            (options(&[0, 0]), "queue 0 is listed twice"),
            (options(&[]), "0 queues is outside 1 to 64"),
            (
                AfXdpOptions {
                    rx_ring: 100,
                    ..options(&[0])
                },
                "RX ring of 100 entries",
            ),
            (
                AfXdpOptions {
                    completion_ring: 128,
                    ..options(&[0])
                },
                "smaller than the TX ring",
            ),
            (
                AfXdpOptions {
                    frames: 256,
                    ..options(&[0])
                },
                "leave none to send with",
            ),
            (
                AfXdpOptions {
                    chunk_size: 8192,
                    ..options(&[0])
                },
                "chunk size 8192",
            ),
            (
                AfXdpOptions {
                    interface: "nothere0".to_owned(),
                    ..options(&[0])
                },
                "there is no interface nothere0",
            ),
            (
                AfXdpOptions {
                    interface: "lo".to_owned(),
                    ..options(&[0])
                },
                "not an Ethernet",
            ),
        ] {
            let sentence = refused(options);
            assert!(sentence.contains(expected), "{sentence}");
        }
    });
}

#[test]
fn process_without_privileges_is_told_so() {
    in_namespace("process_without_privileges_is_told_so", || {
        veth(1);
        // This thread's, and nobody else's.
        let none = rustix::thread::CapabilitySets {
            effective: rustix::thread::CapabilitySet::empty(),
            permitted: rustix::thread::CapabilitySet::empty(),
            inheritable: rustix::thread::CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none).expect("capabilities can be dropped");
        assert_eq!(
            AfXdp::open(&options(&[0])).unwrap_err(),
            DriverError::NotPermitted
        );
    });
}

#[test]
fn interface_says_what_it_is() {
    in_namespace("interface_says_what_it_is", || {
        veth(3);
        ip("link set dut0 mtu 1400 address 02:00:00:00:00:07");
        let interface = Interface::by_name(DEVICE).unwrap();
        assert_eq!(
            interface,
            Interface {
                name: DEVICE.to_owned(),
                index: index_of(DEVICE),
                driver: "veth".to_owned(),
                mac: [2, 0, 0, 0, 0, 7],
                mtu: 1400,
                up: true,
                carrier: true,
                rx_queues: 3,
                tx_queues: 3,
                strips_vlan_tags: true,
            }
        );
        ip("link set peer0 down");
        // The kernel takes its time to notice (linkwatch).
        until("the carrier to be lost", || {
            let interface = Interface::by_name(DEVICE).unwrap();
            interface.up && !interface.carrier
        });
    });
}

#[test]
fn link_that_goes_down_and_comes_back_is_survived() {
    in_namespace("link_that_goes_down_and_comes_back_is_survived", || {
        veth(2);
        let peer = PacketSocket::open(PEER);
        let redirect = Redirect::attach(DEVICE, IN_DRIVER);
        let mut driver = open(&[0, 1]);
        redirect.register(driver.sockets());
        let mut batch = Batch::with_capacity(64);
        let mut number = 0;
        for round in 0..5 {
            // The peer's own queues come back some time after its carrier (linkwatch), and what it
            // sends until then is lost: again, until an answer comes.
            until("an answer over the link", || {
                number += 1;
                peer.send(&packet(1, number));
                driver.rx(&mut batch, now_ns());
                for frame in batch.drain() {
                    driver.tx(frame).expect("room");
                }
                driver.flush();
                std::iter::from_fn(|| peer.receive()).any(|packet| number_in(&packet).is_some())
            });
            assert_eq!(driver.link(), Link::Up);

            ip("link set dut0 down");
            let mut frame = driver.take().expect("a frame");
            let bytes = packet(9, 1_000_000 + round);
            frame.set_len(bytes.len());
            frame.data_mut().copy_from_slice(&bytes);
            driver.tx(frame).expect("room");
            driver.flush();
            assert_eq!(driver.link(), Link::Down);
            // Neither an error nor a spin.
            let slept = Instant::now();
            assert_eq!(driver.wait(Duration::from_micros(400)), Wakeup::TimedOut);
            assert!(slept.elapsed() >= Duration::from_micros(400));

            ip("link set dut0 up");
            // What waited for the link leaves now.
            until("what waited for the link", || {
                driver.flush();
                std::iter::from_fn(|| peer.receive())
                    .any(|packet| number_in(&packet) == Some(1_000_000 + round))
            });
            assert_eq!(driver.link(), Link::Up);
        }
        assert_all_accounted_for(&driver);
    });
}

#[test]
fn interface_that_vanishes_is_noticed_and_survived() {
    in_namespace("interface_that_vanishes_is_noticed_and_survived", || {
        veth(1);
        let mut driver = open(&[0]);
        ip("link del dut0");
        let mut frame = driver.take().expect("a frame");
        frame.set_len(64);
        driver.tx(frame).expect("room");
        until("the loss to be noticed", || {
            driver.flush();
            driver.link() == Link::Gone
        });
        // Sleeping is still sleeping, and still ends when somebody calls.
        let slept = Instant::now();
        assert_eq!(driver.wait(Duration::from_micros(400)), Wakeup::TimedOut);
        assert!(slept.elapsed() >= Duration::from_micros(400));
        driver.waker().wake();
        assert_eq!(driver.wait(Duration::from_secs(10)), Wakeup::Woken);
        // Nothing is lost, and what was counted can still be read.
        assert_eq!(driver.census().out, 0);
        assert_eq!(sum(&driver, |queue| queue.tx_packets), 1);
        // A successor can be opened on an interface of the same name.
        drop(driver);
        veth(1);
        drop(open(&[0]));
    });
}

#[test]
fn interface_that_vanishes_while_nothing_is_sent_does_not_turn_sleep_into_a_spin() {
    let name = "interface_that_vanishes_while_nothing_is_sent_does_not_turn_sleep_into_a_spin";
    in_namespace(name, || {
        veth(1);
        let mut driver = open(&[0]);
        ip("link del dut0");
        let slept = Instant::now();
        let mut waits = 0;
        while slept.elapsed() < Duration::from_millis(100) {
            driver.flush();
            driver.wait(Duration::from_millis(20));
            waits += 1;
        }
        // Five sleeps, or a few more if each ends early; a spin makes tens of thousands.
        assert!(waits < 50, "{waits} waits in 100 ms");
        assert_eq!(driver.link(), Link::Gone);
    });
}

#[test]
fn sleep_ends_when_a_packet_comes_and_when_somebody_calls() {
    in_namespace(
        "sleep_ends_when_a_packet_comes_and_when_somebody_calls",
        || {
            veth(1);
            let peer = PacketSocket::open(PEER);
            let redirect = Redirect::attach(DEVICE, IN_DRIVER);
            let mut driver = open(&[0]);
            redirect.register(driver.sockets());
            assert_eq!(driver.wait(Duration::from_millis(1)), Wakeup::TimedOut);

            let waker = driver.waker();
            let caller = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                waker.wake();
            });
            assert_eq!(driver.wait(Duration::from_secs(10)), Wakeup::Woken);
            caller.join().unwrap();

            let sender = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                peer.send(&packet(1, 1));
                peer
            });
            assert_eq!(driver.wait(Duration::from_secs(10)), Wakeup::Packets);
            // Without sleeping at all, while it is still there.
            assert_eq!(driver.wait(Duration::from_secs(10)), Wakeup::Packets);
            let _peer = sender.join().unwrap();
            echo(&mut driver, 1, |_, _, _, _| {});
            assert_eq!(driver.wait(Duration::from_millis(1)), Wakeup::TimedOut);
        },
    );
}

#[test]
fn full_ring_hands_the_frame_back() {
    in_namespace("full_ring_hands_the_frame_back", || {
        veth(1);
        let mut driver = open(&[0]);
        // Nobody flushes: the ring fills up.
        let mut sent = 0;
        let back = loop {
            let mut frame = driver.take().expect("a frame");
            frame.set_len(60);
            match driver.tx(frame) {
                Ok(()) => sent += 1,
                Err(frame) => break frame,
            }
        };
        assert_eq!(sent, driver.report().tx_ring);
        assert_eq!(back.data().len(), 60);
        assert_eq!(driver.census().out, 1);
        assert_eq!(sum(&driver, |queue| queue.tx_ring_full), 1);
        driver.give(back);
        assert_all_accounted_for(&driver);
    });
}

#[test]
fn frame_too_short_for_any_wire_goes_home_and_is_counted() {
    in_namespace(
        "frame_too_short_for_any_wire_goes_home_and_is_counted",
        || {
            veth(1);
            let mut driver = open(&[0]);
            let home = driver.census().home;
            for len in [0, 13] {
                let mut frame = driver.take().expect("a frame");
                frame.set_len(len);
                driver.tx(frame).expect("refused, not handed back");
            }
            driver.flush();
            assert_eq!(sum(&driver, |queue| queue.tx_refused), 2);
            assert_eq!(sum(&driver, |queue| queue.tx_packets), 0);
            assert_eq!(driver.census().home, home);
        },
    );
}

#[test]
fn receiving_more_than_the_pool_has_leaves_frames_to_send_with() {
    in_namespace(
        "receiving_more_than_the_pool_has_leaves_frames_to_send_with",
        || {
            veth(1);
            let peer = PacketSocket::open(PEER);
            let redirect = Redirect::attach(DEVICE, IN_DRIVER);
            let mut driver = open(&[0]);
            redirect.register(driver.sockets());
            let frames = usize::try_from(driver.report().frames).unwrap();
            // A stack that holds on to everything it gets.
            let mut held = Vec::new();
            let mut batch = Batch::with_capacity(64);
            for number in 0..4 * driver.report().frames {
                peer.send(&packet(1, number));
                driver.rx(&mut batch, now_ns());
                held.extend(batch.drain());
                driver.flush();
            }
            let reserve = driver.report().tx_reserve;
            assert!(driver.census().home >= reserve, "{:?}", driver.census());
            assert!(held.len() <= frames - usize::try_from(reserve).unwrap());
            assert!(sum(&driver, |queue| queue.fill_short) > 0);
            for frame in held {
                driver.give(frame);
            }
            // And it goes on as if nothing had been.
            driver.flush();
            while driver.rx(&mut batch, now_ns()) > 0 {
                batch.drain().for_each(|frame| driver.give(frame));
                driver.flush();
            }
            peer.send(&packet(1, 77));
            echo(&mut driver, 1, |data, _, _, _| {
                assert_eq!(number_in(data), Some(77))
            });
            assert_all_accounted_for(&driver);
        },
    );
}

#[test]
fn frames_come_home_from_another_thread_even_after_their_driver_is_gone() {
    let name = "frames_come_home_from_another_thread_even_after_their_driver_is_gone";
    in_namespace(name, || {
        veth(1);
        let mut driver = open(&[0]);
        let home = driver.census().home;
        let frame_return = driver.frame_return();
        let (mut first, mut second) = (driver.take().unwrap(), driver.take().unwrap());
        let worker = std::thread::spawn(move || {
            first.set_len(100);
            first.data_mut().fill(7);
            frame_return.give(first);
        });
        worker.join().unwrap();
        driver.flush();
        assert_eq!(driver.census().home, home - 1);
        // The other one outlives the driver, and stays readable and writable.
        drop(driver);
        second.set_len(1000);
        second.data_mut().fill(9);
        assert_eq!(second.data(), [9; 1000]);
    });
}
