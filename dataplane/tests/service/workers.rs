//! Two workers on two queues, and packets on the wrong one.

use crate::support::lab::{Lab, lab, serve, serve_as};
use crate::support::service::Service;

pub(crate) const TWO: &str = "\n[workers]\ncores = [0, 1]\n";

/// Whether there are two cores to run on, which these tests cannot do without.
pub(crate) fn has_two_cores(test: &str) -> bool {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let has = [0, 1]
        .iter()
        .all(|id| cores.iter().any(|core| core.id == *id));
    if !has {
        println!("\nskipped: {test}: needs cores 0 and 1");
    }
    has
}

/// Asks from many source ports over both versions; all must be answered at once. Each queue gets
/// some of them: all 128 on one of two would be a coincidence of 2^-127.
fn ask_from_many_ports(lab: &Lab, port: u16) -> u64 {
    let mut asked = 0;
    for round in 0..64u64 {
        for host in ["10.77.0.1", "[fd77::1]"] {
            lab.client(&format!("{host}:{port}"))
                .echoes(&round.to_be_bytes());
            asked += 1;
        }
    }
    asked
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().sum()
}

#[test]
fn flows_spread_over_two_workers() {
    let test = "flows_spread_over_two_workers";
    let lab = lab!("flows_spread_over_two_workers", queues: 2);
    if !has_two_cores(test) {
        return;
    }
    let service = lab.start(&format!("{TWO}{}", serve("echo", &["[::]:7"])));
    assert_eq!(queues_of_workers(&service), [[0], [1]]);
    let asked = ask_from_many_ports(&lab, 7);
    let answered = service.counters_by_worker("event", "udp_tx");
    assert_eq!(sum(&answered), asked);
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
    assert_eq!(sum(&service.counters_by_worker("event", "handoff_tx")), 0);
}

#[test]
fn packets_on_the_wrong_queue_reach_the_worker_that_serves_them() {
    let test = "packets_on_the_wrong_queue_reach_the_worker_that_serves_them";
    let lab = lab!("packets_on_the_wrong_queue_reach_the_worker_that_serves_them", queues: 2);
    if !has_two_cores(test) {
        return;
    }
    let service = lab.start(&format!(
        "{TWO}{}{}",
        serve_as("one", "echo", &["[::]:7"], "workers = [1]"),
        serve_as("zero", "echo", &["[::]:8"], "workers = [0]"),
    ));
    let counted = |name| service.counters_by_worker("event", name);
    let asked = ask_from_many_ports(&lab, 7);
    assert_eq!(counted("udp_tx"), [0, asked], "worker 1 serves all");
    let (tx, rx) = (counted("handoff_tx"), counted("handoff_rx"));
    assert!(tx[0] > 0 && tx[0] < asked, "{tx:?}");
    assert_eq!((tx[1], rx[0], rx[1]), (0, 0, tx[0]));

    let again = ask_from_many_ports(&lab, 8);
    assert_eq!(counted("udp_tx"), [again, asked]);
    assert_eq!(counted("handoff_rx")[0], counted("handoff_tx")[1]);
    assert_eq!(service.counter("drop", "handoff_full"), 0);
}

#[test]
fn one_worker_serves_two_queues() {
    let lab = lab!("one_worker_serves_two_queues", queues: 2);
    let config = format!("\n[workers]\ncores = [0]\n{}", serve("echo", &["[::]:7"]));
    let service = lab.start(&config);
    assert_eq!(queues_of_workers(&service), [[0, 1]]);
    let asked = ask_from_many_ports(&lab, 7);
    let queues = ["queue_0", "queue_1"].map(|queue| service.counter(queue, "rx_packets"));
    assert_eq!(sum(&queues), asked);
    assert!(queues.iter().all(|count| *count > 0), "{queues:?}");
}

#[test]
fn own_addresses_work_on_every_worker() {
    let test = "own_addresses_work_on_every_worker";
    let lab = lab!("own_addresses_work_on_every_worker", queues: 2);
    if !has_two_cores(test) {
        return;
    }
    // Neighbours are learned by the worker that sees them, and told to the others.
    let own = "own_addresses = [\"10.77.0.50/24\", \"fd77::50/64\"]";
    let service = lab.start(&format!(
        "{TWO}{}",
        serve_as("echo", "echo", &["10.77.0.50:7", "[fd77::50]:7"], own)
    ));
    for round in 0..32u64 {
        for to in ["10.77.0.50:7", "[fd77::50]:7"] {
            lab.client(to).echoes(&round.to_be_bytes());
        }
    }
    let answered = service.counters_by_worker("event", "udp_tx");
    assert_eq!(sum(&answered), 64);
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
}

fn queues_of_workers(service: &Service) -> Vec<Vec<u64>> {
    let info = service.ask_json("info");
    let workers = info["workers"].as_array().expect("a list").iter();
    let queues = |worker: &serde_json::Value| -> Vec<u64> {
        let queues = worker["queues"].as_array().expect("a list").iter();
        queues
            .map(|queue| queue.as_u64().expect("a number"))
            .collect()
    };
    workers.map(queues).collect()
}
