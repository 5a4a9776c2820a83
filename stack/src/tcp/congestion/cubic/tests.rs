//! CUBIC against RFC 9438's formulas in floating point, and its corners one by one.

use super::*;
use crate::time::Duration;
use alloc::vec::Vec;
use proptest::prelude::*;

const MSS: u32 = 1448;

fn at_us(us: u64) -> Instant {
    Instant::from_nanos(us * 1000)
}

fn ack(bytes_acked: u32, srtt_us: u32, now: Instant) -> AckInfo {
    AckInfo {
        bytes_acked,
        in_flight: bytes_acked,
        rtt_us: Some(srtt_us),
        srtt_us,
        min_rtt_us: srtt_us,
        app_limited: false,
        in_recovery: false,
        round_ended: false,
        now,
    }
}

/// A connection in slow start that has grown to `segments` when the loss comes.
fn grown_to(segments: u32) -> Cubic {
    let mut cc = Cubic::new(1448, Instant::ZERO);
    while cc.cwnd() < segments * MSS {
        let more = (segments * MSS - cc.cwnd()).min(2 * MSS);
        cc.on_ack(&ack(more, 1000, Instant::ZERO));
    }
    assert_eq!(cc.cwnd(), segments * MSS);
    cc
}

fn lose(cc: &mut Cubic) {
    let flight_size = cc.cwnd();
    cc.on_signal(Signal::Loss { flight_size }, Instant::ZERO);
    cc.on_signal(Signal::RecoveryExit, Instant::ZERO);
}

/// RFC 9438 in floating point, windows in segments, times in seconds.
struct Model {
    cwnd: f64,
    w_max: f64,
    cwnd_prior: f64,
    w_est: f64,
    k: f64,
}

const C: f64 = 0.4;
const BETA: f64 = 0.7;

impl Model {
    /// A stage of congestion avoidance that begins with `cwnd`.
    fn new(cwnd: f64, w_max: f64, cwnd_prior: f64) -> Self {
        let w_max = w_max.max(cwnd);
        Self {
            cwnd,
            w_max,
            cwnd_prior,
            w_est: cwnd,
            k: ((w_max - cwnd) / C).cbrt(),
        }
    }

    fn window_at(&self, t: f64) -> f64 {
        C * (t - self.k).powi(3) + self.w_max
    }

    fn on_ack(&mut self, segments: f64, t: f64, rtt: f64) {
        let alpha = if self.w_est < self.cwnd_prior {
            3.0 * (1.0 - BETA) / (1.0 + BETA)
        } else {
            1.0
        };
        self.w_est += alpha * segments / self.cwnd;
        if self.window_at(t) < self.w_est {
            self.cwnd = self.cwnd.max(self.w_est);
        } else {
            let target = self.window_at(t + rtt).clamp(self.cwnd, 1.5 * self.cwnd);
            self.cwnd += segments * (target - self.cwnd) / self.cwnd;
        }
    }
}

/// Both through `seconds` of congestion avoidance, an ACK for every second segment.
fn compare(cc: &mut Cubic, model: &mut Model, rtt_us: u32, seconds: u64, from: Instant) {
    let rtt = f64::from(rtt_us) / 1e6;
    let mut us = 0_u64;
    let mut first = None;
    while us < seconds * 1_000_000 {
        let acks = cc.cwnd().div_ceil(2 * MSS);
        for n in 1..=u64::from(acks) {
            let t_us = us + u64::from(rtt_us) * n / u64::from(acks);
            let first = *first.get_or_insert(t_us);
            #[expect(clippy::cast_precision_loss, reason = "exact far beyond these times")]
            let t = (t_us - first) as f64 / 1e6;
            cc.on_ack(&ack(2 * MSS, rtt_us, from + Duration::from_micros(t_us)));
            model.on_ack(2.0, t, rtt);
            let cwnd = f64::from(cc.cwnd()) / f64::from(MSS);
            let within = (model.cwnd / 100.0).max(1.0);
            assert!(
                (cwnd - model.cwnd).abs() <= within,
                "after {t} s at {rtt} s: {cwnd}, and the RFC says {}",
                model.cwnd
            );
        }
        us += u64::from(rtt_us);
    }
}

