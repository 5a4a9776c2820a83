//! Segments as scripts write them, and how what was sent is compared with what was expected.
//!
//! ```text
//!  S.    0:1000(1000)   ack 1   win 65535   <mss 1460,sackOK,TS val 1 ecr 0>   {ttl 64}
//!  flags first:end(len) ───────── fields ─────── options ──────────────────── attributes
//! ```

use super::number::{Pattern, Variables, absolute, evaluate, relative};
use crate::sim::packet::{Ip, Tcp, flag};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::IpAddr;

/// What numbers are counted from, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bases {
    /// Sequence numbers of the sender.
    pub seq: u32,
    /// Sequence numbers of the other: acknowledgments and SACK blocks.
    pub ack: u32,
    /// Timestamp values of the sender.
    pub ts_value: u32,
    /// Timestamp values of the other, as they are echoed.
    pub ts_echo: u32,
}

/// An option as a script writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionText {
    /// `nop`
    Nop,
    /// `eol`
    End,
    /// `mss N`
    Mss(Pattern),
    /// `wscale N`
    WindowScale(Pattern),
    /// `sackOK`
    SackPermitted,
    /// `sack A:B C:D …`
    Sack(Vec<(Pattern, Pattern)>),
    /// `TS val N ecr N`
    Timestamps(Pattern, Pattern),
    /// `hex 1e0412…`: bytes as they are.
    Raw(Vec<u8>),
    /// `*`: whatever else there is.
    Rest,
}

/// What a script says about the packet around a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `src A`
    Source(IpAddr),
    /// `dst A`
    Destination(IpAddr),
    /// `sport N`
    SourcePort(u16),
    /// `dport N`
    DestinationPort(u16),
    /// `tos N`
    Tos(u8),
    /// `ttl N`
    Ttl(u8),
    /// `ecn notect|ect0|ect1|ce`: the low two bits of the type of service.
    Ecn(u8),
    /// `checksum bad`
    BadChecksum,
    /// `reserved N`: the reserved bits of the header, 0 to 7.
    Reserved(u8),
    /// `offset N`: the data offset field, right or wrong.
    DataOffset(u8),
    /// `ipopt HEX`: options of the IPv4 header.
    IpOptions(Vec<u8>),
    /// `fill N`: every byte of the payload, instead of the stream's.
    Fill(u8),
    /// `cut N`: bytes of the segment that are there.
    Cut(usize),
    /// `group`: in an Ethernet frame for everybody.
    Group,
}

/// A segment as a script writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentText {
    /// Of [`flag`]; `None` for `*`: any segment at all.
    pub flags: Option<u16>,
    /// Flags that may be there or not.
    pub optional_flags: u16,
    /// First sequence number.
    pub first: Pattern,
    /// The one behind the payload.
    pub end: Pattern,
    /// Bytes of payload.
    pub len: Pattern,
    /// Acknowledgment number.
    pub ack: Option<Pattern>,
    /// Window field.
    pub window: Option<Pattern>,
    /// Urgent pointer.
    pub urgent: Option<Pattern>,
    /// Options; `None` if the script does not say.
    pub options: Option<Vec<OptionText>>,
    /// Attributes.
    pub attributes: Vec<Attribute>,
}

/// Flags and their letters, in the order they are written. `.` is ACK, as in tcpdump.
const FLAGS: [(char, u16); 9] = [
    ('S', flag::SYN),
    ('F', flag::FIN),
    ('R', flag::RST),
    ('P', flag::PSH),
    ('U', flag::URG),
    ('E', flag::ECE),
    ('W', flag::CWR),
    ('A', flag::AE),
    ('.', flag::ACK),
];

/// Flags that count even if a script does not write them: all but PSH.
const STRICT: u16 = 0x1ff & !flag::PSH;

/// Bytes written in hexadecimal.
fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let wrong = || format!("`{text}`: expected pairs of hexadecimal digits");
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return Err(wrong());
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong()))
        .collect()
}

