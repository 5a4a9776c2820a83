//! One direction of a link: what happens to a frame between two points, and when it arrives.
//!
//! ```text
//!            router                          queue                   wire
//!  frame ─► scripted drop ─► too big? ─► full? mark CE? ─► rate ─► loss ─► corruption ─►
//!                                │                                  delay, jitter, reordering,
//!                                └─► ICMP back to the sender        duplication ─► arrival
//! ```

use super::packet;
use super::random::Random;
use super::router;
use crate::time::{Duration, Instant};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

/// Losses in bursts: a channel that is good or bad, changes from frame to frame, and loses with a
/// probability of its own in either state (Gilbert 1960, Elliott 1963).
///
/// The mean length of a bad period is `1 / recover` frames, the share of bad frames
/// `worsen / (worsen + recover)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilbertElliott {
    /// Probability that a good channel turns bad before a frame.
    pub worsen: f64,
    /// Probability that a bad channel turns good before a frame.
    pub recover: f64,
    /// Probability of a loss while good.
    pub loss_good: f64,
    /// Probability of a loss while bad.
    pub loss_bad: f64,
}

/// Frames that are overtaken by later ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reordering {
    /// Share of the frames that are held back, 0 to 1.
    pub share: f64,
    /// How long they are held back, beyond the delay of the others.
    pub by: Duration,
}

/// What one direction of a link does to frames. The default does nothing: frames arrive at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Probability that a frame is lost, each on its own, 0 to 1.
    pub loss: f64,
    /// Losses in bursts, in addition.
    pub burst_loss: Option<GilbertElliott>,
    /// Frames that are overtaken.
    pub reordering: Option<Reordering>,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a frame is flipped, anywhere from the Ethernet header on. One,
    /// because that is what an Internet checksum is sure to notice.
    pub corrupt: f64,
    /// Bits a second, counting the frame without preamble, check sequence and gap; `None` for no
    /// limit.
    pub rate_bits_per_s: Option<u64>,
    /// Propagation delay.
    pub delay: Duration,
    /// Up to this much more, drawn evenly for each frame. Frames keep their order.
    pub jitter: Duration,
    /// Frames that wait for the rate, at most; a frame beyond is dropped. The one being sent counts.
    pub queue_frames: Option<usize>,
    /// The same in bytes.
    pub queue_bytes: Option<usize>,
    /// Bytes waiting, from which on frames of ECN-capable senders are marked (RFC 3168 §5).
    pub mark_bytes: Option<usize>,
    /// The longest IP packet that passes, in bytes. A longer one is fragmented if it may be, and
    /// otherwise dropped and reported to its sender (RFC 1191 §4, RFC 4443 §3.2).
    pub mtu: Option<u32>,
    /// Do not report what is too big: a black hole (RFC 2923 §2.1).
    pub is_black_hole: bool,
    /// Nothing passes: the cable is cut.
    pub is_cut: bool,
}

impl Impairment {
    /// A link of this rate and one-way delay, with a drop-tail queue of so many bytes.
    #[must_use]
    pub fn bottleneck(rate_bits_per_s: u64, delay: Duration, queue_bytes: usize) -> Self {
        Self {
            rate_bits_per_s: Some(rate_bits_per_s),
            delay,
            queue_bytes: Some(queue_bytes),
            ..Self::default()
        }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Why it did not arrive, if so.
    pub lost: Option<Loss>,
    /// The bit that was flipped, counted from the frame's first.
    pub corrupted_bit: Option<usize>,
    /// It arrived twice.
    pub duplicated: bool,
    /// It was held back.
    pub reordered: bool,
    /// It was marked "congestion experienced".
    pub marked: bool,
    /// It was cut into fragments.
    pub fragmented: bool,
}

/// Why a frame did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The script said so.
    Scripted,
    /// The cable is cut.
    Cut,
    /// Longer than the link carries.
    TooBig,
    /// The queue was full.
    QueueFull,
    /// Lost on its own.
    Random,
    /// Lost in a burst.
    Burst,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lost,
            corrupted_bit,
            duplicated,
            reordered,
            marked,
            fragmented,
        } = self;
        let mut separator = "";
        let mut say = |f: &mut fmt::Formatter<'_>, what: fmt::Arguments<'_>| {
            let result = write!(f, "{separator}{what}");
            separator = ", ";
            result
        };
        if let Some(bit) = corrupted_bit {
            say(
                f,
                format_args!("bit {} of byte {} flipped", 7 - bit % 8, bit / 8),
            )?;
        }
        for (is_so, what) in [
            (duplicated, "duplicated"),
            (reordered, "held back"),
            (marked, "marked CE"),
            (fragmented, "fragmented"),
        ] {
            if *is_so {
                say(f, format_args!("{what}"))?;
            }
        }
        match lost {
            None => Ok(()),
            Some(Loss::Scripted) => say(f, format_args!("dropped by the script")),
            Some(Loss::Cut) => say(f, format_args!("lost: the cable is cut")),
            Some(Loss::TooBig) => say(f, format_args!("dropped: too big")),
            Some(Loss::QueueFull) => say(f, format_args!("dropped: queue full")),
            Some(Loss::Random) => say(f, format_args!("lost")),
            Some(Loss::Burst) => say(f, format_args!("lost in a burst")),
        }
    }
}

