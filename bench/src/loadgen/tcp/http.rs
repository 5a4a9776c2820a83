//! HTTP/1.1 requests, one after the other on each connection (RFC 9112). Heads are parsed by `httparse`;
//! how long a reply is, is told here.

use super::dialogue::{Dialogue, Progress, Reply};
use super::failure::Failure;
use httparse::{EMPTY_HEADER, Status};

/// Longest head of a reply: what common servers and clients allow is 8 to 64 KiB.
const HEAD_LEN_MAX: usize = 64 << 10;

/// Header fields of a reply, at most: nginx and others send a dozen.
const HEADERS_MAX: usize = 128;

/// Longest line with the size of a chunk, extensions included.
const CHUNK_LINE_LEN_MAX: usize = 4096;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, or another method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The Host field.
    pub host: String,
    /// More fields, as `Name: value`.
    pub headers: Vec<String>,
    /// What is sent with it.
    pub body: Vec<u8>,
    /// Whether the connection is to be kept for the next request.
    pub keep_alive: bool,
    /// What every reply's body must be; anything, if none.
    pub expected: Option<Vec<u8>>,
}

impl Request {
    fn to_bytes(&self) -> Vec<u8> {
        let Self {
            method,
            path,
            host,
            headers,
            body,
            keep_alive,
            expected: _,
        } = self;
        let named = |name: &str| {
            let is_it = |header: &String| {
                let (given, _) = header.split_once(':').unwrap_or((header, ""));
                given.trim().eq_ignore_ascii_case(name)
            };
            headers.iter().any(is_it)
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !named("host") {
            head += &format!("Host: {host}\r\n");
        }
        for header in headers {
            head += header;
            head += "\r\n";
        }
        if !named("user-agent") {
            head += concat!("User-Agent: loadgen/", env!("CARGO_PKG_VERSION"), "\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        if !keep_alive {
            // RFC 9112 §9.6.
            head += "Connection: close\r\n";
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// The same request again and again.
#[derive(Debug)]
pub struct Http {
    request: Vec<u8>,
    /// A reply to HEAD has no body, whatever it says (RFC 9110 §9.3.2).
    head_only: bool,
    expected: Option<Vec<u8>>,
}

/// [`Http`] on one connection.
#[derive(Debug, Default)]
pub struct HttpTalk {
    /// Bytes of the request still to be sent.
    to_send: usize,
    stage: Stage,
    /// What came of a head or line that is not there whole.
    part: Vec<u8>,
    /// Bytes of the body so far.
    body_len: u64,
    reply: ReplyHead,
}

/// What came with the head of a reply.
#[derive(Clone, Copy, Debug, Default)]
struct ReplyHead {
    failure: Option<Failure>,
    closing: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing was asked.
    #[default]
    Idle,
    Head,
    /// That many bytes of the body are missing.
    Length(u64),
    /// The body ends with the connection.
    UntilEnd,
    /// RFC 9112 §7.1: the line with the size of a chunk.
    ChunkSize,
    /// That many bytes of the chunk are missing.
    Chunk(u64),
    /// The end of the line behind a chunk.
    ChunkEnd,
    /// RFC 9112 §7.1.2: fields behind the last chunk.
    Trailer,
}

/// What a step in reading a reply comes to.
enum Step<'a> {
    /// It took these bytes, and goes on with the rest.
    On(&'a [u8]),
    /// The reply is there, and this is behind it.
    Whole(&'a [u8]),
    /// More is to come.
    More,
    Failed(Failure),
}

impl Http {
    /// Repeats `request`.
    #[must_use]
    pub fn new(request: &Request) -> Self {
        Self {
            request: request.to_bytes(),
            head_only: request.method == "HEAD",
            expected: request.expected.clone(),
        }
    }

    /// Bytes of a request.
    #[must_use]
    pub fn request_len(&self) -> usize {
        self.request.len()
    }

    fn step<'a>(&self, talk: &mut HttpTalk, bytes: &'a [u8]) -> Step<'a> {
        match talk.stage {
            Stage::Idle => Step::Failed(Failure::Unexpected),
            Stage::Head => self.head(talk, bytes),
            Stage::Length(left) => {
                let (body, rest) = split(bytes, left);
                self.body(talk, body);
                let left = left - body.len() as u64;
                talk.stage = Stage::Length(left);
                if left == 0 {
                    self.whole(talk, rest)
                } else {
                    Step::More
                }
            }
            Stage::UntilEnd => {
                self.body(talk, bytes);
                Step::More
            }
            Stage::Chunk(left) => {
                let (body, rest) = split(bytes, left);
                self.body(talk, body);
                talk.stage = match left - body.len() as u64 {
                    0 => Stage::ChunkEnd,
                    left => Stage::Chunk(left),
                };
                Step::On(rest)
            }
            Stage::ChunkSize | Stage::ChunkEnd | Stage::Trailer => self.line(talk, bytes),
        }
    }

    fn head<'a>(&self, talk: &mut HttpTalk, bytes: &'a [u8]) -> Step<'a> {
        let earlier = talk.part.len();
        // Most heads come whole and are never copied.
        let parsed = if earlier == 0 {
            parse_head(bytes)
        } else {
            talk.part.extend_from_slice(bytes);
            parse_head(&talk.part)
        };
        let head = match parsed {
            Ok(Some(head)) => head,
            Ok(None) => {
                if earlier == 0 {
                    talk.part.extend_from_slice(bytes);
                }
                return if talk.part.len() > HEAD_LEN_MAX {
                    Step::Failed(Failure::Malformed)
                } else {
                    Step::More
                };
            }
            Err(failure) => return Step::Failed(failure),
        };
        // Without its last bytes it was not whole.
        let rest = &bytes[head.len - earlier..];
        talk.part.clear();
        if head.status < 200 && head.status != 101 {
            // RFC 9110 §15.2: the final reply follows.
            return Step::On(rest);
        }
        talk.reply = ReplyHead {
            failure: (!(200..400).contains(&head.status)).then_some(Failure::Status),
            closing: head.closing,
        };
        // RFC 9112 §6.3, in its order.
        let bodiless = self.head_only || matches!(head.status, 101 | 204 | 304);
        talk.stage = match head.body {
            _ if bodiless => Stage::Length(0),
            Framing::Chunked => Stage::ChunkSize,
            Framing::Length(length) => Stage::Length(length),
            Framing::UntilEnd => {
                talk.reply.closing = true;
                Stage::UntilEnd
            }
        };
        if bodiless {
            // There is none to compare.
            talk.stage = Stage::Idle;
            return Step::Whole(rest);
        }
        if talk.stage == Stage::Length(0) {
            return self.whole(talk, rest);
        }
        Step::On(rest)
    }

    /// A line of the chunked coding.
    fn line<'a>(&self, talk: &mut HttpTalk, bytes: &'a [u8]) -> Step<'a> {
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            talk.part.extend_from_slice(bytes);
            return if talk.part.len() > CHUNK_LINE_LEN_MAX {
                Step::Failed(Failure::Malformed)
            } else {
                Step::More
            };
        };
        let (line, rest) = bytes.split_at(end + 1);
        talk.part.extend_from_slice(line);
        let line = std::mem::take(&mut talk.part);
        let is_empty = matches!(line.as_slice(), b"\r\n" | b"\n");
        let next = match talk.stage {
            Stage::ChunkEnd if is_empty => Stage::ChunkSize,
            Stage::ChunkSize => match httparse::parse_chunk_size(&line) {
                Ok(Status::Complete((_, 0))) => Stage::Trailer,
                Ok(Status::Complete((_, size))) => Stage::Chunk(size),
                _ => return Step::Failed(Failure::Malformed),
            },
            Stage::Trailer if is_empty => return self.whole(talk, rest),
            Stage::Trailer => Stage::Trailer,
            _ => return Step::Failed(Failure::Malformed),
        };
        talk.stage = next;
        talk.part = line;
        talk.part.clear();
        Step::On(rest)
    }

    fn body(&self, talk: &mut HttpTalk, bytes: &[u8]) {
        if let Some(expected) = &self.expected {
            let at = usize::try_from(talk.body_len).unwrap_or(usize::MAX);
            let same = expected
                .get(at..)
                .is_some_and(|rest| rest.starts_with(bytes));
            if !same {
                talk.reply.failure.get_or_insert(Failure::Corrupted);
            }
        }
        talk.body_len += bytes.len() as u64;
    }

    fn whole<'a>(&self, talk: &mut HttpTalk, rest: &'a [u8]) -> Step<'a> {
        self.check_length(talk);
        talk.stage = Stage::Idle;
        Step::Whole(rest)
    }

    fn check_length(&self, talk: &mut HttpTalk) {
        if let Some(expected) = &self.expected
            && talk.body_len != expected.len() as u64
        {
            talk.reply.failure.get_or_insert(Failure::Corrupted);
        }
    }
}