/// The concave and the convex part, and the Reno-friendly region, over round trips and windows.
#[test]
fn the_window_follows_rfc_9438() {
    for (rtt_us, segments, seconds) in [
        (1_000, 20, 3),
        (5_000, 50, 10),
        (10_000, 100, 20),
        (30_000, 1000, 20),
        (100_000, 100, 60),
        (100_000, 2000, 30),
        (300_000, 50, 60),
    ] {
        let mut cc = grown_to(segments);
        lose(&mut cc);
        let w_max = f64::from(segments);
        let cwnd = f64::from(cc.cwnd()) / f64::from(MSS);
        assert!((cwnd - BETA * w_max).abs() < 0.01);
        let mut model = Model::new(cwnd, w_max, w_max);
        compare(&mut cc, &mut model, rtt_us, seconds, at_us(1_000_000));
        assert!(cc.cwnd() > segments * MSS, "it passed its plateau");
    }
}

/// RFC 9438 §4.10, §4.8: without a W_max the stage begins at its plateau, K = 0: after slow start
/// ended without a loss, and after a timeout.
#[test]
fn without_a_plateau_the_curve_begins_at_it() {
    let mut cc = grown_to(100);
    let flight_size = cc.cwnd();
    let rto = Signal::Rto {
        flight_size,
        first: true,
    };
    cc.on_signal(rto, Instant::ZERO);
    assert_eq!((cc.cwnd(), cc.ssthresh()), (MSS, 70 * MSS));
    cc.on_signal(Signal::RecoveryExit, Instant::ZERO);
    while cc.in_slow_start() {
        cc.on_ack(&ack(MSS, 100_000, at_us(500_000)));
    }
    assert_eq!(cc.cwnd(), 70 * MSS);
    let mut model = Model::new(70.0, 70.0, 100.0);
    compare(&mut cc, &mut model, 100_000, 20, at_us(1_000_000));
    assert_eq!(cc.curve.k, 0);
}

/// RFC 9406 as CUBIC uses it: the round trip grows, and slow start ends where it is.
#[test]
fn hystart_ends_slow_start_and_the_curve_begins_there() {
    let mut cc = Cubic::new(1448, Instant::ZERO);
    let mut rounds = 0;
    while cc.in_slow_start() {
        rounds += 1;
        let acks = cc.cwnd() / (2 * MSS);
        for n in 1..=acks {
            let rtt_us = if rounds < 4 { 40_000 } else { 48_000 };
            let mut ack = ack(2 * MSS, rtt_us, at_us(rounds * 40_000));
            ack.round_ended = n == acks;
            cc.on_ack(&ack);
        }
        assert!(rounds < 20, "slow start ends");
    }
    let exit = cc.cwnd();
    assert_eq!((cc.ssthresh(), rounds), (exit, 8));
    let exit = f64::from(exit) / f64::from(MSS);
    let mut model = Model::new(exit, exit, exit);
    compare(&mut cc, &mut model, 48_000, 20, at_us(1_000_000));
}

/// RFC 9438 §4.3: with a short round trip the window is Reno's, of the same loss rate: 9/17 of a
/// segment a round trip up to the old window, then a whole one.
#[test]
fn with_short_round_trips_the_window_is_renos() {
    const RTT_US: u32 = 1000;
    let mut cc = grown_to(100);
    lose(&mut cc);
    let mut us = 0;
    let mut rounds_to = |cc: &mut Cubic, segments: u32| {
        let mut rounds = 0_u32;
        while cc.cwnd() < segments * MSS {
            for _ in 0..cc.cwnd() / MSS {
                cc.on_ack(&ack(MSS, RTT_US, at_us(us)));
            }
            us += u64::from(RTT_US);
            rounds += 1;
        }
        rounds
    };
    // 30 segments at 9/17 each.
    let back = rounds_to(&mut cc, 100);
    assert!((54..=60).contains(&back), "{back}");
    let beyond = rounds_to(&mut cc, 130);
    assert!((29..=32).contains(&beyond), "{beyond}");
}

