//! The TOML schema of the service.
#![forbid(unsafe_code)]
