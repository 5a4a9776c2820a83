//! Right inputs to start from: a fuzzer that begins with nothing spends its first hour inventing
//! headers.

use crate::world::packets::{Choices, View, packets, payload_of};
use crate::world::{SETTINGS_BYTES, program};

/// The inputs that a target starts from.
///
/// # Panics
/// If there is no such target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "ethernet" => frames(),
        "arp" => payloads(|ether_type, _| ether_type == 0x0806),
        "ipv4" => payloads(|ether_type, _| ether_type == 0x0800),
        "ipv6" => payloads(|ether_type, _| ether_type == 0x86dd),
        "icmpv4" => messages(1),
        "icmpv6" => messages(58),
        "ndp" => discovery(),
        "udp" => messages(17),
        "checksum" => frames(),
        "segment" => segments(),
        "reassembly" => reassembly(),
        "neighbor" => neighbor(),
        "route" => route(),
        "timer" => timers(),
        "stack" => stack(),
        "conversation" => conversations(),
        "config" => configurations(),
        "steer" => decisions(),
        other => panic!("no target {other}"),
    }
}

/// Choices that make one packet of each kind, in a few variants each.
fn recipes() -> Vec<Vec<u8>> {
    let variants: [&[u8]; 6] = [
        &[],
        &[1],
        &[0, 0, 1],
        &[1, 1, 1, 0, 0, 3],
        &[0, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        &[1, 3, 0, 230, 2, 250, 4, 230, 0, 250, 0, 230, 0, 250],
    ];
    let kinds = 0..11u8;
    kinds
        .flat_map(|kind| variants.map(|variant| [&[kind], variant].concat()))
        .collect()
}

fn frames() -> Vec<Vec<u8>> {
    let frames = recipes()
        .into_iter()
        .flat_map(|recipe| packets(&mut Choices::new(&recipe)));
    frames.filter(|frame| frame.len() < 600).collect()
}

/// What the frames carry, where `wanted` says so by EtherType and IP protocol.
fn payloads(wanted: impl Fn(u16, Option<u8>) -> bool) -> Vec<Vec<u8>> {
    let all = frames();
    let payload = |frame: &Vec<u8>| {
        let (at, ether_type, _) = payload_of(frame)?;
        let protocol = View::of(frame).map(|view| view.protocol);
        wanted(ether_type, protocol).then(|| frame[at..].to_vec())
    };
    all.iter().filter_map(payload).collect()
}

/// The transport messages of a protocol.
fn messages(protocol: u8) -> Vec<Vec<u8>> {
    let all = frames();
    let message = |frame: &Vec<u8>| {
        let view = View::of(frame)?;
        (view.protocol == protocol).then(|| frame[view.transport].to_vec())
    };
    all.iter().filter_map(message).collect()
}

fn discovery() -> Vec<Vec<u8>> {
    let all = messages(58);
    let discovery = all.iter().filter(|message| message[0] >= 135);
    discovery
        .flat_map(|message| {
            [[0, 0, 0], [0, 0, 1], [0, 1, 0]].map(|choice| [&choice, &message[..]].concat())
        })
        .collect()
}

/// A SYN and an answer to it, data, data with SACK, and all of this cut short.
fn segments() -> Vec<Vec<u8>> {
    let header = |words: u8, flags: u8| {
        let mut header = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, words << 4, flags];
        header.extend([0xff, 0, 0, 0, 0, 0]);
        header
    };
    let times = [8, 10, 0, 1, 2, 3, 0, 4, 5, 6];
    let syn = [&[2, 4, 5, 0xb4, 4, 2][..], &times, &[1, 3, 3, 7]].concat();
    let plain = [&[1, 1][..], &times].concat();
    let sack = [
        &[1, 1, 5, 18][..],
        &[0, 0, 0, 9, 0, 0, 1, 9],
        &[9; 4],
        &[10; 4],
    ]
    .concat();
    let whole = [
        [header(10, 0xc2), syn.clone()].concat(),
        [header(10, 0x12), syn].concat(),
        [header(8, 0x18), plain.clone(), b"data".to_vec()].concat(),
        [header(5, 0x11), b"more data".to_vec()].concat(),
        [header(13, 0x10), plain, sack].concat(),
        [header(6, 0x02), vec![34, 2, 0, 0]].concat(),
    ];
    let cut = whole
        .iter()
        .map(|segment| segment[..segment.len() - 3].to_vec());
    whole.iter().cloned().chain(cut).collect()
}

fn reassembly() -> Vec<Vec<u8>> {
    // Which, offset, length, fill, last, time.
    let piece = |offset: u8, last: u8| [0, 0, offset, 0x80, 4, 7, last, 0];
    let (a, b, c) = (piece(0, 0), piece(4, 0), piece(8, 1));
    [[a, b, c], [c, b, a], [a, a, c], [a, c, piece(5, 0)]]
        .map(|steps| steps.concat())
        .to_vec()
}