/// RFC 9438 §4.6: 0.7 of what was in flight, for a loss and for a mark; never less than two
/// segments as ssthresh.
#[test]
fn the_window_falls_to_seven_tenths() {
    for signal in [
        |flight_size| Signal::Loss { flight_size },
        |flight_size| Signal::Ecn { flight_size },
    ] {
        let mut cc = grown_to(100);
        cc.on_signal(signal(100 * MSS), Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (70 * MSS, 70 * MSS));
        let mut cc = grown_to(100);
        cc.on_signal(signal(50 * MSS), Instant::ZERO);
        assert_eq!((cc.cwnd(), cc.ssthresh()), (35 * MSS, 35 * MSS));
        let mut cc = grown_to(100);
        cc.on_signal(signal(MSS), Instant::ZERO);
        assert_eq!(cc.ssthresh(), 2 * MSS);
    }
    // §4.6: a mark may leave one segment, a loss leaves two.
    let mut cc = grown_to(10);
    cc.on_signal(Signal::Ecn { flight_size: MSS }, Instant::ZERO);
    assert_eq!(cc.cwnd(), MSS);
}

/// RFC 9438 §4.2: however far ahead the curve is, at most half as much again in a round trip.
#[test]
fn the_window_grows_by_half_at_most() {
    let mut cc = grown_to(100);
    lose(&mut cc);
    cc.on_ack(&ack(1, 100_000, at_us(1_000_000)));
    cc.on_ack(&ack(70 * MSS, 100_000, at_us(60_000_000)));
    assert!(cc.cwnd().abs_diff(105 * MSS) <= 1, "{}", cc.cwnd());
}

/// RFC 9438 §4.7: two losses in a row, the second below the first's window: the plateau is lowered
/// below it, so that newer flows find room.
#[test]
fn fast_convergence_lowers_the_plateau() {
    let mut cc = grown_to(100);
    lose(&mut cc);
    assert_eq!(cc.curve.w_max, 100 * MSS);
    lose(&mut cc);
    assert_eq!(cc.curve.w_max, 70 * MSS * 17 / 20);
    assert_eq!(cc.cwnd(), 49 * MSS);
    // Grown past it, the plateau is where the loss was.
    let mut us = 0;
    while cc.cwnd() <= 80 * MSS {
        us += 10_000;
        cc.on_ack(&ack(2 * MSS, 100_000, at_us(us)));
    }
    let cwnd = cc.cwnd();
    lose(&mut cc);
    assert_eq!(cc.curve.w_max, cwnd);
}

/// Some way into a stage of congestion avoidance.
fn under_way(rtt_us: u32, until_us: u64) -> (Cubic, u64) {
    let mut cc = grown_to(200);
    lose(&mut cc);
    let mut us = 0;
    while us < until_us {
        us += u64::from(rtt_us) / 50;
        cc.on_ack(&ack(2 * MSS, rtt_us, at_us(us)));
    }
    (cc, us)
}

/// RFC 9438 §4.9: after an undo the window goes on as one that never saw the reduction.
#[test]
fn an_undone_reduction_leaves_no_trace() {
    let flight_size = 150 * MSS;
    for signal in [
        Signal::Loss { flight_size },
        Signal::Rto {
            flight_size,
            first: true,
        },
    ] {
        let (mut cc, us) = under_way(100_000, 2_000_000);
        let mut untouched = cc.clone();
        cc.on_signal(signal, at_us(us));
        let mut recovering = ack(2 * MSS, 100_000, at_us(us + 900_000));
        recovering.in_recovery = true;
        cc.on_ack(&recovering);
        assert!(cc.cwnd() < untouched.cwnd());
        cc.on_signal(Signal::Undo, at_us(us + 1_000_000));
        assert_eq!(cc.cwnd(), untouched.cwnd());
        assert_eq!(cc.ssthresh(), untouched.ssthresh());
        for n in 1..5000 {
            let ack = ack(2 * MSS, 100_000, at_us(us + 1_000_000 + n * 2_000));
            cc.on_ack(&ack);
            untouched.on_ack(&ack);
            assert!(cc.cwnd().abs_diff(untouched.cwnd()) <= MSS);
        }
    }
}

