//! What a run did: as a table for people, and as JSON.

use std::fmt;

use serde::Serialize;

use super::decide::{Direction, Impairment};
use super::line::Counters;

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The seed all decisions came from.
    pub seed: u64,
    /// How long it ran, in milliseconds.
    pub elapsed_ms: u64,
    /// From A to B, and from B to A.
    pub directions: Vec<DirectionReport>,
}

/// One direction of it.
#[derive(Clone, Debug, Serialize)]
pub struct DirectionReport {
    /// Which one.
    pub direction: Direction,
    /// The interface frames came from.
    pub from: String,
    /// What was to happen to them.
    pub impairment: Impairment,
    /// What happened to them.
    #[serde(flatten)]
    pub counters: Counters,
    /// Frames that came faster than they could be taken: lost by accident, so that the run does not
    /// repeat. Large sends count once.
    pub missed: u64,
    /// Frames that could not be taken apart.
    pub unusable: u64,
    /// Times the interface was found down.
    pub link_down: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            elapsed_ms,
            directions,
        } = self;
        writeln!(
            formatter,
            "seed {seed}, {:.1} s",
            *elapsed_ms as f64 / 1000.0
        )?;
        for report in directions {
            write!(formatter, "{report}")?;
        }
        Ok(())
    }
}

impl fmt::Display for DirectionReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            direction,
            from: _,
            impairment: _,
            counters,
            missed,
            unusable,
            link_down,
        } = self;
        let Counters {
            received,
            received_bytes,
            sent,
            refused,
            lost_listed,
            lost_burst,
            lost_single,
            dropped_queue_full,
            dropped_memory_full,
            duplicated,
            corrupted,
            held_back,
            held_at_end,
        } = *counters;
        write!(
            formatter,
            "{direction}: {received} frames ({received_bytes} bytes) in, {sent} out, {} lost",
            counters.lost()
        )?;
        // What did not happen is not worth a word.
        for (count, what) in [
            (lost_listed, "listed"),
            (lost_burst, "in bursts"),
            (lost_single, "single"),
            (dropped_queue_full, "queue full"),
            (dropped_memory_full, "memory full"),
            (duplicated, "duplicated"),
            (corrupted, "corrupted"),
            (held_back, "held back"),
            (refused, "refused by the interface"),
            (*missed, "missed"),
            (*unusable, "unusable"),
            (*link_down, "times down"),
            (held_at_end, "held at the end"),
        ] {
            if count > 0 {
                write!(formatter, ", {count} {what}")?;
            }
        }
        writeln!(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            seed: 4,
            elapsed_ms: 1500,
            directions: vec![DirectionReport {
                direction: Direction::AToB,
                from: "left".into(),
                impairment: Impairment {
                    drop_index: vec![3..=3, 5..=9],
                    ..Impairment::default()
                },
                counters: Counters {
                    received: 10,
                    received_bytes: 600,
                    sent: 8,
                    lost_single: 2,
                    ..Counters::default()
                },
                missed: 1,
                unusable: 0,
                link_down: 0,
            }],
        }
    }

    #[test]
    fn people_read_what_happened_and_nothing_else() {
        assert_eq!(
            report().to_string(),
            "seed 4, 1.5 s\n\
             a-to-b: 10 frames (600 bytes) in, 8 out, 2 lost, 2 single, 1 missed\n"
        );
    }

    #[test]
    fn programs_read_everything() {
        let json = serde_json::to_value(report()).unwrap();
        let direction = &json["directions"][0];
        assert_eq!(direction["direction"], "a-to-b");
        assert_eq!(direction["received"], 10);
        assert_eq!(direction["lost_burst"], 0);
        assert_eq!(direction["impairment"]["drop_index"][1], "5-9");
        assert_eq!(json["seed"], 4);
    }
}
