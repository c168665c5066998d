//! One channel to each address: made when it is first asked for, connected when it is first used.
//!
//! A channel connects again by itself, so that it is never dropped while the client lives; the policy bounds
//! how many addresses there are. Endpoints are `host:port` without a scheme.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// How long an idle connection waits before it asks whether the other end is still there, and for the answer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Why something cannot be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointFault {
    /// No endpoint was given.
    None,
    /// More than [`TARGETS_MAX`](crate::client::routing::TARGETS_MAX) were given.
    TooMany {
        /// How many.
        count: usize,
    },
    /// This is not `host:port`.
    Malformed {
        /// What was given.
        endpoint: String,
    },
}

impl fmt::Display for EndpointFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no endpoint is given; name at least one as host:port"),
            Self::TooMany { count } => write!(f, "{count} endpoints are too many; name a few of the nodes"),
            Self::Malformed { endpoint } => {
                write!(f, "{endpoint:?} is not an endpoint; write host:port, as in localhost:10001")
            }
        }
    }
}

impl std::error::Error for EndpointFault {}

/// The channels of a client.
pub(super) struct Channels {
    connect_timeout: Duration,
    by_address: Mutex<BTreeMap<String, Channel>>,
}

impl Channels {
    /// No channel yet.
    pub(super) fn new(connect_timeout: Duration) -> Self {
        Self { connect_timeout, by_address: Mutex::default() }
    }

    /// The channel to an address. Nothing is dialled by this.
    pub(super) fn to(&self, address: &str) -> Result<Channel, EndpointFault> {
        let mut channels = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = endpoint_of(address)?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Checks `host:port`: what it is made of, not whether anybody is there.
pub(super) fn endpoint_of(address: &str) -> Result<Endpoint, EndpointFault> {
    let malformed = || EndpointFault::Malformed { endpoint: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c);
    // An IPv6 address has brackets, so that its last colon is the port's.
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    let bad_port = port.parse::<u16>().map_or(true, |port| port == 0);
    if host.is_empty() || bare_v6 || bad_port || address.contains(forbidden) {
        return Err(malformed());
    }
    Endpoint::from_shared(format!("http://{address}")).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_host_and_port() {
        for good in ["localhost:10001", "10.0.0.1:1", "[::1]:65535", "a-b.example:80"] {
            assert!(endpoint_of(good).is_ok(), "{good}");
        }
        let bad = ["", "localhost", ":1", "localhost:", "localhost:0", "localhost:70000", "::1:80"];
        for bad in bad.into_iter().chain(["http://localhost:1", "a b:1", "u@h:1", "h:1/x", "h/x:1", "h:+"]) {
            assert!(endpoint_of(bad).is_err(), "{bad}");
        }
    }
}
