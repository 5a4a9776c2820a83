//! Everything observed as metrics in the OpenMetrics text format, which Prometheus reads.

use crate::observe::{
    counters::{Counters, Group, Kind, Row},
    latency::Stage,
    observation::{Info, Observation, WorkerHistograms},
};
use hdrhistogram::Histogram;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};
use std::{collections::BTreeMap, fmt};

/// What an HTTP answer with these metrics calls itself.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of the exported latency buckets, in nanoseconds: 1-2-5 steps from 500 ns, below which
/// no stage with a system call in it gets, to 1 s, beyond which a request is lost for most callers.
/// The full resolution is in the `.hgrm` files and in `dataplane latency`.
const BUCKETS_NS: [u64; 20] = [
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
];

/// Quantiles exported ready-made, over all workers since the start, from the full-resolution
/// histograms; buckets can only approximate these.
const QUANTILES: [(&str, f64); 5] = [
    ("0.5", 0.5),
    ("0.9", 0.9),
    ("0.99", 0.99),
    ("0.999", 0.999),
    ("0.9999", 0.9999),
];

/// The metrics as text.
#[must_use]
pub fn encode(observation: Observation) -> String {
    let mut registry = Registry::with_prefix("dataplane");
    registry.register_collector(Box::new(Scrape(observation)));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("invariant: a String takes all text");
    out
}

/// One observation, as a collector that lives for one scrape.
#[derive(Debug)]
struct Scrape(Observation);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Observation {
            info,
            counters,
            latency,
        } = &self.0;
        encode_info(&mut encoder, info)?;
        encode_counters(&mut encoder, counters)?;
        encode_histograms(&mut encoder, latency)?;
        encode_quantiles(&mut encoder, &self.0)
    }
}

fn encode_info(encoder: &mut DescriptorEncoder<'_>, info: &Info) -> fmt::Result {
    let labels = [
        ("version", info.version.as_str()),
        ("interface", info.interface.name.as_str()),
        ("driver", info.interface.driver.as_deref().unwrap_or("")),
        ("mode", info.mode.obtained.as_str()),
        ("mode_requested", info.mode.requested.as_str()),
        ("attached", info.mode.attached.as_str()),
    ];
    encoder
        .encode_descriptor(
            "service",
            "What runs and in which mode.",
            None,
            MetricType::Info,
        )?
        .encode_info(&labels)?;
    let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
        encoder
            .encode_descriptor(name, help, unit, MetricType::Gauge)?
            .encode_gauge(&value)
    };
    let interface = &info.interface;
    gauge(
        "uptime",
        "How long the service has run.",
        Some(&Unit::Seconds),
        info.uptime_s,
    )?;
    let up = f64::from(u8::from(interface.up));
    gauge(
        "link_up",
        "Whether the link has a carrier: 1 or 0.",
        None,
        up,
    )?;
    let mtu = f64::from(interface.mtu);
    gauge(
        "link_mtu",
        "Largest IP packet of the link.",
        Some(&Unit::Bytes),
        mtu,
    )?;
    gauge(
        "neighbors",
        "Neighbours mirrored from the kernel.",
        None,
        count(interface.neighbors),
    )?;
    gauge(
        "routes",
        "Routes mirrored from the kernel.",
        None,
        count(interface.routes),
    )?;
    let alive = info.workers.iter().filter(|worker| worker.alive).count();
    gauge(
        "workers_alive",
        "Workers that are running.",
        None,
        count(alive),
    )
}

/// A count as a gauge; no table here comes near 2⁵³ entries.
#[allow(clippy::cast_precision_loss)]
fn count(n: usize) -> f64 {
    n as f64
}

