//! What there is to tell of a connection.

use super::super::congestion::CongestionControl;
use super::super::info::{TcpDetail, TcpInfo};
use super::Connection;
use crate::ip::address::Ip;

impl<I: Ip, C: CongestionControl> Connection<I, C> {
    /// What there is to tell.
    #[must_use]
    pub fn info(&self) -> TcpInfo {
        let (sender, options) = (&self.sender, &self.options);
        let rtt = sender.rtt();
        let congestion = sender.congestion();
        let detail = TcpDetail {
            congestion: C::NAME,
            cwnd_bytes: congestion.cwnd(),
            ssthresh_bytes: congestion.ssthresh(),
            rtt_us: rtt.srtt_us(),
            rttvar_us: rtt.rttvar_us(),
            minrtt_us: rtt.min_us(),
            rto_us: rtt.rto_us(),
            backoff: sender.timeouts(),
            unacked_bytes: sender.unacked(),
            notsent_bytes: sender.unsent(),
            lost_bytes: sender.lost(),
            sacked_bytes: sender.sacked(),
            mss: options.mss,
            pmtu: options.path_mtu,
            snd_wnd: self.send_window.window(sender.una()),
            rcv_wnd: self.receive_window.window(self.receiver.next()),
            wscale: options
                .scaling
                .then(|| (self.send_window.scale(), self.receive_window.scale())),
            ts: options.timestamps,
            sack: options.sack,
            ecn: options.ecn,
        };
        TcpInfo {
            state: self.state.name(),
            local: self.tuple.local(),
            remote: self.tuple.remote(),
            recv_q: self.receiver.readable(),
            send_q: sender.buffered(),
            detail: self.state.is_synchronized().then_some(detail),
        }
    }
}