/// RFC 9438 §4.9: found out so late that the window is larger than before, the undo changes
/// nothing.
#[test]
fn a_late_undo_keeps_the_larger_window() {
    let (mut cc, mut us) = under_way(20_000, 1_000_000);
    let before = cc.cwnd();
    lose(&mut cc);
    while cc.cwnd() <= before {
        us += 400;
        cc.on_ack(&ack(2 * MSS, 20_000, at_us(us)));
    }
    let (cwnd, ssthresh, k) = (cc.cwnd(), cc.ssthresh(), cc.curve.k);
    cc.on_signal(Signal::Undo, at_us(us));
    assert_eq!((cc.cwnd(), cc.ssthresh(), cc.curve.k), (cwnd, ssthresh, k));
}

/// RFC 9438 §4.2, §5.8: an hour in which the window was not used is as if it had not been: it does
/// not grow during it, and afterwards goes on where it was on its curve.
#[test]
fn time_in_which_the_window_was_not_used_does_not_count() {
    const RTT_US: u32 = 100_000;
    let (mut cc, us) = under_way(RTT_US, 3_000_000);
    let mut busy = cc.clone();
    let hour_us = 3_600_000_000;
    let before = cc.cwnd();
    for minute in 1..60 {
        let mut idle = ack(100, RTT_US, at_us(us + minute * 60_000_000));
        idle.app_limited = true;
        cc.on_ack(&idle);
    }
    assert_eq!(cc.cwnd(), before);
    let mut curves = Vec::new();
    for n in 0..3000 {
        let t_us = us + n * 2_000;
        cc.on_ack(&ack(2 * MSS, RTT_US, at_us(t_us + hour_us)));
        busy.on_ack(&ack(2 * MSS, RTT_US, at_us(t_us)));
        assert!(
            cc.cwnd().abs_diff(busy.cwnd()) <= MSS,
            "{} and {}",
            cc.cwnd(),
            busy.cwnd()
        );
        curves.push(cc.cwnd());
    }
    assert!(curves.last().unwrap() > &(before + 20 * MSS), "it grew on");
}

/// RFC 5681 §4.1: idle for longer than the RTO: slow start from the initial window, then a new
/// stage towards the old plateau.
#[test]
fn idling_restarts_from_the_initial_window() {
    let (mut cc, us) = under_way(100_000, 2_000_000);
    let (ssthresh, w_max) = (cc.ssthresh(), cc.curve.w_max);
    let later = us + 60_000_000;
    cc.after_idle(at_us(later));
    assert_eq!((cc.cwnd(), cc.ssthresh()), (10 * MSS, ssthresh));
    while cc.in_slow_start() {
        cc.on_ack(&ack(2 * MSS, 100_000, at_us(later)));
    }
    assert_eq!(cc.cwnd(), ssthresh);
    let mut model = Model::new(
        f64::from(ssthresh) / f64::from(MSS),
        f64::from(w_max) / f64::from(MSS),
        200.0,
    );
    compare(&mut cc, &mut model, 100_000, 20, at_us(later + 1_000_000));
}

/// A window that is small already is not changed by idling, and its curve only waits.
#[test]
fn a_small_window_idles_without_a_restart() {
    let mut cc = grown_to(10);
    lose(&mut cc);
    cc.on_ack(&ack(2 * MSS, 100_000, at_us(1_000_000)));
    let before = cc.cwnd();
    cc.after_idle(at_us(100_000_000));
    assert_eq!(cc.cwnd(), before);
    cc.on_ack(&ack(2 * MSS, 100_000, at_us(100_000_000)));
    assert!(
        cc.cwnd() <= before + MSS,
        "not a hundred seconds up the curve"
    );
}

/// The ticks wrap after 52 days: a stage that began before and goes on after follows the curve,
/// also when it begins at the one tick that means something else.
#[test]
fn the_curve_survives_the_wrap_of_its_ticks() {
    let wrap = 1_u64 << 52;
    for before_ns in [1, 1 << 20, 1_500_000_000, 10_000_000_000] {
        let mut cc = grown_to(100);
        lose(&mut cc);
        let mut model = Model::new(70.0, 100.0, 100.0);
        let from = Instant::from_nanos(wrap - before_ns);
        compare(&mut cc, &mut model, 100_000, 30, from);
    }
}