/// The samples of one metric.
struct Family<'a> {
    help: &'a str,
    kind: Kind,
    /// Labels and values.
    samples: Vec<(Vec<(&'static str, String)>, u64)>,
}

/// One metric for each name, with a `worker` label where workers count by themselves and a `queue`
/// label where they count for each of their queues.
fn encode_counters(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> fmt::Result {
    let Counters { workers, shared } = counters;
    let of_workers = workers.iter().flat_map(|worker| {
        let groups = worker.groups.iter();
        groups.map(|group| (Some(worker.worker), group))
    });
    let groups = of_workers.chain(shared.iter().map(|group| (None, group)));
    let mut families: BTreeMap<String, Family<'_>> = BTreeMap::new();
    for (worker, group) in groups {
        let Group {
            name,
            queue,
            kind,
            rows,
        } = group;
        let worker = worker.map(|worker| ("worker", worker.to_string()));
        let queue = queue.map(|queue| ("queue", queue.to_string()));
        let labels: Vec<_> = worker.into_iter().chain(queue).collect();
        for Row {
            name: row,
            help,
            value,
        } in rows
        {
            let family = families.entry(metric_name(name, row)).or_insert(Family {
                help,
                kind: *kind,
                samples: Vec::new(),
            });
            family.samples.push((labels.clone(), *value));
        }
    }
    for (name, family) in &families {
        encode_family(encoder, name, family)?;
    }
    Ok(())
}

fn encode_family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    family: &Family<'_>,
) -> fmt::Result {
    let Family {
        help,
        kind,
        samples,
    } = family;
    let metric_type = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
    for (labels, value) in samples {
        if labels.is_empty() {
            encode_value(&mut metric, *kind, *value)?;
        } else {
            encode_value(&mut metric.encode_family(labels)?, *kind, *value)?;
        }
    }
    Ok(())
}

fn encode_value(metric: &mut MetricEncoder<'_>, kind: Kind, value: u64) -> fmt::Result {
    match kind {
        Kind::Counter => metric.encode_counter::<[(&str, &str); 0], u64, u64>(&value, None),
        Kind::Gauge => metric.encode_gauge(&value),
    }
}

/// `drop` and `udp-checksum` as `drop_udp_checksum`: only what a metric name may contain.
fn metric_name(group: &str, row: &str) -> String {
    format!("{group}_{row}")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect()
}

fn encode_histograms(
    encoder: &mut DescriptorEncoder<'_>,
    workers: &[WorkerHistograms],
) -> fmt::Result {
    let help = "How long packets took, by stage";
    let unit = Some(&Unit::Seconds);
    let mut family = encoder.encode_descriptor("latency", help, unit, MetricType::Histogram)?;
    for WorkerHistograms { worker, latency } in workers {
        for (stage, histogram) in latency.iter() {
            let labels = [
                ("stage", stage.name().to_owned()),
                ("worker", worker.to_string()),
            ];
            let sum = histogram.mean() * count_as_f64(histogram.len()) / NS_PER_S;
            let sum = if histogram.is_empty() { 0.0 } else { sum };
            family
                .encode_family(&labels)?
                .encode_histogram::<[(&str, &str); 0]>(
                    sum,
                    histogram.len(),
                    &buckets(histogram),
                    None,
                )?;
        }
    }
    Ok(())
}

/// Nanoseconds in a second.
const NS_PER_S: f64 = 1e9;

/// A count in a sum; from 2⁵³ on, its last digits do not matter to a mean.
#[allow(clippy::cast_precision_loss)]
fn count_as_f64(n: u64) -> f64 {
    n as f64
}

/// Upper end in seconds and how many fell between it and the end before, the last bucket without
/// end: what the encoder sums up by itself.
fn buckets(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let mut counts = [0u64; BUCKETS_NS.len() + 1];
    for value in histogram.iter_recorded() {
        let bucket = BUCKETS_NS.partition_point(|&end| end < value.value_iterated_to());
        counts[bucket] += value.count_at_value();
    }
    let ends = BUCKETS_NS.iter().map(|&ns| count_as_f64(ns) / NS_PER_S);
    ends.chain(std::iter::once(f64::INFINITY))
        .zip(counts)
        .collect()
}

fn encode_quantiles(encoder: &mut DescriptorEncoder<'_>, observation: &Observation) -> fmt::Result {
    let Some(all) = observation.latency_of_all() else {
        return Ok(());
    };
    let help = "Quantiles over all workers since the start";
    let unit = Some(&Unit::Seconds);
    let mut family =
        encoder.encode_descriptor("latency_quantile", help, unit, MetricType::Gauge)?;
    for &stage in Stage::ALL {
        let histogram = all.stage(stage);
        if histogram.is_empty() {
            continue;
        }
        let quantiles = QUANTILES
            .iter()
            .map(|&(name, q)| (name, histogram.value_at_quantile(q)));
        for (name, ns) in quantiles.chain([("1", histogram.max())]) {
            let labels = [("stage", stage.name()), ("quantile", name)];
            family
                .encode_family(&labels)?
                .encode_gauge(&(count_as_f64(ns) / NS_PER_S))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{
        counters::WorkerCounters,
        latency::WorkerLatency,
        observation::{InterfaceInfo, ModeInfo},
    };

    fn observation() -> Observation {
        let mut latency = WorkerLatency::new(3).unwrap();
        latency.record_n(Stage::Whole, 1_500, 3);
        latency.record(Stage::Whole, 2_000_000_000);
        let worker = |worker, rx| WorkerCounters {
            worker,
            groups: vec![
                Group::counters("event", [("frame_rx", "Frames received.", rx)]),
                Group::gauges("ring", [("fill-free", "Free slots.", 7u64)]),
                Group::counters("queue", [("rx", "Received.", rx + 1)]).of_queue(4),
                Group::counters("queue", [("rx", "Received.", rx + 2)]).of_queue(6),
            ],
        };
        Observation {
            info: Info {
                version: "0.1.0".into(),
                interface: InterfaceInfo {
                    name: "eth\"0".into(),
                    up: true,
                    mtu: 1500,
                    neighbors: 3,
                    ..InterfaceInfo::default()
                },
                mode: ModeInfo {
                    obtained: "copy".into(),
                    ..ModeInfo::default()
                },
                ..Info::default()
            },
            counters: Counters {
                workers: vec![worker(0, 10), worker(1, 32)],
                shared: vec![Group::counters("steering", [("to_socket", "Ours.", 42)])],
            },
            latency: vec![WorkerHistograms { worker: 0, latency }],
        }
    }

    fn has(text: &str, line: &str) {
        assert!(
            text.lines().any(|have| have == line),
            "no line {line:?} in:\n{text}"
        );
    }

    #[test]
    fn counters_gauges_and_info() {
        let text = encode(observation());
        has(&text, "# HELP dataplane_event_frame_rx Frames received.");
        has(&text, "# TYPE dataplane_event_frame_rx counter");
        has(&text, "dataplane_event_frame_rx_total{worker=\"0\"} 10");
        has(&text, "dataplane_event_frame_rx_total{worker=\"1\"} 32");
        has(&text, "dataplane_ring_fill_free{worker=\"1\"} 7");
        has(&text, "dataplane_steering_to_socket_total 42");
        for line in [
            "dataplane_queue_rx_total{worker=\"0\",queue=\"4\"} 11",
            "dataplane_queue_rx_total{worker=\"0\",queue=\"6\"} 12",
            "dataplane_queue_rx_total{worker=\"1\",queue=\"6\"} 34",
        ] {
            has(&text, line);
        }
        has(&text, "dataplane_link_up 1.0");
        has(&text, "dataplane_neighbors 3.0");
        let info = text
            .lines()
            .find(|line| line.starts_with("dataplane_service_info"))
            .unwrap();
        assert!(
            info.contains("mode=\"copy\"") && info.contains("interface=\"eth\\\"0\""),
            "{info}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn latency_is_cumulative_in_seconds() {
        let text = encode(observation());
        let bucket = |le: &str| {
            format!("dataplane_latency_seconds_bucket{{le=\"{le}\",stage=\"whole\",worker=\"0\"}}")
        };
        has(&text, &format!("{} 0", bucket("0.000001")));
        has(&text, &format!("{} 3", bucket("0.000002")));
        has(&text, &format!("{} 3", bucket("1.0")));
        has(&text, &format!("{} 4", bucket("+Inf")));
        has(
            &text,
            "dataplane_latency_seconds_count{stage=\"whole\",worker=\"0\"} 4",
        );
        let quantile = "dataplane_latency_quantile_seconds{stage=\"whole\",quantile=\"0.5\"}";
        has(&text, &format!("{quantile} 0.0000015"));
    }

    /// Every sample belongs to a declared family, and no family is declared twice.
    #[test]
    fn families_are_declared_once() {
        let text = encode(observation());
        let mut seen = std::collections::HashSet::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split_whitespace().nth(2).unwrap();
            assert!(seen.insert(name.to_owned()), "{name} twice");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let sample = line.split(['{', ' ']).next().unwrap();
            assert!(
                seen.iter().any(|name| sample.starts_with(name.as_str())),
                "{sample}"
            );
        }
    }

    #[test]
    fn nothing_observed_is_still_valid() {
        assert!(encode(Observation::default()).ends_with("# EOF\n"));
    }
}
