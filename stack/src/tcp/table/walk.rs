//! A walk over all records, a few at a time.

use super::super::connection::Connection;
use super::super::info::TcpInfo;
use super::super::tuple::Tuple;
use super::Table;
use crate::ip::address::Ip;

impl<I: Ip> Table<I> {
    /// Looks at slots of one kind (0 to 3: CUBIC, NewReno, half-open, time-wait) from `slot` on, `budget` of
    /// them at most, and tells `each` what is there. Returns the next slot to look at, none behind the
    /// last one that was ever used.
    pub(crate) fn walk(
        &self,
        kind: u8,
        slot: u32,
        budget: u32,
        mut each: impl FnMut(TcpInfo),
    ) -> Option<u32> {
        let bare = |tuple: &Tuple<I::Addr>, state| TcpInfo {
            state,
            local: tuple.local(),
            remote: tuple.remote(),
            recv_q: 0,
            send_q: 0,
            detail: None,
        };
        let extent = match kind {
            0 => self.cubic.extent(),
            1 => self.new_reno.extent(),
            2 => self.half_open.extent(),
            _ => self.time_wait.extent(),
        };
        let end = slot.saturating_add(budget).min(extent);
        for slot in slot..end {
            let info = match kind {
                0 => self.cubic.at(slot).map(Connection::info),
                1 => self.new_reno.at(slot).map(Connection::info),
                2 => self
                    .half_open
                    .at(slot)
                    .map(|record| bare(&record.tuple, "SYN-RECV")),
                _ => self
                    .time_wait
                    .at(slot)
                    .map(|record| bare(&record.tuple, "TIME-WAIT")),
            };
            if let Some(info) = info {
                each(info);
            }
        }
        (end < extent).then_some(end)
    }
}