/// A stage that lasts for years without a loss stays at the largest window.
#[test]
fn a_stage_may_last_for_years() {
    let mut cc = grown_to(100);
    lose(&mut cc);
    let day_us = 86_400_000_000_u64;
    let mut last = 0;
    for day in 0..1000 {
        for n in 0..200 {
            cc.on_ack(&ack(1 << 28, 100_000, at_us(day * day_us + n * 1000)));
        }
        assert!(cc.cwnd() >= last);
        last = cc.cwnd();
    }
    assert_eq!(last, CWND_MAX);
}

/// W_cubic itself, against the formula, in every unit the state has.
#[test]
fn the_curve_is_the_formula() {
    for (cwnd, w_max, mss) in [
        (7_000, 10_000, 1000),
        (700_000, 1_000_000, 1448),
        (70_000_000, 100_000_000, 1448),
        (7_000_000, 10_000_000, 8948),
        (500_000_000, 1_000_000_000, 536),
    ] {
        let mut curve = Curve::new();
        curve.w_max = w_max;
        curve.begin(cwnd, mss, 0);
        let segments = |bytes: u32| f64::from(bytes) / f64::from(mss);
        let model = Model::new(segments(cwnd), segments(w_max), segments(w_max));
        for tick in (0..200_000).step_by(97) {
            let t = f64::from(tick) * 1.048_576e-3;
            let expected = model.window_at(t);
            if expected > segments(CWND_MAX) {
                assert_eq!(curve.window_at(tick, mss), CWND_MAX);
                break;
            }
            let got = segments(curve.window_at(tick, mss));
            let within = (expected / 1000.0).max(0.5);
            assert!(
                (got - expected).abs() <= within,
                "at {t}: {got}, not {expected}"
            );
        }
    }
}

proptest! {
    /// The root is the largest whose cube is not larger.
    #[test]
    fn cube_roots_are_exact(of: u64) {
        let root = u128::from(cube_root(of));
        prop_assert!(root.pow(3) <= u128::from(of));
        prop_assert!((root + 1).pow(3) > u128::from(of));
    }

    /// Whatever happens, in whatever order: no panic, the window is at least a segment and at most
    /// the limit, an ACK does not make it smaller, a reduction does not make it larger.
    #[test]
    fn any_sequence_of_events_leaves_a_sane_window(
        mss in 1_u16..9000,
        events in proptest::collection::vec(
            (0_u8..12, any::<u32>(), 0_u32..3_000_000, 0_u64..1 << 40, any::<bool>()), 1..300),
    ) {
        let mut cc = Cubic::new(mss, Instant::ZERO);
        let mut segment = u32::from(mss);
        let mut now = Instant::ZERO;
        for (event, bytes, rtt_us, step_ns, flag) in events {
            now = now + Duration::from_nanos(step_ns);
            let before = cc.cwnd();
            match event {
                0 => cc.on_signal(Signal::Loss { flight_size: bytes }, now),
                1 => cc.on_signal(Signal::Rto { flight_size: bytes, first: flag }, now),
                2 => cc.on_signal(Signal::Ecn { flight_size: bytes }, now),
                3 => cc.on_signal(Signal::Undo, now),
                4 => cc.on_signal(Signal::RecoveryExit, now),
                5 => cc.after_idle(now),
                6 => {
                    segment = 1 + bytes % 9000;
                    cc.set_mss(u16::try_from(segment).unwrap());
                }
                _ => {
                    let mut ack = ack(bytes >> (event * 2), rtt_us, now);
                    ack.round_ended = flag;
                    cc.on_ack(&ack);
                }
            }
            prop_assert!(cc.cwnd() >= segment && cc.cwnd() <= CWND_MAX);
            prop_assert!(cc.ssthresh() >= 2);
            match event {
                1 => prop_assert!(cc.cwnd() == segment),
                2 | 5 => prop_assert!(cc.cwnd() <= before.max(segment)),
                3 | 4 | 7.. => prop_assert!(cc.cwnd() >= before),
                _ => {}
            }
        }
    }
}
