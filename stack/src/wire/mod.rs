//! One file per header.
