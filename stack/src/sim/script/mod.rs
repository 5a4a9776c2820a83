//! Conversations with a TCP written down as text: inject a segment, expect a segment, at a time.

pub mod frame;
