//! A TCP segment beside the readers of others, its options written again, and SYN cookies made of
//! it and taken back.

use crate::world::packets::{Ends, OWN_V4, OWN_V6, PEER_V4, PEER_V6, checksum, pseudo_header};
use etherparse::{TcpOptionElement as Element, TcpSlice};
use stack::ip::address::IpAddress;
use stack::tcp::isn::Secret;
use stack::tcp::options::{OptionsOut, SynOptions};
use stack::tcp::segment::{self, Ecn, Flags, Header, Segment};
use stack::tcp::syn_cookie;
use stack::tcp::tuple::Tuple;
use stack::time::{Duration, Instant};
use stack::wire::checksum::Sum;
use stack::wire::tcp::{self, Packet, Verified};

const TCP: u8 = 6;
const CHECKSUM: std::ops::Range<usize> = 16..18;

/// The segment over both versions of IP, as it is, and with its checksum made right.
pub fn segment(data: &[u8]) {
    if data.len() > usize::from(u16::MAX) {
        return;
    }
    let v4 = |len| Sum::pseudo_v4(PEER_V4, OWN_V4, TCP, len);
    let v6 = |len| Sum::pseudo_v6(PEER_V6, OWN_V6, TCP, len);
    over(data, PEER_V4, OWN_V4, v4);
    over(data, PEER_V6, OWN_V6, v6);
}

fn over<A: IpAddress>(data: &[u8], remote: A, local: A, pseudo: impl Fn(u16) -> Sum + Copy) {
    let ends = pseudo_header(Ends::new(remote, local), TCP, data.len());
    let mut repaired = data.to_vec();
    if let Some(field) = repaired.get_mut(CHECKSUM) {
        field.fill(0);
        let sum = checksum(&[&ends, &repaired]).to_be_bytes();
        repaired[CHECKSUM].copy_from_slice(&sum);
    }
    for bytes in [data, &repaired] {
        let read = Packet::new_checked(bytes, 0..bytes.len());
        let other = TcpSlice::from_slice(bytes);
        assert_eq!(read.is_ok(), other.is_ok(), "{read:?}, {other:?}");
        let (Ok(packet), Ok(other)) = (read, other) else {
            return;
        };
        let right = checksum(&[&ends, bytes]) == 0;
        let verified = packet.verify(pseudo);
        assert_eq!(verified == Ok(Verified::Right), right);
        compare(&packet, &other);
    }
    let packet = Packet::new_checked(&repaired, 0..repaired.len()).expect("it was read above");
    let segment = Segment::new(&packet, Ecn::NotEct);
    written_again(&packet, &segment, pseudo);
    let tuple = Tuple {
        local,
        remote,
        local_port: packet.destination_port(),
        remote_port: packet.source_port(),
    };
    cookie(&tuple, &segment);
}

/// Every field as another reader has it.
fn compare(packet: &Packet<'_>, other: &TcpSlice<'_>) {
    assert_eq!(
        (packet.source_port(), packet.destination_port()),
        (other.source_port(), other.destination_port())
    );
    assert_eq!(packet.seq(), other.sequence_number());
    assert_eq!(packet.ack(), other.acknowledgment_number());
    assert_eq!(packet.window(), other.window_size());
    assert_eq!(packet.urgent(), other.urgent_pointer());
    let flags = [
        (Flags::FIN, other.fin()),
        (Flags::SYN, other.syn()),
        (Flags::RST, other.rst()),
        (Flags::PSH, other.psh()),
        (Flags::ACK, other.ack()),
        (Flags::URG, other.urg()),
        (Flags::ECE, other.ece()),
        (Flags::CWR, other.cwr()),
        (Flags::AE, other.ns()),
    ];
    for (flag, set) in flags {
        assert_eq!(packet.flags().contains(flag), set, "{flag:?}");
    }
    assert_eq!(packet.options(), other.options());
    assert_eq!(packet.payload_bytes(), other.payload());

    // The other reader gives up at the first option it does not know; until then both see the same.
    let options = Segment::new(packet, Ecn::NotEct).syn_options();
    let (mut mss, mut scale, mut times, mut blocks) = (None, None, None, None);
    for element in other.options_iterator().map_while(Result::ok) {
        match element {
            Element::Noop => {}
            Element::MaximumSegmentSize(size) => {
                let first = *mss.get_or_insert(size);
                assert_eq!(options.mss, Some(first));
            }
            Element::WindowScale(shift) => {
                let first = *scale.get_or_insert(shift.min(14));
                assert_eq!(options.window_scale, Some(first));
            }
            Element::SelectiveAcknowledgementPermitted => assert!(options.sack_permitted),
            Element::Timestamp(value, echo) => {
                let first = *times.get_or_insert((value, echo));
                let ours = options.timestamps.map(|times| (times.value, times.echo));
                assert_eq!(ours, Some(first));
            }
            Element::SelectiveAcknowledgement(first, more) => {
                let all = std::iter::once(first).chain(more.into_iter().flatten());
                let all: Vec<_> = all
                    .filter(|(left, right)| right.wrapping_sub(*left).cast_signed() > 0)
                    .collect();
                let first = blocks.get_or_insert(all);
                let segment = Segment::new(packet, Ecn::NotEct);
                let ours: Vec<_> = segment
                    .sack_blocks()
                    .iter()
                    .map(|block| (block.left.get(), block.right.get()))
                    .collect();
                assert_eq!(ours, *first);
            }
        }
    }
}

