//! Reassembly beside a map of bytes.

use crate::world::packets::Choices;
use stack::hash::HashKey;
use stack::ip::address::Ipv4;
use stack::ip::reassembly::{
    Fragment, FragmentDrop, FragmentKey, FragmentOutcome, Reassembler, ReassemblyConfig,
};
use stack::time::{Duration, Instant};
use std::net::Ipv4Addr;

const HEADER: [u8; 20] = [0x45; 20];
const TIMEOUT: Duration = Duration::from_secs(30);

/// A datagram in the making, byte by byte.
struct Model {
    bytes: Vec<Option<u8>>,
    /// Where each piece that came starts and ends.
    pieces: Vec<(usize, usize, bool)>,
    refused: bool,
    began: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    Queued,
    Complete(Vec<u8>),
    Dropped(FragmentDrop),
}

impl Model {
    fn new(began: Instant) -> Self {
        Self {
            bytes: Vec::new(),
            pieces: Vec::new(),
            refused: false,
            began,
        }
    }

    fn insert(&mut self, offset: usize, more: bool, payload: &[u8]) -> Got {
        let end = offset + payload.len();
        if self.refused {
            return Got::Dropped(FragmentDrop::Overlap);
        }
        let here = (offset, end, more);
        let same_bytes = || {
            let mut bytes = payload.iter().zip(&self.bytes[offset..end]);
            bytes.all(|(new, old)| Some(*new) == *old)
        };
        if self.pieces.contains(&here) && same_bytes() {
            return Got::Dropped(FragmentDrop::Duplicate);
        }
        let last_end = self
            .pieces
            .iter()
            .find(|piece| !piece.2)
            .map(|piece| piece.1);
        let furthest = self.pieces.iter().map(|piece| piece.1).max().unwrap_or(0);
        let beyond_last = last_end.is_some_and(|last| end > last || !more);
        let last_too_early = !more && furthest > end;
        let filled = self.bytes.iter().skip(offset).take(payload.len());
        if filled.flatten().count() > 0 || beyond_last || last_too_early {
            self.refused = true;
            return Got::Dropped(FragmentDrop::Overlap);
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, None);
        }
        for (slot, byte) in self.bytes[offset..end].iter_mut().zip(payload) {
            *slot = Some(*byte);
        }
        self.pieces.push(here);
        let has_last = self.pieces.iter().any(|piece| !piece.2);
        let whole: Option<Vec<u8>> = self.bytes.iter().copied().collect();
        match whole.filter(|_| has_last) {
            None => Got::Queued,
            // RFC 791 §3.1: header and payload together.
            Some(whole) if HEADER.len() + whole.len() > 65_535 => {
                self.refused = true;
                Got::Dropped(FragmentDrop::TooLong)
            }
            Some(whole) => Got::Complete(whole),
        }
    }
}

/// Pieces of four datagrams, from a list of (which, offset, length, fill, flags, time).
pub fn reassembly(data: &[u8]) {
    let config = ReassemblyConfig {
        timeout: TIMEOUT,
        ..ReassemblyConfig::default()
    };
    let mut reassembler = Reassembler::<Ipv4>::new(config, HashKey::new([1, 2]));
    let mut models: [Option<Model>; 4] = [const { None }; 4];
    let mut now = Instant::from_nanos(1_000_000_000);
    for step in data.chunks(8).take(256) {
        let mut choices = Choices::new(step);
        let which = choices.below(4);
        let offset = usize::from(choices.word() & 0x1fff) * 8;
        let len = match choices.word() {
            // Lengths that fit to each other, and any.
            word if word & 0x8000 != 0 => usize::from(word & 0xff) * 8,
            word => usize::from(word & 0x7ff),
        };
        let (fill, flags) = (choices.byte(), choices.byte());
        now = now + Duration::from_millis(u64::from(choices.byte()) * 100);
        let mut expired = 0;
        reassembler.expire(now, |_| expired += 1);
        for model in &mut models {
            if model
                .as_ref()
                .is_some_and(|model| now.saturating_since(model.began) >= TIMEOUT)
            {
                expired -= i32::from(!model.take().is_some_and(|model| model.refused));
            }
        }
        assert_eq!(expired, 0, "those expire whose time is over");
        let more = flags & 1 == 0;
        // The bytes depend on the place, so that a copy may be a copy.
        let payload: Vec<u8> = (0..len)
            .map(|index| fill.wrapping_add(((offset + index) % 251).to_le_bytes()[0]))
            .collect();
        let key = FragmentKey {
            source: Ipv4Addr::new(10, 0, 0, 1),
            destination: Ipv4Addr::new(10, 0, 0, 2),
            identification: u32::try_from(which).expect("four"),
            protocol: 17,
        };
        let fragment = Fragment {
            offset_bytes: offset,
            more,
            ecn: 0,
            header: &HEADER,
            payload: &payload,
        };
        let header_len = if offset == 0 { HEADER.len() } else { 0 };
        let expected = if len == 0 {
            Got::Dropped(FragmentDrop::Empty)
        } else if more && len % 8 != 0 {
            Got::Dropped(FragmentDrop::Unaligned)
        } else if header_len + offset + len > 65_535 {
            Got::Dropped(FragmentDrop::TooLong)
        } else {
            let model = models[which].get_or_insert_with(|| Model::new(now));
            model.insert(offset, more, &payload)
        };
        let insertion = reassembler.insert(key, &fragment, now);
        assert_eq!(insertion.evicted, 0, "there is room for all");
        let got = match insertion.outcome {
            FragmentOutcome::Queued => Got::Queued,
            FragmentOutcome::Dropped(reason) => Got::Dropped(reason),
            FragmentOutcome::Complete(whole) => {
                assert_eq!(whole.packet[..whole.header_len], HEADER);
                assert!(!whole.congestion_experienced);
                Got::Complete(whole.packet[whole.header_len..].to_vec())
            }
        };
        assert_eq!(got, expected, "at {offset}, {len} bytes, more: {more}");
        if matches!(got, Got::Complete(_)) {
            models[which] = None;
        }
        let open = models.iter().flatten().count();
        assert_eq!(reassembler.len(), open);
    }
    reassembler.expire(Instant::from_nanos(u64::MAX), |_| {});
    assert!(reassembler.is_empty());
    assert_eq!(reassembler.payload_bytes(), 0, "memory is free again");
}
