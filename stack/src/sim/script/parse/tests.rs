use super::*;
use crate::sim::packet::flag;

const SCRIPT: &str = "
# RFC 9293 MUST-99: nothing.
ip both
mtu 1400
isn 7
tolerance 1ms
option nodelay on
option congestion cubic
option keepalive_idle 10s
config time_wait 60s
config syn_cookies on
let N 10 2*$MSS
peer b port 50000 address6 2001:db8::7 address4 192.0.2.7

0.000 listen backlog 4
+0    < S 0:0(0) win 65535 <mss $MSS>   # a comment
+0.1..0.2 > [b] S. 0:0(0) ack 1
*     > R 1:1(0)
repeat 2
+0.5  write $N takes 3
end
1.0   read error ECONNRESET
1.0   < icmp too_big mtu 1300 seq 1+$N
1.0   expect drop tcp_checksum 1..
1.0   expect none
1.0   expect state FIN-WAIT-1
1.0   connect [c] to 2001:db8::9 from 9 error EHOSTUNREACH
";

fn v6(text: &str) -> Script {
    let text = text.replace("ip both", "ip v6");
    parse(&text).unwrap().remove(0)
}

#[test]
fn a_script_is_read() {
    let script = v6(SCRIPT);
    assert_eq!(
        (script.version, script.mtu, script.isn),
        (Version::V6, 1400, 7)
    );
    assert_eq!(script.tolerance, Duration::from_millis(1));
    assert_eq!(
        script.options,
        [
            SocketOption::NoDelay(true),
            SocketOption::Congestion(Congestion::Cubic),
            SocketOption::KeepAliveIdle(Duration::from_secs(10)),
        ]
    );
    let config = [
        ("time_wait".into(), 60_000_000_000),
        ("syn_cookies".into(), 1),
    ];
    assert_eq!(script.config, config);
    assert_eq!(script.peers[0].0, "b");
    assert_eq!(script.peers[0].1.port, Some(50_000));
    assert_eq!(script.peers[0].1.address, "2001:db8::7".parse().ok());
    let numbers: Vec<usize> = script.lines.iter().map(|line| line.number).collect();
    assert_eq!(numbers, [15, 16, 17, 18, 20, 20, 22, 23, 24, 25, 26, 27]);
    let Action::Inject(syn) = &script.lines[1].action else {
        panic!("{:?}", script.lines[1]);
    };
    assert_eq!(syn.flags, Some(flag::SYN));
    assert_eq!(script.lines[2].label, "b");
    let ms = Duration::from_millis;
    assert_eq!(script.lines[2].when, When::After(ms(100), ms(200)));
    assert_eq!(script.lines[3].when, When::Any);
    let written = Action::Write {
        bytes: 2680,
        takes: Some(3),
        outcome: Outcome::Done,
    };
    assert_eq!(script.lines[4].action, written);
    let Action::InjectIcmp(icmp) = &script.lines[7].action else {
        panic!("{:?}", script.lines[7]);
    };
    assert_eq!((icmp.kind, icmp.rest), ((2, 0), 1300));
    assert_eq!(icmp.seq, Pattern::exactly(2681));
}

#[test]
fn both_versions_have_numbers_of_their_own() {
    let scripts = parse("mtu 1300\n0 write $MSS").unwrap();
    let bytes = scripts.iter().map(|script| match script.lines[0].action {
        Action::Write { bytes, .. } => (script.version, bytes),
        _ => panic!("{script:?}"),
    });
    let bytes: Vec<_> = bytes.collect();
    assert_eq!(bytes, [(Version::V4, 1260), (Version::V6, 1240)]);
}

#[test]
fn what_cannot_be_read_names_its_line() {
    for (text, line, expected) in [
        ("ip v5", 1, "expected v4, v6 or both"),
        ("\nfoo", 2, "`foo`: expected a time"),
        ("0 wait\nmtu 5", 2, "expected a time, repeat or end"),
        ("0 jump", 1, "`jump`: expected <, >,"),
        ("0", 1, "expected what happens"),
        ("0 <", 1, "expected flags"),
        ("0 < *", 1, "`*` cannot be sent"),
        ("* write 5", 1, "only `>` may wait"),
        ("0..1 close", 1, "only `>` may wait"),
        ("0.2..0.1 > *", 1, "ends before it begins"),
        ("1,5 wait", 1, "expected seconds"),
        ("0 close now", 1, "`now`: expected nothing more"),
        ("0 expect state ESTABLISHD", 1, "expected CLOSED, LISTEN"),
        ("0 expect luck", 1, "`luck`: expected state"),
        ("0 < icmp boo", 1, "`boo`: expected net_unreachable"),
        ("ip v6\n0 < icmp source_quench", 2, "is not for IPv6"),
        ("0 read", 1, "expected a number of bytes, eof or none"),
        ("0 set nodelay maybe", 1, "expected on or off"),
        ("option color red", 1, "there is no option `color`"),
        ("option ttl 256", 1, "256 does not fit here"),
        ("0 close [b", 1, "expected [label]"),
        ("repeat 2\n0 wait", 1, "`repeat` without `end`"),
        ("0 wait\nend", 2, "`end` without `repeat`"),
        ("repeat 9999999\n0 wait\nend", 3, "more than 100000 lines"),
        ("peer b colour 5", 1, "expected port, local"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.why.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_is_included_counts_as_one_line() {
    let included = |name: &str| (name == "two").then(|| "ip v6\n0 wait\n0 wait".into());
    let scripts = parse_with("# comment\ninclude two\n0 wait", included).unwrap();
    let numbers: Vec<usize> = scripts[0].lines.iter().map(|line| line.number).collect();
    assert_eq!((scripts.len(), numbers), (1, [2, 2, 3].into()));
    let error = parse_with("include three", included).unwrap_err();
    assert_eq!(error.to_string(), "line 1: there is no `three` to include");
}

#[test]
fn times() {
    assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
    assert_eq!(seconds("0.000000001"), Ok(Duration::from_nanos(1)));
    assert_eq!(duration("40ms"), Ok(Duration::from_millis(40)));
    assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
    for bad in ["", ".", "1.", "-1", "1e3", "0.0000000001"] {
        assert!(seconds(bad).is_err(), "{bad}");
    }
}