/// What was read, sent by us, reads the same.
fn written_again(packet: &Packet<'_>, segment: &Segment<'_>, pseudo: impl Fn(u16) -> Sum) {
    let SynOptions {
        mss,
        window_scale,
        sack_permitted,
        timestamps,
        fast_open: _,
    } = segment.syn_options();
    let sack = segment.sack_blocks();
    assert_eq!(timestamps, segment.timestamps);
    if segment.has_plain_options() {
        assert!(sack.is_empty() && mss.is_none() && window_scale.is_none() && !sack_permitted);
    }
    let options = OptionsOut {
        mss,
        window_scale,
        sack_permitted,
        timestamps,
        sack,
    };
    let header = Header {
        source_port: packet.source_port(),
        destination_port: packet.destination_port(),
        seq: segment.seq,
        ack: segment.ack,
        flags: segment.flags,
        window: segment.window,
        urgent: segment.urgent,
    };
    let at = segment::header_len(&options);
    assert!(at <= tcp::HEADER_LEN_MAX && at.is_multiple_of(4));
    let mut bytes = vec![0; at + segment.payload.len()];
    bytes[at..].copy_from_slice(segment.payload);
    let payload_len = segment.payload.len();
    let written = segment::emit(&mut bytes, 0, &header, &options, payload_len, &pseudo);
    if bytes.len() > usize::from(u16::MAX) {
        assert_eq!(written, None);
        return;
    }
    assert_eq!(written, Some(bytes.len()));
    let again = Packet::new_checked(&bytes, 0..bytes.len()).expect("what we send is whole");
    assert_eq!(again.verify(pseudo), Ok(Verified::Right));
    assert_eq!(again.header(), packet.header());
    let again = Segment::new(&again, segment.ecn);
    assert_eq!(
        (again.payload, again.end()),
        (segment.payload, segment.end())
    );
    let fast_open = false;
    let expected = SynOptions {
        fast_open,
        ..segment.syn_options()
    };
    assert_eq!(again.syn_options(), expected);
    let blocks = again.sack_blocks();
    assert!(sack.as_slice().starts_with(blocks.as_slice()));
    assert!(blocks.len() == sack.len() || at + 8 > tcp::HEADER_LEN_MAX);
}

/// A cookie for the segment as if it were a SYN comes back; and the segment as if it were an ACK
/// brings back none that was not made.
fn cookie<A: IpAddress>(tuple: &Tuple<A>, segment: &Segment<'_>) {
    let secret = Secret::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
    let now = Instant::from_nanos(u64::from(segment.ack.get()) << 16);
    let ecn = segment.flags.contains(Flags::ECE | Flags::CWR);
    let options = segment.syn_options();
    let made = syn_cookie::make(&secret, tuple, segment.seq, &options, ecn, now);
    let timestamps = made.ts_value.map(|echo| stack::tcp::options::Timestamps {
        value: u32::from(segment.window),
        echo,
    });
    let check = |now| syn_cookie::check(&secret, tuple, segment.seq, made.isn, timestamps, now);
    for later in [Duration::ZERO, Duration::from_secs(67)] {
        let accepted = check(now + later).expect("it is ours");
        let mut expected = made.agreed;
        expected.options.timestamps = timestamps;
        assert_eq!(accepted.agreed, expected);
        if let Some(value) = made.ts_value {
            let behind = accepted.clock.elapsed_ms(value, now);
            assert!(behind.is_some_and(|behind| behind < 64));
        }
    }
    assert_eq!(check(now + Duration::from_secs(135)), None);
    let brought = syn_cookie::check(
        &secret,
        tuple,
        segment.seq - 1,
        segment.ack - 1,
        segment.timestamps,
        now,
    );
    if let Some(accepted) = brought {
        // Only if it was guessed, and then it says what a cookie can say.
        assert!(accepted.agreed.options.mss.is_some_and(|mss| mss >= 88));
        assert!(
            accepted
                .agreed
                .options
                .window_scale
                .is_none_or(|scale| scale <= 14)
        );
    }
}