/// Cuts `open … close` out of a text: what is before, inside and behind. Nothing inside if there is
/// none.
fn group(text: &str, open: char, close: char) -> Result<(&str, Option<&str>, &str), String> {
    let Some((before, rest)) = text.split_once(open) else {
        return Ok((text, None, ""));
    };
    let (inside, after) = rest
        .split_once(close)
        .ok_or_else(|| format!("`{open}` without `{close}`"))?;
    Ok((before, Some(inside), after))
}

impl SegmentText {
    /// Reads a segment.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(text: &str, variables: &Variables) -> Result<Self, String> {
        let (text, attributes, rest) = group(text, '{', '}')?;
        if !rest.trim().is_empty() {
            return Err(format!("`{}` behind the attributes", rest.trim()));
        }
        let attributes = attributes.map_or(Ok(Vec::new()), |text| {
            let items = text.split(',').map(str::trim);
            items.map(|item| attribute(item, variables)).collect()
        })?;
        let (text, options, rest) = group(text, '<', '>')?;
        if !rest.trim().is_empty() {
            return Err(format!("`{}` behind the options", rest.trim()));
        }
        let options = options.map(|text| {
            let items = text.split(',').map(str::trim);
            let items = items.filter(|item| !item.is_empty());
            items.map(|item| option(item, variables)).collect()
        });
        let mut this = Self {
            flags: None,
            optional_flags: 0,
            first: Pattern::Any,
            end: Pattern::Any,
            len: Pattern::Any,
            ack: None,
            window: None,
            urgent: None,
            options: options.transpose()?,
            attributes,
        };
        let mut words = text.split_whitespace();
        let letters = words.next().ok_or("expected flags")?;
        if letters == "*" {
            return match words.next() {
                None => Ok(this),
                Some(word) => Err(format!("`{word}` behind `*`, which is any segment")),
            };
        }
        let (required, optional) = flags(letters)?;
        this.flags = Some(required);
        this.optional_flags = optional;
        let numbers = words.next().ok_or("expected sequence numbers")?;
        (this.first, this.end, this.len) = sequence(numbers, variables)?;
        while let Some(word) = words.next() {
            let field = match word {
                "ack" => &mut this.ack,
                "win" => &mut this.window,
                "urg" => &mut this.urgent,
                _ => return Err(format!("`{word}`: expected ack, win or urg")),
            };
            let number = words.next().ok_or_else(|| format!("{word} of what?"))?;
            *field = Some(Pattern::parse(number, variables)?);
        }
        Ok(this)
    }
}

/// Flags that are required, and those, followed by `?`, that are not.
fn flags(letters: &str) -> Result<(u16, u16), String> {
    let (mut required, mut optional) = (0, 0);
    if letters == "-" {
        return Ok((required, optional));
    }
    let mut rest = letters.chars().peekable();
    while let Some(letter) = rest.next() {
        let known = FLAGS.iter().find(|(name, _)| *name == letter);
        let (_, flag) = known.ok_or_else(|| {
            format!(
                "`{letter}` in `{letters}`: flags are S F R P U E W A and . for ACK, - for none"
            )
        })?;
        match rest.next_if_eq(&'?') {
            Some(_) => optional |= flag,
            None => required |= flag,
        }
    }
    Ok((required, optional))
}

/// `first:end(len)`, or `*`.
fn sequence(text: &str, variables: &Variables) -> Result<(Pattern, Pattern, Pattern), String> {
    if text == "*" {
        return Ok((Pattern::Any, Pattern::Any, Pattern::Any));
    }
    let parts = text.split_once(':').and_then(|(first, rest)| {
        let (end, len) = rest.strip_suffix(')')?.split_once('(')?;
        Some((first, end, len))
    });
    let (first, end, len) =
        parts.ok_or_else(|| format!("`{text}`: expected first:end(length), or *"))?;
    let parse = |text| Pattern::parse(text, variables);
    let (first, end, len) = (parse(first)?, parse(end)?, parse(len)?);
    if let (Some(a), Some(b), Some(n)) = (first.number(), end.number(), len.number())
        && b - a != n
    {
        return Err(format!("`{text}`: {b} - {a} is {}, not {n}", b - a));
    }
    Ok((first, end, len))
}

