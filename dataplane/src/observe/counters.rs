//! Counters and gauges with names, groups and help texts, gathered for people and machines.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only grows while the service runs.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its name: subject, action, unit.
    pub name: Cow<'static, str>,
    /// One sentence for people.
    pub help: Cow<'static, str>,
    /// What it stands at.
    pub value: u64,
}

/// Numbers that belong together, such as the reasons for drops or the statistics of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What they have in common: `drop`, `event`, `queue`, `steering`.
    pub name: Cow<'static, str>,
    /// The NIC's number of the queue they are of, if they are of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// Whether they only grow.
    pub kind: Kind,
    /// The numbers, in the order their owner lists them.
    pub rows: Vec<Row>,
}

impl Group {
    /// Counters from `(name, help, value)`, as a counter table lists them.
    pub fn counters<N, H>(
        name: impl Into<Cow<'static, str>>,
        rows: impl IntoIterator<Item = (N, H, u64)>,
    ) -> Self
    where
        N: Into<Cow<'static, str>>,
        H: Into<Cow<'static, str>>,
    {
        Self::new(name, Kind::Counter, rows)
    }

    /// Gauges from `(name, help, value)`.
    pub fn gauges<N, H>(
        name: impl Into<Cow<'static, str>>,
        rows: impl IntoIterator<Item = (N, H, u64)>,
    ) -> Self
    where
        N: Into<Cow<'static, str>>,
        H: Into<Cow<'static, str>>,
    {
        Self::new(name, Kind::Gauge, rows)
    }

    /// The same, of one queue.
    #[must_use]
    pub fn of_queue(self, queue: u32) -> Self {
        Self {
            queue: Some(queue),
            ..self
        }
    }

    /// What tables and JSON call it: its name, with the queue where there is one (`queue_0`).
    #[must_use]
    pub fn title(&self) -> Cow<'static, str> {
        match self.queue {
            None => self.name.clone(),
            Some(queue) => format!("{}_{queue}", self.name).into(),
        }
    }

    /// Whether both count the same things, in other places.
    fn is_like(&self, other: &Self) -> bool {
        (&self.name, self.queue) == (&other.name, other.queue)
    }

    fn new<N, H>(
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        rows: impl IntoIterator<Item = (N, H, u64)>,
    ) -> Self
    where
        N: Into<Cow<'static, str>>,
        H: Into<Cow<'static, str>>,
    {
        let rows = rows
            .into_iter()
            .map(|(name, help, value)| Row {
                name: name.into(),
                help: help.into(),
                value,
            })
            .collect();
        Self {
            name: name.into(),
            queue: None,
            kind,
            rows,
        }
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.rows
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.value)
    }
}

/// One worker's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCounters {
    /// Which worker, counted from 0.
    pub worker: usize,
    /// Its groups.
    pub groups: Vec<Group>,
}

/// All numbers of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// What each worker counts by itself.
    pub workers: Vec<WorkerCounters>,
    /// What is counted once for all of them, such as the steering program's verdicts.
    pub shared: Vec<Group>,
}

impl Counters {
    /// Groups summed over the workers, in the first worker's order, then the shared ones. Gauges
    /// are summed too: a sum of queue lengths is the length of all queues.
    #[must_use]
    pub fn total(&self) -> Vec<Group> {
        let mut total: Vec<Group> = Vec::new();
        for group in self.workers.iter().flat_map(|worker| &worker.groups) {
            match total.iter_mut().find(|have| have.is_like(group)) {
                Some(have) => add(have, group),
                None => total.push(group.clone()),
            }
        }
        total.extend(self.shared.iter().cloned());
        total
    }

    /// For machines: `{"total": {group: {name: value}}, "workers": [{"worker": 0, "counters": {group:
    /// …}}], "shared": {group: …}}`. Zeros are included, so that a reader never has to guess.
    #[must_use]
    pub fn json(&self) -> Value {
        let worker =
            |one: &WorkerCounters| json!({"worker": one.worker, "counters": by_name(&one.groups)});
        json!({
            "total": by_name(&self.total()),
            "workers": self.workers.iter().map(worker).collect::<Vec<_>>(),
            "shared": by_name(&self.shared),
        })
    }

    /// A table for people: one row for each number that is not zero (`verbose`: for all of them),
    /// with its sum, its value for each worker if there are several, and what it means.
    #[must_use]
    pub fn table(&self, verbose: bool) -> String {
        let mut text = String::new();
        self.write_table(&mut text, verbose)
            .expect("invariant: a String takes all text");
        text
    }