/// What one direction of a link did so far.
/// `offered + duplicated + fragments == delivered + every kind of loss`, whenever nothing is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames that came.
    pub offered: u64,
    /// Frames sent on their way; the copies of duplicated ones included.
    pub delivered: u64,
    /// Lost by the script.
    pub lost_scripted: u64,
    /// Lost because the cable was cut.
    pub lost_cut: u64,
    /// Dropped because they were longer than the link carries.
    pub lost_too_big: u64,
    /// Dropped because the queue was full.
    pub lost_queue_full: u64,
    /// Lost, each on its own.
    pub lost_random: u64,
    /// Lost in bursts.
    pub lost_burst: u64,
    /// Frames with a flipped bit.
    pub corrupted: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Frames held back.
    pub reordered: u64,
    /// Frames marked "congestion experienced".
    pub marked: u64,
    /// Frames that fragmenting added.
    pub fragments: u64,
}

impl LinkCounters {
    /// Frames that did not arrive, for any reason.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost_scripted
            + self.lost_cut
            + self.lost_too_big
            + self.lost_queue_full
            + self.lost_random
            + self.lost_burst
    }

    fn count(&mut self, loss: Loss) {
        *match loss {
            Loss::Scripted => &mut self.lost_scripted,
            Loss::Cut => &mut self.lost_cut,
            Loss::TooBig => &mut self.lost_too_big,
            Loss::QueueFull => &mut self.lost_queue_full,
            Loss::Random => &mut self.lost_random,
            Loss::Burst => &mut self.lost_burst,
        } += 1;
    }
}

/// Says whether a scripted drop is about a frame.
pub type Predicate = Box<dyn FnMut(&[u8]) -> bool>;

/// A drop planned beforehand.
struct ScriptedDrop {
    matches: Predicate,
    /// Matching frames to let pass before.
    skip: u64,
    /// Matching frames to drop then.
    drop: u64,
}

/// What a direction of a link makes of one frame.
pub(super) struct Offered {
    /// Frames, and when they arrive.
    pub(super) arrivals: Vec<(Instant, Vec<u8>)>,
    /// A message to the sender, and when it arrives there.
    pub(super) answer: Option<(Instant, Vec<u8>)>,
    pub(super) fate: Fate,
}

/// One direction of a link.
pub(super) struct Link {
    pub(super) impairment: Impairment,
    pub(super) counters: LinkCounters,
    random: Random,
    scripted: Vec<ScriptedDrop>,
    /// The state of the channel of [`GilbertElliott`].
    is_bad: bool,
    /// When the last frame in the queue will have been sent.
    free_at: Instant,
    /// When each waiting frame will have been sent, and its bytes.
    waiting: VecDeque<(Instant, usize)>,
    waiting_bytes: usize,
    /// Frames that are not held back arrive in order.
    last_arrival: Instant,
}