fn option(text: &str, variables: &Variables) -> Result<OptionText, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |text| Pattern::parse(text, variables);
    match words[..] {
        ["nop"] => Ok(OptionText::Nop),
        ["eol"] => Ok(OptionText::End),
        ["*"] => Ok(OptionText::Rest),
        ["sackOK"] => Ok(OptionText::SackPermitted),
        ["mss", value] => Ok(OptionText::Mss(number(value)?)),
        ["wscale", value] => Ok(OptionText::WindowScale(number(value)?)),
        ["TS", "val", value, "ecr", echo] => {
            Ok(OptionText::Timestamps(number(value)?, number(echo)?))
        }
        ["sack", ref blocks @ ..] if !blocks.is_empty() => {
            let blocks = blocks.iter().map(|block| {
                let (left, right) = block
                    .split_once(':')
                    .ok_or_else(|| format!("`{block}`: expected left:right"))?;
                Ok((number(left)?, number(right)?))
            });
            Ok(OptionText::Sack(blocks.collect::<Result<_, String>>()?))
        }
        ["hex", bytes] => Ok(OptionText::Raw(hex(bytes)?)),
        _ => Err(format!(
            "option `{text}`: expected mss N, wscale N, sackOK, sack A:B, TS val N ecr N, nop, eol, hex BYTES or *"
        )),
    }
}

fn attribute(text: &str, variables: &Variables) -> Result<Attribute, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    fn number<T: TryFrom<i64>>(text: &str, variables: &Variables) -> Result<T, String> {
        let value = evaluate(text, variables)?;
        T::try_from(value).map_err(|_| format!("`{text}`: {value} is too large here"))
    }
    let address = |text: &str| text.parse().map_err(|_| format!("`{text}` is no address"));
    Ok(match words[..] {
        ["src", value] => Attribute::Source(address(value)?),
        ["dst", value] => Attribute::Destination(address(value)?),
        ["sport", value] => Attribute::SourcePort(number(value, variables)?),
        ["dport", value] => Attribute::DestinationPort(number(value, variables)?),
        ["tos", value] => Attribute::Tos(number(value, variables)?),
        ["ttl", value] => Attribute::Ttl(number(value, variables)?),
        ["ecn", "notect"] => Attribute::Ecn(0),
        ["ecn", "ect1"] => Attribute::Ecn(1),
        ["ecn", "ect0"] => Attribute::Ecn(2),
        ["ecn", "ce"] => Attribute::Ecn(3),
        ["checksum", "bad"] => Attribute::BadChecksum,
        ["reserved", value] => Attribute::Reserved(number(value, variables)?),
        ["offset", value] => Attribute::DataOffset(number(value, variables)?),
        ["ipopt", value] => Attribute::IpOptions(hex(value)?),
        ["fill", value] => Attribute::Fill(number(value, variables)?),
        ["cut", value] => Attribute::Cut(number(value, variables)?),
        ["group"] => Attribute::Group,
        _ => {
            return Err(format!(
                "attribute `{text}`: expected src, dst, sport, dport, tos, ttl, ecn, checksum bad, reserved, offset, ipopt, fill, cut or group"
            ));
        }
    })
}

