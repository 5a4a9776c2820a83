//! What people type.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::decide::{Burst, Impairment, Probability, QUEUE_FRAMES_DEFAULT, Reorder};
use super::forward::Plan;
use crate::loadgen::cli::time;

/// Forwards frames between two interfaces, and loses, delays, reorders, duplicates or damages some.
///
/// What happens to a frame depends on the seed, the direction and the frame's number in it, and on
/// nothing else: the same frames in the same order meet the same fate.
///
/// Give it the near ends of two veth pairs, in a namespace where neither has an address, and put
/// the hosts at the far ends. Large sends (TSO, GSO, GRO), unfinished checksums and VLAN tags that a
/// kernel keeps beside the frame become what they would be on a wire before anything happens to
/// them, so nothing need be switched off.
///
/// Prints `ready` on standard error when no frame will be missed any more, and on Ctrl-C what it did
/// on standard output.
#[derive(Debug, Parser)]
#[command(name = "impair", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// One interface: A
    #[arg(value_name = "IFACE_A")]
    a: String,
    /// The other: B
    #[arg(value_name = "IFACE_B")]
    b: String,
    /// What all decisions are drawn from
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Lose this share of the frames, each by itself
    #[arg(long, value_name = "P", default_value = "0")]
    loss: Probability,
    /// With probability P at each frame, lose it and those that follow, LEN in all
    #[arg(long, value_name = "LEN:P", value_parser = burst)]
    burst: Option<Burst>,
    /// Hold this share of the frames back for so long, and let the others pass
    #[arg(long, value_name = "P:DELAY", value_parser = reorder)]
    reorder: Option<Reorder>,
    /// Send this share of the frames twice
    #[arg(long, value_name = "P", default_value = "0")]
    duplicate: Probability,
    /// Flip a bit in this share of the IP packets
    #[arg(long, value_name = "P", default_value = "0")]
    corrupt: Probability,
    /// Hold every frame for so long
    #[arg(long, value_name = "D", default_value = "0", value_parser = milliseconds)]
    delay: Duration,
    /// And for up to this much longer, without changing the order
    #[arg(long, value_name = "D", default_value = "0", value_parser = milliseconds)]
    jitter: Duration,
    /// Bits per second; k, M and G are understood
    #[arg(long, value_name = "BITS", value_parser = rate)]
    rate: Option<u64>,
    /// Frames that wait for the rate, at most
    #[arg(long, value_name = "PACKETS", default_value_t = QUEUE_FRAMES_DEFAULT, requires = "rate")]
    queue: usize,
    /// Which frames all of this is for; those of the other direction pass unharmed
    #[arg(long, value_enum, default_value_t)]
    direction: Which,
    /// Drop these frames; the first of a direction is 1
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = indexes)]
    drop_index: Vec<RangeInclusive<u64>>,
    /// Write what came in and what went out to FILE (pcapng, for Wireshark and tcpdump)
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Write the counters to FILE as JSON; with -, JSON is all that goes to standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// End after so many seconds
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<Duration>,
}

const EXAMPLES: &str = "\
Probabilities are 0.01 or 1%. Delays are milliseconds, or have a unit: 500us, 20ms, 1s.

Examples:
  impair left right --loss 1% --seed 7                   one in a hundred
  impair left right --burst 8:0.1% --direction a-to-b    eight in a row, one way
  impair left right --reorder 5%:3ms --delay 10          overtaking on a 20 ms round trip
  impair left right --rate 100M --queue 50 --delay 5     a bottleneck with a short queue
  impair left right --drop-index 3,10-12 --pcap x.pcapng exactly these, and a capture to see it";

/// `--direction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
enum Which {
    /// Frames that come in at A
    AToB,
    /// Frames that come in at B
    BToA,
    /// All frames
    #[default]
    Both,
}