impl Link {
    pub(super) fn new(impairment: Impairment, random: Random) -> Self {
        Self {
            impairment,
            counters: LinkCounters::default(),
            random,
            scripted: Vec::new(),
            is_bad: false,
            free_at: Instant::ZERO,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last_arrival: Instant::ZERO,
        }
    }

    /// Drops `drop` frames for which `matches` says yes, after `skip` of them have passed.
    pub(super) fn script_drop(&mut self, skip: u64, drop: u64, matches: Predicate) {
        self.scripted.push(ScriptedDrop {
            matches,
            skip,
            drop,
        });
    }

    /// Whether the script wants this frame dropped.
    fn is_scripted(&mut self, frame: &[u8]) -> bool {
        let mut hit = false;
        for rule in &mut self.scripted {
            if !(rule.matches)(frame) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.drop > 0 {
                rule.drop -= 1;
                hit = true;
            }
        }
        self.scripted.retain(|rule| rule.drop > 0);
        hit
    }

    /// Takes a frame at `now`.
    pub(super) fn offer(&mut self, frame: Vec<u8>, now: Instant) -> Offered {
        self.counters.offered += 1;
        let mut offered = Offered {
            arrivals: Vec::new(),
            answer: None,
            fate: Fate::default(),
        };
        if self.is_scripted(&frame) {
            self.lose(&mut offered.fate, Loss::Scripted);
        } else if self.impairment.is_cut {
            self.lose(&mut offered.fate, Loss::Cut);
        } else if let Some(mtu) = self.impairment.mtu
            && packet::is_longer_than(&frame, mtu)
        {
            self.too_big(&frame, mtu, now, &mut offered);
        } else {
            self.enqueue(frame, now, &mut offered);
        }
        offered
    }

    fn lose(&mut self, fate: &mut Fate, loss: Loss) {
        self.counters.count(loss);
        fate.lost = Some(loss);
    }

    fn too_big(&mut self, frame: &[u8], mtu: u32, now: Instant, offered: &mut Offered) {
        if let Some(pieces) = router::fragments(frame, mtu) {
            offered.fate.fragmented = true;
            self.counters.fragments += pieces.len() as u64 - 1;
            for piece in pieces {
                self.enqueue(piece, now, offered);
            }
            return;
        }
        self.lose(&mut offered.fate, Loss::TooBig);
        if !self.impairment.is_black_hole {
            let answer = router::report(frame, mtu);
            // It comes back the way the frame came: after one delay there, one back.
            offered.answer = answer.map(|frame| (now + self.impairment.delay, frame));
        }
    }

    /// The queue in front of the wire.
    fn enqueue(&mut self, mut frame: Vec<u8>, now: Instant, offered: &mut Offered) {
        while let Some((sent_at, bytes)) = self.waiting.front()
            && *sent_at <= now
        {
            self.waiting_bytes -= bytes;
            self.waiting.pop_front();
        }
        let Impairment {
            queue_frames,
            queue_bytes,
            mark_bytes,
            rate_bits_per_s,
            ..
        } = self.impairment;
        let bytes = frame.len();
        if queue_frames.is_some_and(|max| self.waiting.len() >= max)
            || queue_bytes.is_some_and(|max| self.waiting_bytes + bytes > max)
        {
            return self.lose(&mut offered.fate, Loss::QueueFull);
        }
        if mark_bytes.is_some_and(|min| self.waiting_bytes >= min) && packet::mark_ce(&mut frame) {
            self.counters.marked += 1;
            offered.fate.marked = true;
        }
        let mut sent_at = now;
        if let Some(rate) = rate_bits_per_s {
            let nanos = u128::from(bytes as u64) * 8 * 1_000_000_000 / u128::from(rate.max(1));
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            sent_at = self.free_at.max(now) + Duration::from_nanos(nanos);
            self.free_at = sent_at;
            self.waiting.push_back((sent_at, bytes));
            self.waiting_bytes += bytes;
        }
        self.transmit(frame, sent_at, offered);
    }

