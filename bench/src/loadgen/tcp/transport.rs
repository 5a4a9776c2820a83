//! What carries connections: kernel sockets ([`kernel`](super::kernel)) or our own stack over AF_XDP
//! ([`xdp`](super::xdp)). Connections are known by their slot, a number the load gives them.

use super::failure::Failure;
use crate::loadgen::load::Window;

/// Many connections of one thread, none of whose calls waits but [`poll`](Self::poll).
pub trait Transport {
    /// The time, in nanoseconds on the clock of all threads.
    fn now(&self) -> u64;

    /// When the measured time begins and ends.
    fn begin(&mut self, window: &Window) {
        let _ = window;
    }

    /// Begins to open a connection in `slot`, which has none. There will be news of it.
    ///
    /// # Errors
    /// It cannot be had.
    fn open(&mut self, slot: u32, hearing: Hearing) -> Result<(), Failure>;

    /// Whether the handshake is over.
    ///
    /// # Errors
    /// It failed; [`close`](Self::close) is still to be called.
    fn is_open(&mut self, slot: u32) -> Result<bool, Failure>;

    /// Sends bytes, as many as there is room for. If there is not room for all, there will be news when
    /// there is again.
    ///
    /// # Errors
    /// The connection is no more.
    fn send(&mut self, slot: u32, bytes: &[u8]) -> Result<usize, Failure>;

    /// Gives `sink` what came.
    ///
    /// # Errors
    /// The connection is no more.
    fn receive(&mut self, slot: u32, sink: &mut impl FnMut(&[u8])) -> Result<Received, Failure>;

    /// Closes our direction: FIN.
    fn finish(&mut self, slot: u32);

    /// Lets go of a connection. The slot is free at once. Harmless if there is none.
    fn close(&mut self, slot: u32, ending: Ending);

    /// Hears nothing more of what the peer of `slot` sends, so that none of it is acknowledged.
    fn deafen(&mut self, slot: u32);

    /// Sends what waits to be sent, waits up to `wait_ns` nanoseconds for news, and adds the slots there
    /// are news of.
    ///
    /// # Errors
    /// A sentence, when nothing can go on.
    fn poll(&mut self, wait_ns: u64, news: &mut Vec<u32>) -> Result<(), String>;
}

/// Whether a connection hears its peer from the first segment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// As connections do.
    Normal,
    /// Its SYN is all there is of it.
    Deaf,
}

/// What [`Transport::receive`] leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing; there will be news when there is more.
    All,
    /// More, perhaps: it has to be called again without news.
    Some,
    /// Nothing, and nothing will come: the peer has closed its direction.
    End,
}

/// How a connection is let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN, unless it was sent before.
    Fin,
    /// RST: whatever is under way is thrown away at both ends.
    Reset,
}