/// The next `left` bytes at most, and those behind them.
fn split(bytes: &[u8], left: u64) -> (&[u8], &[u8]) {
    let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    bytes.split_at(len)
}

/// Where a body ends (RFC 9112 §6.3).
enum Framing {
    Length(u64),
    Chunked,
    UntilEnd,
}

struct Head {
    len: usize,
    status: u16,
    closing: bool,
    body: Framing,
}

/// The head at the front of `bytes`; none if it is not there whole.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Failure> {
    let mut fields = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::Malformed),
    };
    let (Some(version), Some(status)) = (response.version, response.code) else {
        return Err(Failure::Malformed);
    };
    let mut head = Head {
        len,
        status,
        // RFC 9112 §9.3: HTTP/1.0 closes unless it says otherwise.
        closing: version == 0,
        body: Framing::UntilEnd,
    };
    for field in response.headers.iter() {
        let value = field.value.trim_ascii();
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(value).map_err(|_| Failure::Malformed)?;
            let length = text.parse().map_err(|_| Failure::Malformed)?;
            match head.body {
                // RFC 9112 §6.3: a transfer coding overrides a length.
                Framing::Chunked => {}
                Framing::Length(other) if other != length => return Err(Failure::Malformed),
                _ => head.body = Framing::Length(length),
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            head.body = if value.to_ascii_lowercase().ends_with(b"chunked") {
                Framing::Chunked
            } else {
                Framing::UntilEnd
            };
        } else if field.name.eq_ignore_ascii_case("connection") {
            let value = value.to_ascii_lowercase();
            let has = |option: &[u8]| {
                value
                    .split(|&byte| byte == b',')
                    .any(|one| one.trim_ascii() == option)
            };
            if has(b"close") {
                head.closing = true;
            } else if has(b"keep-alive") {
                head.closing = false;
            }
        }
    }
    Ok(Some(head))
}