    /// The wire: whatever is lost here has used its share of the rate.
    fn transmit(&mut self, mut frame: Vec<u8>, sent_at: Instant, offered: &mut Offered) {
        // Every number is drawn for every frame: so changing one probability of a scenario does not
        // change which frames the others hit.
        let loss = self.random.chance(self.impairment.loss);
        let corrupt = self.random.chance(self.impairment.corrupt);
        let bit = self.random.index(frame.len() * 8);
        let duplicate = self.random.chance(self.impairment.duplicate);
        let reordering = self.impairment.reordering;
        let hold_back = self.random.chance(reordering.map_or(0.0, |it| it.share));
        let jitter_ns = u64::try_from(self.impairment.jitter.as_nanos()).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(self.random.between(0, jitter_ns));
        if self.is_lost_in_burst() {
            return self.lose(&mut offered.fate, Loss::Burst);
        }
        if loss {
            return self.lose(&mut offered.fate, Loss::Random);
        }
        if corrupt && let Some(byte) = frame.get_mut(bit / 8) {
            *byte ^= 0x80 >> (bit % 8);
            self.counters.corrupted += 1;
            offered.fate.corrupted_bit = Some(bit);
        }
        let mut at = sent_at + self.impairment.delay + jitter;
        match reordering {
            Some(Reordering { by, .. }) if hold_back => {
                at = at + by;
                self.counters.reordered += 1;
                offered.fate.reordered = true;
            }
            _ => {
                at = at.max(self.last_arrival);
                self.last_arrival = at;
            }
        }
        if duplicate {
            self.counters.duplicated += 1;
            self.counters.delivered += 1;
            offered.fate.duplicated = true;
            offered.arrivals.push((at, frame.clone()));
        }
        self.counters.delivered += 1;
        offered.arrivals.push((at, frame));
    }