/// The bytes of options to be sent. An echo that is `*` is `latest`, the other's last timestamp.
///
/// # Errors
/// What leaves open what to send.
pub fn option_bytes(options: &[OptionText], bases: &Bases, latest: u32) -> Result<Vec<u8>, String> {
    fn exact<T: TryFrom<i64>>(what: &str, pattern: Pattern) -> Result<T, String> {
        let number = pattern.number().and_then(|number| number.try_into().ok());
        number.ok_or_else(|| format!("{what} {pattern}: cannot be sent"))
    }
    let mut bytes = Vec::new();
    for option in options {
        match option {
            OptionText::Nop => bytes.push(1),
            OptionText::End => bytes.push(0),
            OptionText::SackPermitted => bytes.extend_from_slice(&[4, 2]),
            OptionText::Raw(raw) => bytes.extend_from_slice(raw),
            OptionText::Mss(mss) => {
                bytes.extend_from_slice(&[2, 4]);
                bytes.extend_from_slice(&exact::<u16>("mss", *mss)?.to_be_bytes());
            }
            OptionText::WindowScale(scale) => {
                bytes.extend_from_slice(&[3, 3, exact("wscale", *scale)?]);
            }
            OptionText::Timestamps(value, echo) => {
                let echo = match *echo {
                    Pattern::Any => latest,
                    echo => absolute(echo, bases.ts_echo).ok_or("ecr: cannot be sent")?,
                };
                let value = absolute(*value, bases.ts_value).ok_or("val: cannot be sent")?;
                bytes.extend_from_slice(&[8, 10]);
                bytes.extend_from_slice(&value.to_be_bytes());
                bytes.extend_from_slice(&echo.to_be_bytes());
            }
            OptionText::Sack(blocks) => {
                let len = u8::try_from(2 + 8 * blocks.len()).map_err(|_| "too many blocks")?;
                bytes.extend_from_slice(&[5, len]);
                for edge in blocks.iter().flat_map(|(left, right)| [left, right]) {
                    let edge = absolute(*edge, bases.ack).ok_or("sack: cannot be sent")?;
                    bytes.extend_from_slice(&edge.to_be_bytes());
                }
            }
            OptionText::Rest => return Err("* among options cannot be sent".into()),
        }
    }
    Ok(bytes)
}

/// An option as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    Nop,
    End,
    Mss(u16),
    WindowScale(u8),
    SackPermitted,
    Sack(Vec<(u32, u32)>),
    Timestamps(u32, u32),
    Other(Vec<u8>),
}