impl Dialogue for Http {
    type Talk = HttpTalk;
    const ASKS: bool = true;

    fn begin(&mut self, talk: &mut HttpTalk) {
        let mut part = std::mem::take(&mut talk.part);
        part.clear();
        *talk = HttpTalk {
            part,
            ..HttpTalk::default()
        };
    }

    fn ask(&mut self, talk: &mut HttpTalk) {
        talk.to_send = self.request.len();
        talk.stage = Stage::Head;
        talk.body_len = 0;
    }

    fn outgoing<'a>(&'a self, talk: &'a HttpTalk) -> &'a [u8] {
        &self.request[self.request.len() - talk.to_send..]
    }

    fn sent(&mut self, talk: &mut HttpTalk, bytes: usize) {
        talk.to_send -= bytes;
    }

    fn incoming(&mut self, talk: &mut HttpTalk, mut bytes: &[u8]) -> Progress {
        while !bytes.is_empty() {
            match self.step(talk, bytes) {
                Step::On(rest) => bytes = rest,
                Step::More => return Progress::More,
                Step::Failed(failure) => return Progress::Failed(failure),
                Step::Whole([]) => {
                    let ReplyHead { failure, closing } = talk.reply;
                    return Progress::Done(Reply { failure, closing });
                }
                Step::Whole(_) => return Progress::Failed(Failure::Unexpected),
            }
        }
        Progress::More
    }

    fn ended(&mut self, talk: &mut HttpTalk) -> Progress {
        if talk.stage != Stage::UntilEnd {
            return Progress::Failed(Failure::Closed);
        }
        self.check_length(talk);
        talk.stage = Stage::Idle;
        let ReplyHead { failure, closing } = talk.reply;
        Progress::Done(Reply { failure, closing })
    }

