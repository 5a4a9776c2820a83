//! What all sockets share: where they are bound, and how a packet finds its socket.
//!
//! * [`bind`]: what a socket asks for, and who is in the way
//! * [`demux`]: (address, port) to socket, one lookup

pub mod bind;
pub mod demux;