    fn is_lost_in_burst(&mut self) -> bool {
        let channel = self.impairment.burst_loss.unwrap_or(GilbertElliott {
            worsen: 0.0,
            recover: 1.0,
            loss_good: 0.0,
            loss_bad: 0.0,
        });
        self.is_bad ^= self.random.chance(if self.is_bad {
            channel.recover
        } else {
            channel.worsen
        });
        self.random.chance(if self.is_bad {
            channel.loss_bad
        } else {
            channel.loss_good
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const START: Instant = Instant::from_nanos(1_000_000);

    fn link(impairment: Impairment) -> Link {
        Link::new(impairment, Random::new(1))
    }

    fn offer_many(link: &mut Link, frames: u64) -> Vec<(Instant, Vec<u8>)> {
        let mut arrivals = Vec::new();
        for i in 0..frames {
            let mut frame = vec![0; 100];
            frame[..8].copy_from_slice(&i.to_be_bytes());
            arrivals.extend(link.offer(frame, START + Duration::from_micros(i)).arrivals);
        }
        arrivals
    }

    #[test]
    fn the_rate_and_the_delay_say_when_frames_arrive() {
        // 1 Mbit/s: 100 bytes take 800 µs.
        let mut link = link(Impairment::bottleneck(
            1_000_000,
            Duration::from_millis(5),
            10_000,
        ));
        let first = link.offer(vec![0; 100], START).arrivals;
        let second = link.offer(vec![0; 100], START).arrivals;
        assert_eq!(first[0].0, START + Duration::from_micros(5_800));
        assert_eq!(second[0].0, START + Duration::from_micros(6_600));
        // Idle time is not saved up.
        let later = START + Duration::from_secs(1);
        let third = link.offer(vec![0; 100], later).arrivals;
        assert_eq!(third[0].0, later + Duration::from_micros(5_800));
    }

    #[test]
    fn a_full_queue_drops_its_tail_and_drains_with_time() {
        let mut link = link(Impairment::bottleneck(1_000_000, Duration::ZERO, 300));
        let fates: Vec<_> = (0..5)
            .map(|_| link.offer(vec![0; 100], START).fate.lost)
            .collect();
        let full = Some(Loss::QueueFull);
        assert_eq!(fates, [None, None, None, full, full]);
        let later = START + Duration::from_micros(800);
        assert_eq!(link.offer(vec![0; 100], later).fate.lost, None);
        assert_eq!(link.offer(vec![0; 100], later).fate.lost, full);
        assert_eq!(link.counters.lost_queue_full, 3);
    }

    #[test]
    fn a_queue_of_frames_counts_frames() {
        let mut link = link(Impairment {
            rate_bits_per_s: Some(1),
            queue_frames: Some(2),
            ..Impairment::default()
        });
        assert_eq!(offer_many(&mut link, 10).len(), 2);
    }

    #[test]
    fn losses_are_as_frequent_as_asked_and_bursts_as_long() {
        let mut lossy = link(Impairment {
            loss: 0.1,
            ..Impairment::default()
        });
        let arrived = offer_many(&mut lossy, 20_000).len();
        assert!((17_800..18_200).contains(&arrived), "{arrived}");

        let mut bursts = link(Impairment {
            burst_loss: Some(GilbertElliott {
                worsen: 0.01,
                recover: 0.25,
                loss_good: 0.0,
                loss_bad: 1.0,
            }),
            ..Impairment::default()
        });
        let lost: Vec<bool> = (0..100_000)
            .map(|_| bursts.offer(vec![0; 60], START).fate.lost.is_some())
            .collect();
        let total = lost.iter().filter(|lost| **lost).count();
        let runs = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        // 0.01 / 0.26 of 100,000; bursts of 1 / 0.25 frames.
        assert!((3_300..4_400).contains(&total), "{total} lost");
        let mean = total * 100 / runs;
        assert!((370..430).contains(&mean), "bursts of {mean}/100 frames");
    }

    #[test]
    fn held_back_frames_are_overtaken_and_others_keep_their_order() {
        let mut link = link(Impairment {
            delay: Duration::from_millis(1),
            jitter: Duration::from_millis(1),
            reordering: Some(Reordering {
                share: 0.1,
                by: Duration::from_millis(10),
            }),
            ..Impairment::default()
        });
        let mut arrivals = offer_many(&mut link, 1000);
        let held = link.counters.reordered;
        assert!((60..140).contains(&held), "{held} held back");
        arrivals.sort_by_key(|(at, _)| *at);
        let order: Vec<u64> = arrivals
            .iter()
            .map(|(_, frame)| u64::from_be_bytes(*frame.first_chunk().unwrap()))
            .collect();
        let overtaken = order.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(overtaken > 0 && overtaken as u64 <= held);

        let mut calm = super::tests::link(Impairment {
            jitter: Duration::from_millis(1),
            ..Impairment::default()
        });
        let arrivals = offer_many(&mut calm, 1000);
        assert!(arrivals.is_sorted_by_key(|(at, _)| *at));
    }

    #[test]
    fn corruption_flips_one_bit_and_duplicates_are_alike() {
        let mut link = link(Impairment {
            corrupt: 1.0,
            duplicate: 1.0,
            ..Impairment::default()
        });
        let Offered { arrivals, fate, .. } = link.offer(vec![0; 100], START);
        assert_eq!(arrivals.len(), 2);
        assert_eq!(arrivals[0], arrivals[1]);
        let ones: u32 = arrivals[0].1.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 1);
        let bit = fate.corrupted_bit.unwrap();
        assert_eq!(arrivals[0].1[bit / 8], 0x80 >> (bit % 8));
        assert!(fate.duplicated);
        let counters = link.counters;
        assert_eq!(counters.offered + counters.duplicated, counters.delivered);
    }

    #[test]
    fn the_script_drops_what_it_names() {
        let mut link = link(Impairment::default());
        link.script_drop(1, 2, Box::new(|frame| frame[7] % 2 == 1));
        let kept: Vec<u8> = offer_many(&mut link, 10)
            .iter()
            .map(|(_, frame)| frame[7])
            .collect();
        assert_eq!(kept, [0, 1, 2, 4, 6, 7, 8, 9]);
        assert_eq!((link.counters.lost_scripted, link.scripted.len()), (2, 0));
    }

    #[test]
    fn a_cut_cable_carries_nothing() {
        let mut link = link(Impairment {
            is_cut: true,
            ..Impairment::default()
        });
        assert_eq!(offer_many(&mut link, 3).len(), 0);
        assert_eq!(link.counters.lost_cut, 3);
        let fate = link.offer(vec![0; 60], START).fate;
        assert_eq!(alloc::format!("{fate}"), "lost: the cable is cut");
    }
}
