//! Longest-prefix routes.

/// Routes by longest prefix.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {}