fn neighbor() -> Vec<Vec<u8>> {
    let start = [4, 2, 8];
    let life = [
        [1, 1, 0],
        [6, 1, 0],
        [0, 1, 0],
        [9, 0, 250],
        [0, 1, 0],
        [9, 0, 50],
    ];
    let failure = [
        [1, 1, 0],
        [9, 0, 8],
        [9, 0, 8],
        [9, 0, 8],
        [9, 0, 8],
        [0, 1, 0],
    ];
    let mirror = [
        [7, 2, 1],
        [1, 3, 1],
        [7, 3, 2],
        [8, 2, 0],
        [4, 4, 1],
        [5, 4, 2],
    ];
    [life, failure, mirror]
        .map(|steps| [&start[..], &steps.concat()].concat())
        .to_vec()
}

fn route() -> Vec<Vec<u8>> {
    let nested = [
        [0, 8, 0, 0, 0, 0, 0, 1],
        [0, 16, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 2],
    ];
    let v6 = [
        [1, 32, 0, 0, 0, 0, 0, 0],
        [1, 128, 0, 1, 9, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0],
    ];
    [nested, v6]
        .map(|routes| [&[3][..], &routes.concat(), &[10, 1, 2, 3, 10, 2, 0, 1]].concat())
        .to_vec()
}

fn timers() -> Vec<Vec<u8>> {
    // Start; then which and whose, a time in 16 bits, and how far it is shifted.
    let start = [0, 9, 20];
    let ids = [0, 18, 36, 48, 66, 84, 96, 114u8];
    let levels = (0..)
        .zip(ids)
        .flat_map(|(level, id)| [id, 1, level, 14 + 3 * level]);
    let sleep = [5, 0, 0, 0].repeat(12);
    let pass = [4, 1, 0, 39];
    let moves = [
        0, 1, 0, 20, 0, 1, 0, 30, 2, 1, 0, 25, 3, 0, 0, 0, 1, 0, 7, 16,
    ];
    let levels: Vec<u8> = levels.collect();
    vec![
        [&start[..], &levels, &sleep].concat(),
        [&start[..], &levels, &pass].concat(),
        [&start[..], &moves, &sleep, &pass, &moves, &pass].concat(),
    ]
}

fn stack() -> Vec<Vec<u8>> {
    let packet = |recipe: &Vec<u8>| [&[0, 0], &recipe[..]].concat();
    let (pass, read, send) = (vec![8, 2], vec![9, 0], vec![11, 1, 0, 3, 0, 0, 0, 5]);
    let mut programs: Vec<Vec<u8>> = recipes()
        .iter()
        .map(|recipe| {
            let steps = [packet(recipe), read.clone(), send.clone(), pass.clone()];
            program([0; SETTINGS_BYTES], &steps)
        })
        .collect();
    let everything: Vec<Vec<u8>> = recipes().iter().step_by(5).map(packet).collect();
    for settings in [
        [0, 2, 15, 0, 0, 0, 0, 0],
        [3, 0, 16, 2, 1, 4, 255, 0],
        [4; 8],
    ] {
        programs.push(program(settings, &everything));
    }
    programs
}

/// Every state, with a few words after it: segments in order and out of it, a read, an answer, a close,
/// time to the next timers.
fn conversations() -> Vec<Vec<u8>> {
    const DATA: [u8; 4] = [1, 0, 1, 3];
    const ODD: [u8; 12] = [60, 0, 0, 5, 200, 0, 0, 180, 3, 0, 0, 0];
    const SEND: [u8; 4] = [130, 0, 0, 3];
    const READ: [u8; 4] = [130, 4, 0, 0];
    const CLOSE: [u8; 4] = [130, 10, 0, 0];
    const TIMERS: [u8; 4] = [195, 0, 9, 7];
    let words = [
        &DATA[..],
        &ODD,
        &SEND,
        &READ,
        &TIMERS,
        &DATA,
        &CLOSE,
        &TIMERS,
    ]
    .concat();
    let states = (0..12_u8).flat_map(|state| [0, 5, 26].map(|how| (state, how)));
    let mut programs: Vec<Vec<u8>> = states
        .map(|(state, how)| [&[0, 0, 0, 0, state, how], &words[..]].concat())
        .collect();
    for options in [0b10, 0b100, 0b1000, 0b1_0000, 0b1100_0001] {
        programs.push([&[0xff, options, 1, 0, 4, 0], &words[..], &words].concat());
    }
    programs
}

fn configurations() -> Vec<Vec<u8>> {
    let whole = [
        include_str!("../../config/default.toml"),
        include_str!("../../config/demo.toml"),
        include_str!("../../config/examples/own-address.toml"),
        include_str!("../../config/examples/shared-addresses.toml"),
    ];
    // Comments are most of the text, and edits within them change nothing.
    let bare = |text: &str| -> Vec<u8> {
        let lines = text.lines();
        let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
        lines
            .flat_map(|line| [line.as_bytes(), b"\n"].concat())
            .collect()
    };
    whole.iter().map(|text| bare(text)).collect()
}

fn decisions() -> Vec<Vec<u8>> {
    let made = recipes()
        .into_iter()
        .map(|recipe| [&[0, 0], &recipe[..]].concat());
    let given = frames()
        .into_iter()
        .map(|frame| [&[0, 1], &frame[..]].concat());
    made.chain(given).collect()
}