    fn sample(&mut self) -> Vec<u8> {
        self.request.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Request {
        Request {
            method: "GET".into(),
            path: "/a?b".into(),
            host: "example.org".into(),
            headers: vec!["Accept: */*".into()],
            body: Vec::new(),
            keep_alive: true,
            expected: None,
        }
    }

    /// What a reply comes to that arrives in pieces of `piece` bytes, and the end of the connection behind
    /// it if it is waited for.
    fn reply(request: &Request, bytes: &[u8], piece: usize) -> Progress {
        let mut http = Http::new(request);
        let mut talk = HttpTalk::default();
        http.begin(&mut talk);
        http.ask(&mut talk);
        let all = talk.to_send;
        http.sent(&mut talk, all);
        let mut pieces = bytes.chunks(piece).peekable();
        while let Some(piece) = pieces.next() {
            match http.incoming(&mut talk, piece) {
                Progress::More => {}
                other if pieces.peek().is_none() => return other,
                other => panic!("{other:?} before the end"),
            }
        }
        http.ended(&mut talk)
    }

    fn done(failure: Option<Failure>, closing: bool) -> Progress {
        Progress::Done(Reply { failure, closing })
    }

    #[test]
    fn requests_are_written_as_the_rfc_has_them() {
        let text = |request: &Request| String::from_utf8(request.to_bytes()).unwrap();
        let written = text(&request());
        assert!(written.starts_with("GET /a?b HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n"));
        assert!(written.ends_with("\r\n\r\n"));
        let written = text(&Request {
            headers: vec!["host: other".into(), "User-Agent: me".into()],
            body: b"hello".to_vec(),
            keep_alive: false,
            ..request()
        });
        assert!(!written.contains("example.org") && !written.contains("loadgen"));
        assert!(written.ends_with("Content-Length: 5\r\nConnection: close\r\n\r\nhello"));
    }

    #[test]
    fn replies_end_where_the_rfc_says() {
        for (bytes, expected) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                done(None, false),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                done(None, false),
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", done(None, false)),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                done(None, false),
            ),
            (
                "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
                done(Some(Failure::Status), false),
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
                done(None, true),
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx",
                done(None, false),
            ),
            ("HTTP/1.0 200 OK\r\n\r\nwhatever comes", done(None, true)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nT: x\r\n\r\n",
                done(None, false),
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
                done(None, false),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
                Progress::Failed(Failure::Closed),
            ),
        ] {
            for piece in 1..=bytes.len() {
                assert_eq!(
                    reply(&request(), bytes.as_bytes(), piece),
                    expected,
                    "{bytes:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_reply() {
        for (bytes, failure) in [
            ("SSH-2.0-OpenSSH_9.2\r\n", Failure::Malformed),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
                Failure::Malformed,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                Failure::Malformed,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                Failure::Malformed,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy",
                Failure::Unexpected,
            ),
        ] {
            let progress = reply(&request(), bytes.as_bytes(), bytes.len());
            assert_eq!(progress, Progress::Failed(failure), "{bytes:?}");
        }
        let endless = vec![b'a'; HEAD_LEN_MAX + 10];
        let head = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &endless].concat();
        assert_eq!(
            reply(&request(), &head, head.len()),
            Progress::Failed(Failure::Malformed)
        );
    }

    #[test]
    fn a_head_has_no_body() {
        let request = Request {
            method: "HEAD".into(),
            expected: Some(b"hello".to_vec()),
            ..request()
        };
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(reply(&request, bytes, bytes.len()), done(None, false));
    }

    proptest! {
        #[test]
        fn bodies_are_compared(
            body: Vec<u8>, other: Vec<u8>, piece in 1usize..40, chunk in 1usize..30, chunked: bool,
        ) {
            let request = Request { expected: Some(body.clone()), ..request() };
            let write = |body: &[u8]| {
                if !chunked {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    return [head.as_bytes(), body].concat();
                }
                let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for chunk in body.chunks(chunk) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    bytes.extend([chunk, b"\r\n"].concat());
                }
                bytes.extend(b"0\r\n\r\n");
                bytes
            };
            prop_assert_eq!(reply(&request, &write(&body), piece), done(None, false));
            let failure = (other != body).then_some(Failure::Corrupted);
            prop_assert_eq!(reply(&request, &write(&other), piece), done(failure, false));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, chunked: bool) {
            let head = if chunked {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            } else {
                ""
            };
            let mut http = Http::new(&request());
            let mut talk = HttpTalk::default();
            http.begin(&mut talk);
            http.ask(&mut talk);
            let _ = http.incoming(&mut talk, head.as_bytes());
            let _ = http.incoming(&mut talk, &bytes);
            let _ = http.ended(&mut talk);
        }
    }
}