/// Options in the order they stand; bytes that make no sense end the list.
fn sent_options(mut bytes: &[u8]) -> Vec<Sent> {
    let mut options = Vec::new();
    let word = |bytes: &[u8], at: usize| {
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    loop {
        let len = match *bytes {
            [] => break,
            [0, ..] => {
                options.push(Sent::End);
                break;
            }
            [1, ..] => 1,
            [_, len, ..] if len >= 2 && usize::from(len) <= bytes.len() => usize::from(len),
            _ => {
                options.push(Sent::Other(bytes.to_vec()));
                break;
            }
        };
        let (this, rest) = bytes.split_at(len);
        options.push(match *this {
            [1] => Sent::Nop,
            [2, 4, high, low] => Sent::Mss(u16::from_be_bytes([high, low])),
            [3, 3, scale] => Sent::WindowScale(scale),
            [4, 2] => Sent::SackPermitted,
            [5, ..] if len % 8 == 2 => Sent::Sack(
                this[2..]
                    .chunks(8)
                    .map(|block| (word(block, 0), word(block, 4)))
                    .collect(),
            ),
            [8, 10, ..] => Sent::Timestamps(word(this, 2), word(this, 6)),
            _ => Sent::Other(this.to_vec()),
        });
        bytes = rest;
    }
    options
}

/// The timestamp value and echo that a segment carries.
#[must_use]
pub fn timestamps(tcp: &Tcp<'_>) -> Option<(u32, u32)> {
    sent_options(tcp.options).into_iter().find_map(|option| {
        let Sent::Timestamps(value, echo) = option else {
            return None;
        };
        Some((value, echo))
    })
}

/// A segment in the notation of scripts.
#[must_use]
pub fn show(ip: &Ip<'_>, tcp: &Tcp<'_>, bases: &Bases) -> String {
    let mut text: String = FLAGS
        .iter()
        .filter(|(_, flag)| tcp.flags & flag != 0)
        .map(|(letter, _)| *letter)
        .collect();
    if text.is_empty() {
        text.push('-');
    }
    let len = tcp.payload.len();
    let first = relative(tcp.seq, bases.seq);
    let end = first + i64::try_from(len).unwrap_or(0);
    // Writing to a string does not fail.
    let _ = write!(text, " {first}:{end}({len})");
    if tcp.flags & flag::ACK != 0 {
        let _ = write!(text, " ack {}", relative(tcp.ack, bases.ack));
    }
    let _ = write!(text, " win {}", tcp.window);
    if tcp.flags & flag::URG != 0 {
        let _ = write!(text, " urg {}", tcp.urgent);
    }
    let options: Vec<String> = sent_options(tcp.options)
        .iter()
        .map(|option| show_option(option, bases))
        .collect();
    let _ = write!(text, " <{}>", options.join(","));
    if (ip.tos, ip.ttl) != (0, 64) {
        let _ = write!(text, " {{tos {:#04x}, ttl {}}}", ip.tos, ip.ttl);
    }
    text
}

fn show_option(option: &Sent, bases: &Bases) -> String {
    match option {
        Sent::Nop => "nop".into(),
        Sent::End => "eol".into(),
        Sent::SackPermitted => "sackOK".into(),
        Sent::Mss(mss) => format!("mss {mss}"),
        Sent::WindowScale(scale) => format!("wscale {scale}"),
        Sent::Timestamps(value, echo) => format!(
            "TS val {} ecr {}",
            relative(*value, bases.ts_value),
            relative(*echo, bases.ts_echo)
        ),
        Sent::Sack(blocks) => {
            let mut text = String::from("sack");
            for (left, right) in blocks {
                let (left, right) = (relative(*left, bases.ack), relative(*right, bases.ack));
                let _ = write!(text, " {left}:{right}");
            }
            text
        }
        Sent::Other(bytes) => {
            let mut text = String::from("hex ");
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
            text
        }
    }
}

impl SegmentText {
    /// What differs between this and a segment that was sent; `None` if nothing does.
    #[must_use]
    pub fn difference(&self, ip: &Ip<'_>, tcp: &Tcp<'_>, bases: &Bases) -> Option<String> {
        let Self {
            flags,
            optional_flags,
            first,
            end,
            len,
            ack,
            window,
            urgent,
            options,
            attributes,
        } = self;
        if let Some(flags) = flags {
            let counted = (STRICT | flags) & !optional_flags;
            if tcp.flags & counted != *flags {
                return Some("the flags differ".into());
            }
        }
        let sent_len = u32::try_from(tcp.payload.len()).unwrap_or(u32::MAX);
        let sent_end = tcp.seq.wrapping_add(sent_len);
        if !first.matches_seq(tcp.seq, bases.seq) {
            let sent = relative(tcp.seq, bases.seq);
            return Some(format!("it starts at {sent}, not at {first}"));
        }
        if !len.matches(sent_len.into()) {
            return Some(format!("it holds {sent_len} bytes, not {len}"));
        }
        if !end.matches_seq(sent_end, bases.seq) {
            let sent = relative(sent_end, bases.seq);
            return Some(format!("it ends at {sent}, not at {end}"));
        }
        if let Some(ack) = ack
            && !ack.matches_seq(tcp.ack, bases.ack)
        {
            let sent = relative(tcp.ack, bases.ack);
            return Some(format!("ack is {sent} (={}), not {ack}", tcp.ack));
        }
        if let Some(window) = window
            && !window.matches(tcp.window.into())
        {
            return Some(format!("win is {}, not {window}", tcp.window));
        }
        if let Some(urgent) = urgent
            && !urgent.matches(tcp.urgent.into())
        {
            return Some(format!("urg is {}, not {urgent}", tcp.urgent));
        }
        options
            .as_ref()
            .and_then(|options| options_difference(options, &sent_options(tcp.options), bases))
            .or_else(|| attributes_difference(attributes, ip, tcp))
    }
}

fn options_difference(wanted: &[OptionText], sent: &[Sent], bases: &Bases) -> Option<String> {
    // Padding counts only where the script writes it.
    let pads = |option: &OptionText| matches!(option, OptionText::Nop | OptionText::End);
    let with_padding = wanted.iter().any(pads);
    let mut sent: Vec<&Sent> = sent
        .iter()
        .filter(|option| with_padding || !matches!(option, Sent::Nop | Sent::End))
        .collect();
    let any_order = wanted.contains(&OptionText::Rest);
    for option in wanted {
        if *option == OptionText::Rest {
            continue;
        }
        let at = sent
            .iter()
            .position(|sent| option.matches(sent, bases))
            .filter(|at| any_order || *at == 0);
        match at {
            Some(at) => {
                sent.remove(at);
            }
            None => {
                let place = if any_order { "nowhere" } else { "not next" };
                return Some(format!("option {option:?} is {place} among its options"));
            }
        }
    }
    match sent.first() {
        Some(option) if !any_order => Some(format!(
            "nobody expected option {}",
            show_option(option, bases)
        )),
        _ => None,
    }
}

impl OptionText {
    fn matches(&self, sent: &Sent, bases: &Bases) -> bool {
        match (self, sent) {
            (Self::Nop, Sent::Nop)
            | (Self::End, Sent::End)
            | (Self::SackPermitted, Sent::SackPermitted) => true,
            (Self::Mss(wanted), Sent::Mss(sent)) => wanted.matches((*sent).into()),
            (Self::WindowScale(wanted), Sent::WindowScale(sent)) => wanted.matches((*sent).into()),
            (Self::Timestamps(value, echo), Sent::Timestamps(sent_value, sent_echo)) => {
                value.matches_seq(*sent_value, bases.ts_value)
                    && echo.matches_seq(*sent_echo, bases.ts_echo)
            }
            (Self::Sack(wanted), Sent::Sack(sent)) => {
                wanted.len() == sent.len()
                    && wanted.iter().zip(sent).all(|(wanted, sent)| {
                        wanted.0.matches_seq(sent.0, bases.ack)
                            && wanted.1.matches_seq(sent.1, bases.ack)
                    })
            }
            (Self::Raw(wanted), Sent::Other(sent)) => wanted == sent,
            _ => false,
        }
    }
}

fn attributes_difference(wanted: &[Attribute], ip: &Ip<'_>, tcp: &Tcp<'_>) -> Option<String> {
    wanted.iter().find_map(|attribute| {
        let (name, sent, is_so) = match attribute {
            Attribute::Source(wanted) => ("src", ip.source.to_string(), *wanted == ip.source),
            Attribute::Destination(wanted) => {
                let sent = ip.destination;
                ("dst", sent.to_string(), *wanted == sent)
            }
            Attribute::SourcePort(wanted) => {
                let sent = tcp.source_port;
                ("sport", sent.to_string(), *wanted == sent)
            }
            Attribute::DestinationPort(wanted) => {
                let sent = tcp.destination_port;
                ("dport", sent.to_string(), *wanted == sent)
            }
            Attribute::Tos(wanted) => ("tos", ip.tos.to_string(), *wanted == ip.tos),
            Attribute::Ttl(wanted) => ("ttl", ip.ttl.to_string(), *wanted == ip.ttl),
            Attribute::Ecn(wanted) => {
                let sent = ip.tos & 3;
                ("ecn", format!("{sent:02b}"), *wanted == sent)
            }
            other => return Some(format!("{other:?} is for segments that are injected")),
        };
        (!is_so).then(|| format!("{name} is {sent}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::packet;
    use crate::sim::script::frame::{Addresses, Segment};

    const BASES: Bases = Bases {
        seq: u32::MAX - 10,
        ack: 1000,
        ts_value: 77,
        ts_echo: 0,
    };

    fn parse(text: &str) -> SegmentText {
        SegmentText::parse(text, &Variables::new()).unwrap()
    }

    /// Compares a segment with a text.
    fn difference(text: &str, segment: &Segment) -> Option<String> {
        let frame = segment.frame(&Addresses::V6).unwrap();
        let (ip, tcp) = packet::tcp(&frame).unwrap().unwrap();
        parse(text).difference(&ip, &tcp, &BASES)
    }

    fn segment() -> Segment {
        let options = parse("* <mss 1460,sackOK,TS val 5 ecr 9,nop,wscale 7>").options;
        Segment {
            source_port: 8080,
            destination_port: 40_000,
            seq: 9,
            ack: 1007,
            flags: flag::SYN | flag::ACK | flag::PSH,
            window: 500,
            options: option_bytes(&options.unwrap(), &BASES, 0).unwrap(),
            payload: [7; 3].into(),
            tos: 2,
            ..Segment::default()
        }
    }

    #[test]
    fn what_is_shown_is_what_matches() {
        let segment = segment();
        let frame = segment.frame(&Addresses::V6).unwrap();
        let (ip, tcp) = packet::tcp(&frame).unwrap().unwrap();
        let shown = show(&ip, &tcp, &BASES);
        assert_eq!(
            shown,
            "SP. 20:23(3) ack 7 win 500 <mss 1460,sackOK,TS val 5 ecr 9,nop,wscale 7> {tos 0x02, ttl 64}"
        );
        assert_eq!(difference(&shown, &segment), None);
    }

    #[test]
    fn what_is_left_open_matches() {
        for text in [
            "*",
            "S. 20:23(3)",
            "S. *",
            "S.? *",
            "SE?. *",
            "S. 20:*(*) ack * win 400..",
            "SP. 20:23(3) ack 7 <wscale 0..14,*>",
            "S. * <*,mss 1000..2000>",
            "S. * <mss 1460,sackOK,TS val * ecr *,wscale *>",
            "S. =9:*(3) ack =1007",
            "S. * {ecn ect0, sport 8080, dport 40000, ttl 64}",
        ] {
            assert_eq!(difference(text, &segment()), None, "{text}");
        }
    }

    #[test]
    fn every_difference_is_named() {
        for (text, expected) in [
            ("S 20:23(3)", "the flags differ"),
            ("SE. 20:23(3)", "the flags differ"),
            ("S. 21:24(3)", "it starts at 20, not at 21"),
            ("S. 20:24(4)", "it holds 3 bytes, not 4"),
            ("S. 20:23(3) ack 8", "ack is 7 (=1007), not 8"),
            ("S. * win ..499", "win is 500, not ..499"),
            ("S. * urg 1", "urg is 0, not 1"),
            ("S. * <>", "nobody expected option mss 1460"),
            (
                "S. * <sackOK>",
                "option SackPermitted is not next among its options",
            ),
            (
                "S. * <nop,*,nop>",
                "option Nop is nowhere among its options",
            ),
            ("S. * {ecn ce}", "ecn is 10"),
            ("S. * {src 192.0.2.1}", "src is 2001:db8::2"),
        ] {
            assert_eq!(difference(text, &segment()).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_push_that_is_written_must_be_there() {
        let quiet = Segment {
            flags: flag::SYN | flag::ACK,
            ..segment()
        };
        assert_eq!(difference("S. *", &quiet), None);
        assert!(difference("SP. *", &quiet).is_some());
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        for (text, expected) in [
            ("", "expected flags"),
            ("S", "expected sequence numbers"),
            ("X 0:0(0)", "`X` in `X`: flags are"),
            ("S 0:1(0)", "1 - 0 is 1, not 0"),
            ("S 0", "expected first:end(length)"),
            ("S 0:0(0) ack", "ack of what?"),
            ("S 0:0(0) nak 1", "expected ack, win or urg"),
            ("S 0:0(0) <mss>", "option `mss`: expected mss N"),
            ("S 0:0(0) <mss 1", "`<` without `>`"),
            ("S 0:0(0) {x 1}", "attribute `x 1`"),
            ("S 0:0(0) {ttl 256}", "256 is too large here"),
            ("S 0:0(0) <hex 123>", "pairs of hexadecimal"),
            ("* 1", "behind `*`"),
        ] {
            let error = SegmentText::parse(text, &Variables::new()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn options_are_written_as_bytes() {
        let bytes = |text: &str| option_bytes(&parse(text).options.unwrap(), &BASES, 3);
        assert_eq!(
            bytes("* <sack 1:11,TS val 0 ecr *,eol,hex 2202>").unwrap(),
            [
                5, 10, 0, 0, 3, 233, 0, 0, 3, 243, 8, 10, 0, 0, 0, 77, 0, 0, 0, 3, 0, 34, 2
            ]
        );
        assert!(bytes("* <mss *>").is_err());
        assert!(bytes("* <wscale 300>").is_err());
        assert!(bytes("* <*>").is_err());
    }
}