impl Cli {
    /// What to do, and where to write the counters as JSON.
    #[must_use]
    pub fn plan(self) -> (Plan, Option<PathBuf>) {
        let Self {
            a,
            b,
            seed,
            loss,
            burst,
            reorder,
            duplicate,
            corrupt,
            delay,
            jitter,
            rate,
            queue,
            direction,
            drop_index,
            pcap,
            json,
            duration,
        } = self;
        let impairment = Impairment {
            loss,
            burst,
            reorder,
            duplicate,
            corrupt,
            delay,
            jitter,
            rate_bits_per_s: rate,
            queue_frames: queue,
            drop_index,
        };
        let (a_to_b, b_to_a) = match direction {
            Which::AToB => (impairment, Impairment::default()),
            Which::BToA => (Impairment::default(), impairment),
            Which::Both => (impairment.clone(), impairment),
        };
        let plan = Plan {
            interfaces: [a, b],
            seed,
            a_to_b,
            b_to_a,
            capture: pcap,
            duration,
        };
        (plan, json)
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    time(text, 1e-3)
}

fn seconds(text: &str) -> Result<Duration, String> {
    time(text, 1.0)
}

fn burst(text: &str) -> Result<Burst, String> {
    let (frames, begins) = text.split_once(':').ok_or("expected LEN:P, like 8:0.1%")?;
    let frames = frames.parse::<u32>().ok().filter(|frames| *frames > 0);
    Ok(Burst {
        frames: frames.ok_or("LEN is a number of frames, 1 or more")?,
        begins: begins.parse()?,
    })
}

fn reorder(text: &str) -> Result<Reorder, String> {
    let (share, by) = text
        .split_once(':')
        .ok_or("expected P:DELAY, like 5%:3ms")?;
    Ok(Reorder {
        share: share.parse()?,
        by: milliseconds(by)?,
    })
}

/// Bits a second: `64000`, `64k`, `100M`, `2.5G`, as tc and iperf3 have them.
fn rate(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    match number.parse::<f64>().map(|number| number * factor) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // Between 1000 and 10¹² by the pattern.
        Ok(bits) if (1e3..=1e12).contains(&bits) => Ok(bits as u64),
        Ok(_) => Err("a rate is 1k to 1000G bits per second".into()),
        Err(_) => Err("expected bits per second, like 64k, 100M or 2.5G".into()),
    }
}

fn indexes(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if 1 <= first && first <= last => Ok(first..=last),
        _ => Err("expected numbers of frames from 1, like 5 or 10-12".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn plan(line: &str) -> Result<(Plan, Option<PathBuf>), String> {
        let words = std::iter::once("impair").chain(line.split_ascii_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(cli.plan())
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_options_the_wire_is_perfect() {
        let (plan, json) = plan("left right").unwrap();
        assert_eq!(
            plan,
            Plan::new(["left", "right"], 1, &Impairment::default())
        );
        assert_eq!(json, None);
    }

    #[test]
    fn every_option() {
        let (plan, json) = plan(
            "left right --seed 9 --loss 1% --burst 8:0.001 --reorder 5%:3ms --duplicate 0.02 \
             --corrupt 0.03 --delay 10 --jitter 500us --rate 2.5M --queue 20 --direction b-to-a \
             --drop-index 5,17-19 --pcap wire.pcapng --json - --duration 2",
        )
        .unwrap();
        let probability = |value| Probability::new(value).unwrap();
        let expected = Impairment {
            loss: probability(0.01),
            burst: Some(Burst {
                frames: 8,
                begins: probability(0.001),
            }),
            reorder: Some(Reorder {
                share: probability(0.05),
                by: Duration::from_millis(3),
            }),
            duplicate: probability(0.02),
            corrupt: probability(0.03),
            delay: Duration::from_millis(10),
            jitter: Duration::from_micros(500),
            rate_bits_per_s: Some(2_500_000),
            queue_frames: 20,
            drop_index: vec![5..=5, 17..=19],
        };
        assert_eq!(plan.a_to_b, Impairment::default());
        assert_eq!(plan.b_to_a, expected);
        assert_eq!(
            (plan.seed, plan.duration),
            (9, Some(Duration::from_secs(2)))
        );
        assert_eq!(plan.capture, Some("wire.pcapng".into()));
        assert_eq!(json, Some("-".into()));
    }

    #[test]
    fn both_directions_unless_one_is_named() {
        let (plan, _) = plan("left right --loss 0.5").unwrap();
        assert_eq!(plan.a_to_b, plan.b_to_a);
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, says) in [
            ("left", "IFACE_B"),
            ("left right --loss 2", "0 to 1"),
            ("left right --loss 101%", "0 to 100"),
            ("left right --burst 8", "LEN:P"),
            ("left right --burst 0:0.1", "1 or more"),
            ("left right --reorder 0.1", "P:DELAY"),
            ("left right --delay soon", "unit of time"),
            ("left right --rate fast", "bits per second"),
            ("left right --rate 10", "1k to"),
            ("left right --queue 5", "--rate"),
            ("left right --drop-index 0", "from 1"),
            ("left right --drop-index 9-5", "from 1"),
            ("left right --direction up", "a-to-b"),
        ] {
            let error = plan(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
