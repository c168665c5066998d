//! Asks the cluster for its routing table, over a connection of its own that is kept while it works; and what
//! it is, once.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use distribkv::wire::v1::{ShardsResponse, StatusResponse};
use h2::client::SendRequest;
use http::{Request, header};
use prost::Message as _;
use tokio::net::TcpStream;

use crate::args::Target;
use crate::etcd;
use crate::protobuf::PREFIX_BYTES;
use crate::routing::{Routing, RoutingError};
use crate::status::{self, ErrorKind, Failure};

/// How long one attempt may take, dialling included.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(2);
/// Rounds over all addresses at the start, before the cluster counts as unreachable.
const ROUNDS_MAX: usize = 10;
/// The pause between such rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Tells the routing table.
const SHARDS: &str = "/distribkv.v1.Cluster/Shards";
/// Tells what a node of distribKV is.
const STATUS: &str = "/distribkv.v1.Cluster/Status";
/// Tells what a node of etcd is.
const ETCD_STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Who asks.
pub struct Control {
    /// Whom to ask, in turn: the endpoints given, then what the cluster told.
    addresses: Vec<String>,
    endpoints: usize,
    turn: usize,
    session: Option<Session>,
}

/// A connection that is kept.
pub struct Session {
    sender: SendRequest<Bytes>,
    address: String,
}

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Which program.
    pub name: &'static str,
    /// Which version of it.
    pub version: String,
    /// The set of defaults that it was started with, where it tells.
    pub profile: Option<String>,
}

/// Why there is no routing table.
#[derive(Debug)]
pub enum ControlError {
    /// The address does not answer in time, or not at all.
    Unreachable(std::io::Error),
    /// The connection broke, or it is not HTTP/2 that is spoken there.
    Http2(h2::Error),
    /// The address is none.
    Address(http::Error),
    /// The server refused the call.
    Refused(Failure),
    /// The answer is no routing table.
    Table(RoutingError),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
            Self::Address(error) => error.fmt(f),
            Self::Refused(failure) => write!(f, "{}", failure.kind),
            Self::Table(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(error) => Some(error),
            Self::Http2(error) => Some(error),
            Self::Address(error) => Some(error),
            Self::Table(error) => Some(error),
            Self::Refused(_) => None,
        }
    }
}

impl Control {
    /// Asks these endpoints, and the nodes that they tell of.
    pub fn new(endpoints: &[String]) -> Self {
        assert!(!endpoints.is_empty(), "the command line asks for an endpoint");
        Self { addresses: endpoints.to_vec(), endpoints: endpoints.len(), turn: 0, session: None }
    }

    /// The first routing table: every address is tried several times.
    pub async fn first_routing(&mut self) -> Result<Routing, ControlError> {
        let mut attempt = 1;
        loop {
            match self.routing().await {
                Ok(routing) => return Ok(routing),
                Err(error) if attempt == ROUNDS_MAX * self.endpoints => return Err(error),
                Err(_) => {}
            }
            if attempt % self.endpoints == 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            attempt += 1;
        }
    }

    /// Whether any endpoint can be connected to: each is tried several times.
    pub async fn reach(&mut self) -> Result<(), ControlError> {
        let mut attempt = 1;
        loop {
            let address = &self.addresses[attempt % self.endpoints];
            match limited(async { TcpStream::connect(address).await.map_err(ControlError::Unreachable) })
                .await
            {
                Ok(_) => return Ok(()),
                Err(error) if attempt == ROUNDS_MAX * self.endpoints => return Err(error),
                Err(_) => {}
            }
            if attempt % self.endpoints == 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            attempt += 1;
        }
    }

    /// What the first endpoint is that tells; `None` where none does.
    pub async fn about(&self, target: Target) -> Option<About> {
        for address in &self.addresses[..self.endpoints] {
            let asked = limited(async {
                let mut session = dial(address.clone()).await?;
                match target {
                    Target::Kv | Target::Pipeline | Target::Health => {
                        Ok(about_distribkv(&ask(&mut session, STATUS).await?))
                    }
                    Target::Etcd => Ok(about_etcd(&ask(&mut session, ETCD_STATUS).await?)),
                }
            });
            if let Ok(Some(about)) = asked.await {
                return Some(about);
            }
        }
        None
    }

