//! A peer goes silent, in whatever a connection may be doing: it is given up once, with one reset, and
//! from then on nothing is sent and no timer runs, however long the application keeps it.

use super::host::Host;
use stack::sim::script::{parse_with, run};

/// What both sides did before the silence.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The peer's window.
    window: u32,
    /// Bytes written.
    written: u32,
    /// We shut our direction down.
    shutdown: bool,
    /// The peer has.
    peer_fin: bool,
}

impl Case {
    fn script(self) -> String {
        let Self {
            window,
            written,
            shutdown,
            peer_fin,
        } = self;
        let mut lines = format!(
            "option user_timeout 30s\n\
             option keepalive on\n\
             option keepalive_idle 40s\n\
             option keepalive_interval 5s\n\
             option keepalive_count 3\n\
             0 listen\n\
             0 < S 0:0(0) win {window} <mss 1000>\n\
             +0 > S. 0:0(0) ack 1\n\
             +0.01 < . 1:1(0) ack 1 win {window}\n\
             +0 accept\n"
        );
        if peer_fin {
            lines += &format!("+0 < F. 1:1(0) ack 1 win {window}\n");
        }
        if written > 0 {
            lines += &format!("+0 write {written}\n");
        }
        if shutdown {
            lines += "+0 shutdown\n";
        }
        lines += "600 skip\n\
                  600 expect state CLOSED\n\
                  600 expect event tcp_reset_tx 1\n\
                  +36000 expect none\n\
                  +0 read error ETIMEDOUT\n\
                  +36000 expect none\n\
                  +0 close\n\
                  +36000 expect none\n\
                  +0 expect event tcp_reset_tx 1\n";
        lines
    }
}

#[test]
fn a_connection_is_given_up_once_and_then_says_nothing() {
    for bits in 0..36 {
        let case = Case {
            window: [0, 700, 65_535][bits % 3],
            written: [0, 500, 5000][bits / 3 % 3],
            shutdown: bits / 9 % 2 == 1,
            peer_fin: bits / 18 % 2 == 1,
        };
        let scripts = parse_with(&case.script(), |_| None).unwrap();
        for script in scripts {
            if let Err(failure) = run("given-up", &script, Host::new) {
                panic!("{case:?}, {}: {failure}", script.version);
            }
        }
    }
}