    fn write_table(&self, out: &mut String, verbose: bool) -> fmt::Result {
        let workers: &[WorkerCounters] = if self.workers.len() > 1 {
            &self.workers
        } else {
            &[]
        };
        let total = self.total();
        let shown = |row: &&Row| verbose || row.value != 0;
        let width = total
            .iter()
            .flat_map(|g| &g.rows)
            .filter(shown)
            .map(|row| row.name.len())
            .max();
        let Some(width) = width else {
            return writeln!(out, "every counter is zero");
        };
        for group in &total {
            if !group.rows.iter().any(|row| shown(&row)) {
                continue;
            }
            write!(
                out,
                "{:<width$} {:>14}",
                format!("[{}]", group.title()),
                "total"
            )?;
            for worker in workers {
                write!(out, " {:>14}", format!("worker {}", worker.worker))?;
            }
            writeln!(out)?;
            for row in group.rows.iter().filter(shown) {
                write!(out, "{:<width$} {:>14}", row.name, row.value)?;
                for worker in workers {
                    let value = worker
                        .groups
                        .iter()
                        .find(|g| g.is_like(group))
                        .and_then(|g| g.get(&row.name));
                    match value {
                        Some(value) => write!(out, " {value:>14}")?,
                        None => write!(out, " {:>14}", "-")?,
                    }
                }
                writeln!(out, "  {}", row.help)?;
            }
        }
        Ok(())
    }
}

fn add(to: &mut Group, from: &Group) {
    for row in &from.rows {
        match to.rows.iter_mut().find(|have| have.name == row.name) {
            Some(have) => have.value = have.value.wrapping_add(row.value),
            None => to.rows.push(row.clone()),
        }
    }
}

/// Groups as `{group: {name: value}}`.
fn by_name(groups: &[Group]) -> Value {
    let rows = |group: &Group| -> Map<String, Value> {
        group
            .rows
            .iter()
            .map(|row| (row.name.to_string(), row.value.into()))
            .collect()
    };
    groups
        .iter()
        .map(|group| (group.title().into_owned(), rows(group).into()))
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(worker: usize, rx: u64, bad: u64) -> WorkerCounters {
        let groups = vec![
            Group::counters("event", [("frame_rx", "Frames received.", rx)]),
            Group::counters(
                "drop",
                [
                    ("udp_checksum", "The checksum is wrong.", bad),
                    ("arp_short", "Cut short.", 0),
                ],
            ),
        ];
        WorkerCounters { worker, groups }
    }

    fn two() -> Counters {
        Counters {
            workers: vec![worker(0, 10, 0), worker(1, 32, 3)],
            shared: vec![Group::counters("steering", [("to_socket", "Ours.", 42)])],
        }
    }

    #[test]
    fn table_hides_zeros_unless_asked() {
        let table = two().table(false);
        let line = table.lines().find(|l| l.starts_with("frame_rx")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["frame_rx", "42", "10", "32", "Frames", "received."]);
        assert!(!table.contains("arp_short"));
        let steering = table.lines().find(|l| l.starts_with("to_socket")).unwrap();
        let words: Vec<_> = steering.split_whitespace().collect();
        assert_eq!(words, ["to_socket", "42", "-", "-", "Ours."]);
        assert!(two().table(true).contains("arp_short"));
    }

    #[test]
    fn one_worker_needs_no_columns() {
        let counters = Counters {
            workers: vec![worker(0, 7, 1)],
            shared: vec![],
        };
        let table = counters.table(false);
        assert!(!table.contains("worker 0"));
        assert!(table.lines().any(|l| l.split_whitespace().eq([
            "udp_checksum",
            "1",
            "The",
            "checksum",
            "is",
            "wrong."
        ])));
    }

    #[test]
    fn nothing_counted_is_said() {
        assert_eq!(Counters::default().table(true), "every counter is zero\n");
        let zero = Counters {
            workers: vec![worker(0, 0, 0)],
            shared: vec![],
        };
        assert_eq!(zero.table(false), "every counter is zero\n");
    }

    #[test]
    fn json_is_nested_by_group() {
        assert_eq!(
            two().json(),
            json!({
                "total": {
                    "event": {"frame_rx": 42},
                    "drop": {"udp_checksum": 3, "arp_short": 0},
                    "steering": {"to_socket": 42},
                },
                "workers": [
                    {"worker": 0, "counters":
                        {"event": {"frame_rx": 10}, "drop": {"udp_checksum": 0, "arp_short": 0}}},
                    {"worker": 1, "counters":
                        {"event": {"frame_rx": 32}, "drop": {"udp_checksum": 3, "arp_short": 0}}},
                ],
                "shared": {"steering": {"to_socket": 42}},
            })
        );
    }
}