    /// The routing table as one node has it: the one asked last, or the next where that one fails.
    pub async fn routing(&mut self) -> Result<Routing, ControlError> {
        let session = self.session.take();
        let address = self.addresses[self.turn % self.addresses.len()].clone();
        let asked = limited(async {
            let mut session = match session {
                Some(session) => session,
                None => dial(address).await?,
            };
            let answer = ask(&mut session, SHARDS).await?;
            let response = ShardsResponse::decode(&answer[..]);
            Ok((session, response.map_err(|_| refused(ErrorKind::Malformed))?))
        })
        .await;
        let told = asked.and_then(|(session, response)| {
            let routing = Routing::of_response(&response).map_err(ControlError::Table)?;
            Ok((session, routing))
        });
        match told {
            Ok((session, routing)) => {
                self.session = Some(session);
                self.addresses.truncate(self.endpoints);
                let told = routing.nodes.iter().map(|node| node.address.clone());
                self.addresses.extend(told.filter(|address| !address.is_empty()));
                Ok(routing)
            }
            Err(error) => {
                self.turn += 1;
                Err(error)
            }
        }
    }
}

/// Bounds the time of an attempt.
pub async fn limited<T>(attempt: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
    let too_late = || Err(ControlError::Unreachable(std::io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(ATTEMPT_TIME_MAX, attempt).await.unwrap_or_else(|_| too_late())
}

/// Connects and says HTTP/2's first words. A library serves well enough here, where one call a second is
/// made.
pub async fn dial(address: String) -> Result<Session, ControlError> {
    let stream = TcpStream::connect(&address).await.map_err(ControlError::Unreachable)?;
    let (sender, driver) = h2::client::handshake(stream).await.map_err(ControlError::Http2)?;
    // Ends with the last handle to the session; what breaks it is told to the call that is under way.
    tokio::spawn(async move { drop(driver.await) });
    Ok(Session { sender, address })
}

/// What a node of distribKV tells of itself.
fn about_distribkv(answer: &[u8]) -> Option<About> {
    let status = StatusResponse::decode(answer).ok()?;
    let profile = Some(status.profile).filter(|profile| !profile.is_empty());
    Some(About { name: "distribKV", version: status.version, profile })
}

/// What a node of etcd tells of itself.
fn about_etcd(answer: &[u8]) -> Option<About> {
    Some(About { name: "etcd", version: etcd::version_of(answer)?, profile: None })
}

fn refused(kind: ErrorKind) -> ControlError {
    ControlError::Refused(Failure::of(kind))
}

/// Asks an empty question on a connection that is up. Gives the answer without its prefix.
async fn ask(session: &mut Session, path: &str) -> Result<Vec<u8>, ControlError> {
    call(session, path, Bytes::from_static(&[0; PREFIX_BYTES])).await
}

/// Makes a call on a connection that is up, of a message with its prefix. Gives the answer without its
/// prefix.
pub async fn call(session: &mut Session, path: &str, message: Bytes) -> Result<Vec<u8>, ControlError> {
    let mut sender = session.sender.clone().ready().await.map_err(ControlError::Http2)?;
    let request = Request::post(format!("http://{}{path}", session.address))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(())
        .map_err(ControlError::Address)?;
    let (response, mut stream) = sender.send_request(request, false).map_err(ControlError::Http2)?;
    stream.send_data(message, true).map_err(ControlError::Http2)?;
    let response = response.await.map_err(ControlError::Http2)?;
    answer(response).await
}

/// Takes the whole answer.
async fn answer(response: http::Response<h2::RecvStream>) -> Result<Vec<u8>, ControlError> {
    if !response.status().is_success() {
        return Err(refused(ErrorKind::Http(response.status().as_u16())));
    }
    let (head, mut body) = response.into_parts();
    if body.is_end_stream() {
        status::of_trailers(&head.headers).map_err(ControlError::Refused)?;
        return Err(refused(ErrorKind::Malformed));
    }
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(ControlError::Http2)?;
        if bytes.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(refused(ErrorKind::Malformed));
        }
        bytes.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).map_err(ControlError::Http2)?;
    }
    let trailers = body.trailers().await.map_err(ControlError::Http2)?.unwrap_or_default();
    status::of_trailers(&trailers).map_err(ControlError::Refused)?;
    if bytes.len() < PREFIX_BYTES {
        return Err(refused(ErrorKind::Malformed));
    }
    Ok(bytes.split_off(PREFIX_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_tell() {
        let status = StatusResponse { version: "1.2".into(), profile: "dev".into(), ..Default::default() };
        let about = about_distribkv(&status.encode_to_vec()).expect("a status");
        assert_eq!((about.version.as_str(), about.profile.as_deref()), ("1.2", Some("dev")));
        let older = StatusResponse { profile: String::new(), ..status };
        assert_eq!(about_distribkv(&older.encode_to_vec()).and_then(|about| about.profile), None);
        assert_eq!(about_etcd(b"\x12\x053.5.1").map(|about| about.version).as_deref(), Some("3.5.1"));
        assert_eq!((about_distribkv(b"\xff"), about_etcd(b"")), (None, None));
    }
}
