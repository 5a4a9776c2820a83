//! How the service ends, and what it leaves behind.

use crate::support::kernel::Server;
use crate::support::lab::{lab, serve};
use crate::support::load::Load;
use crate::support::{assert_says, until};
use rustix::fs::OFlags;
use std::io::Write;

const ECHO: [&str; 2] = ["10.77.0.1:7", "[fd77::1]:7"];

#[test]
fn ten_restarts_in_a_row() {
    let lab = lab!("ten_restarts_in_a_row", queues: 2);
    for round in 0..10u8 {
        let service = lab.start(&serve("echo", &["[::]:7"]));
        for to in ECHO {
            lab.client(to).echoes(&[round]);
        }
        // The sockets of one that was killed are released later than those of one that ended.
        if round % 2 == 0 {
            service.kill();
        } else {
            service.stop();
        }
    }
    lab.until_no_program();
}

#[test]
fn kill_9_leaves_the_interface_with_the_kernel() {
    let lab = lab!("kill_9_leaves_the_interface_with_the_kernel", queues: 2);
    let kernel = ECHO.map(|local| Server::udp(&lab.server, local));
    let service = lab.start(&serve("echo", &["[::]:7"]));
    let loads = ECHO.map(|to| Load::start_lossy(&lab, to));
    until("the service has the port", || {
        loads.iter().all(|load| load.by_service() > 10)
    });
    assert_says(
        &lab.server.ip("-d link show dev dp0"),
        &["prog/xdp", "dataplane_steer"],
    );
    service.kill();
    until("the kernel has the port", || {
        loads.iter().all(|load| load.by_kernel() > 10)
    });
    lab.until_no_program();
    drop(kernel);
    for to in ECHO {
        let client = lab.client(to);
        until("nobody has the port", || client.is_refused());
    }
}

#[test]
fn sigterm_hands_the_port_to_the_kernel_without_losing_an_answer() {
    let lab = lab!("sigterm_hands_the_port_to_the_kernel_without_losing_an_answer", queues: 2);
    let _kernel = ECHO.map(|local| Server::udp(&lab.server, local));
    let service = lab.start(&serve("echo", &["[::]:7"]));
    let loads = [ECHO, ECHO].concat();
    let loads: Vec<_> = loads.into_iter().map(|to| Load::start(&lab, to)).collect();
    until("the service has the port", || {
        loads.iter().all(|load| load.by_service() > 100)
    });
    let said = service.stop();
    until("the kernel has the port", || {
        loads.iter().all(|load| load.by_kernel() > 100)
    });
    let lost: Vec<u64> = loads.iter().map(Load::lost).collect();
    let answered: u64 = loads.iter().map(Load::by_service).sum();
    assert_eq!(
        lost, [0; 4],
        "of {answered} that the service answered; {said}"
    );
    assert_says(&said.stdout, &["whole", "udp_tx"]);
    lab.until_no_program();
}

/// A link that is down takes no answers, and a pipe that nobody reads no report: neither keeps the
/// service from ending.
#[test]
fn the_service_ends_in_time_with_the_link_down_and_nobody_reading() {
    let lab = lab!("the_service_ends_in_time_with_the_link_down_and_nobody_reading", queues: 2);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).expect("a flag");
    while writer.write(&[b'.'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, OFlags::empty()).expect("a flag");
    let service = lab.start_with_stdout(&serve("echo", &["[::]:7"]), writer);
    let load = Load::start_lossy(&lab, ECHO[0]);
    until("the service answers", || load.by_service() > 100);
    lab.server.ip("link set dp0 down");
    let done = service.stop();
    assert_says(&done.stderr, &["nobody takes the report"]);
    drop(reader);
    lab.until_no_program();
}
