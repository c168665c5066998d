//! The Clerk: what a program uses to talk to the cluster.
//!
//! A handle, cheap to clone; its calls may be made from any number of tasks at once. Every call has one
//! deadline for all its sendings. Writes happen exactly once unless the options say otherwise. A call whose
//! future is dropped is not withdrawn: it goes on until its deadline, so a write may happen after its caller
//! has stopped waiting.
//!
//! `put`, `get`, `append` and `delete` take keys and values as text or bytes; each has a form (`put_with`, …)
//! that takes the contract's request with all that it can ask for. Answers are the contract's.
//!
//! It lives on a tokio runtime: the one that [`Clerk::connect`] is called in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::client::channels::{Channels, endpoint_of};
use crate::client::driver::{COMMANDS_MAX, Command, Driver};
use crate::client::error::Error;
use crate::client::message::{Kind, Spec};
use crate::client::operation::{Operation, Reply, StreamEnd};
use crate::client::policy::{Config, Policy};
use crate::client::routing::TARGETS_MAX;
use crate::ids::{NodeId, ShardId};
use crate::wire::v1;

pub use crate::client::channels::EndpointFault;
pub use crate::client::operation::Writes;

/// How much of a scan is taken in at a time, in bytes of keys and values; one page of a node may add to it.
const SCAN_PART_BYTES: usize = 4 * 1024 * 1024;

/// How a Clerk behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a call may take in all. Default 10 s.
    pub timeout: Duration,
    /// How long a connection may take. Default 1 s.
    pub connect_timeout: Duration,
    /// Whether writes are exactly-once. Default: they are.
    pub writes: Writes,
    /// The rules of sending again.
    pub policy: Config,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            writes: Writes::ExactlyOnce,
            policy: Config::default(),
        }
    }
}

/// A client of the cluster.
#[derive(Clone)]
pub struct Clerk {
    commands: mpsc::Sender<Command>,
    pub(super) channels: Arc<Channels>,
    pub(super) endpoints: Arc<[String]>,
    pub(super) options: Arc<Options>,
}

/// Calls on keys.
impl Clerk {
    /// A client of the cluster that these nodes (`host:port`) belong to, with the default options. Connects
    /// when it is first needed.
    ///
    /// # Errors
    /// Where there is no endpoint, there are too many, or one is not `host:port`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, EndpointFault> {
        Self::connect_with(endpoints, Options::default())
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`Clerk::connect`].
    ///
    /// # Panics
    /// As [`Clerk::connect`].
    pub fn connect_with(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        options: Options,
    ) -> Result<Self, EndpointFault> {
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        if endpoints.is_empty() {
            return Err(EndpointFault::None);
        }
        if endpoints.len() > TARGETS_MAX {
            return Err(EndpointFault::TooMany { count: endpoints.len() });
        }
        for endpoint in &endpoints {
            endpoint_of(endpoint)?;
        }
        let policy = Policy::new(options.policy.clone(), &endpoints);
        let channels = Arc::new(Channels::new(options.connect_timeout));
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(Driver::new(policy, Arc::clone(&channels), queue).run());
        Ok(Self { commands, channels, endpoints: endpoints.into(), options: Arc::new(options) })
    }

    /// The same client with another time for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let options = Options { timeout, ..Options::clone(&self.options) };
        Self { options: Arc::new(options), ..self.clone() }
    }

    /// The same client with another way of writing.
    #[must_use]
    pub fn with_writes(&self, writes: Writes) -> Self {
        let options = Options { writes, ..Options::clone(&self.options) };
        Self { options: Arc::new(options), ..self.clone() }
    }

    /// Reads a key; linearizable.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::CheckOutcome`].
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Result<v1::GetResponse, Error> {
        self.get_with(v1::GetRequest { key: key.into().into(), ..Default::default() }).await
    }

    /// Reads a key as the request says: it may ask for less than linearizable.
    ///
    /// # Errors
    /// As [`Clerk::get`].
    pub async fn get_with(&self, request: v1::GetRequest) -> Result<v1::GetResponse, Error> {
        match self.call(Operation::Get(request)).await? {
            Reply::Get(response) => Ok(response),
            other => mismatch(&other),
        }
    }

    /// Writes a key, whatever it holds.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put(
        &self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Result<v1::PutResponse, Error> {
        let (key, value) = (key.into().into(), value.into().into());
        self.put_with(v1::PutRequest { key, value, ..Default::default() }).await
    }

    /// Writes a key where its mod revision is this one; with 0, where there is no such key. The answer says
    /// whether it `succeeded`: then the revision in its header is the key's new mod revision. Otherwise
    /// nothing was changed, and `previous` is what the key holds.
    ///
    /// A mod revision comes from what was read of the very key: [`Clerk::get`] or an answer to a write.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Vec<u8>>,
        mod_revision: u64,
        value: impl Into<Vec<u8>>,
    ) -> Result<v1::PutResponse, Error> {
        let (key, value) = (key.into().into(), value.into().into());
        let if_mod_revision = Some(mod_revision);
        self.put_with(v1::PutRequest { key, value, if_mod_revision, ..Default::default() }).await
    }

    /// Writes a key as the request says, whose id is set by the client.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_with(&self, request: v1::PutRequest) -> Result<v1::PutResponse, Error> {
        match self.call(Operation::Put(request)).await? {
            Reply::Put(response) => Ok(response),
            other => mismatch(&other),
        }
    }

    /// Appends to the value of a key; one that is not there counts as empty.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn append(
        &self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Result<v1::AppendResponse, Error> {
        let (key, value) = (key.into().into(), value.into().into());
        self.append_with(v1::AppendRequest { key, value, ..Default::default() }).await
    }

    /// Appends to the value of a key as the request says, whose id is set by the client.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn append_with(&self, request: v1::AppendRequest) -> Result<v1::AppendResponse, Error> {
        match self.call(Operation::Append(request)).await? {
            Reply::Append(response) => Ok(response),
            other => mismatch(&other),
        }
    }

    /// Removes a key. The answer says whether it `existed`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: impl Into<Vec<u8>>) -> Result<v1::DeleteResponse, Error> {
        self.delete_with(v1::DeleteRequest { key: key.into().into(), ..Default::default() }).await
    }

    /// Removes a key as the request says, whose id is set by the client.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_with(&self, request: v1::DeleteRequest) -> Result<v1::DeleteResponse, Error> {
        match self.call(Operation::Delete(request)).await? {
            Reply::Delete(response) => Ok(response),
            other => mismatch(&other),
        }
    }

    /// Applies one branch of a transaction in one step. The request's id is set by the client.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn txn(&self, request: v1::TxnRequest) -> Result<v1::TxnResponse, Error> {
        match self.call(Operation::Txn(request)).await? {
            Reply::Txn(response) => Ok(response),
            other => mismatch(&other),
        }
    }

    /// Reads keys in order, a part at a time: see [`Scan::next`].
    #[must_use]
    pub fn scan(&self, request: v1::ScanRequest) -> Scan {
        Scan { clerk: self.clone(), request, state: ScanState::More }
    }

    /// Hands an operation to the driver, and waits for its end.
    async fn call(&self, operation: Operation) -> Result<Reply, Error> {
        let kind = operation.kind(self.options.writes);
        let spec = Spec { kind, route: operation.route(), payload: operation, timeout: self.options.timeout };
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Call(spec, reply)).await.map_err(|_| Error::Reconnect)?;
        match answer.await {
            Ok(result) => result,
            // The runtime ended the driver: nothing is known of what it had sent.
            Err(_) => Err(match kind {
                Kind::Read | Kind::ReadAnywhere => Error::TryAgain { last: None },
                Kind::Write | Kind::WriteOnce => Error::CheckOutcome { last: None },
            }),
        }
    }
}

/// Calls on the cluster.
impl Clerk {
    /// The routing table, as some node knows it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn shards(&self) -> Result<v1::ShardsResponse, Error> {
        match self.call(Operation::Shards).await? {
            Reply::Shards(response) => Ok(response),
            other => mismatch(&other),
        }
    }

    /// Hands the leadership of a shard over, to `None`: the best follower. Returns the leader that it ended
    /// with.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn transfer(&self, shard: ShardId, to: Option<NodeId>) -> Result<Option<NodeId>, Error> {
        let request = v1::TransferLeadershipRequest { shard: shard.0, to: to.unwrap_or_default().0 };
        match self.call(Operation::Transfer(request)).await? {
            Reply::Transfer(response) => Ok((response.leader != 0).then_some(NodeId(response.leader))),
            other => mismatch(&other),
        }
    }

    /// Finishes the calls under way and closes the sessions, so that the cluster need not wait for them to
    /// expire. Every further call of this client and its clones ends in [`Error::Reconnect`].
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            // Either it is closed or the driver is gone: nothing is left to wait for.
            let _ = closed.await;
        }
    }
}

/// A scan in progress. Its parts are not one snapshot; see the contract.
pub struct Scan {
    clerk: Clerk,
    request: v1::ScanRequest,
    state: ScanState,
}

/// Whether there may be more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ScanState {
    More,
    Done,
}

impl Scan {
    /// The next keys, in order; `None` after the last. A part that failed may be asked for again.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::CheckOutcome`].
    pub async fn next(&mut self) -> Result<Option<Vec<v1::KeyValue>>, Error> {
        if self.state == ScanState::Done {
            return Ok(None);
        }
        let operation = Operation::ScanPart { request: self.request.clone(), bytes_max: SCAN_PART_BYTES };
        let (mut kvs, ended) = match self.clerk.call(operation).await? {
            Reply::ScanPart { kvs, ended } => (kvs, ended),
            other => mismatch(&other),
        };
        if ended == StreamEnd::Exhausted {
            self.state = ScanState::Done;
        }
        self.count_off(&mut kvs);
        if let Some(last) = kvs.last() {
            self.request.start = [&last.key[..], &[0]].concat().into();
        }
        Ok(if kvs.is_empty() { None } else { Some(kvs) })
    }

    /// Takes what was read off the limit, where there is one.
    fn count_off(&mut self, kvs: &mut Vec<v1::KeyValue>) {
        if self.request.limit == 0 {
            return;
        }
        kvs.truncate(usize::try_from(self.request.limit).unwrap_or(usize::MAX));
        self.request.limit -= u64::try_from(kvs.len()).unwrap_or(self.request.limit);
        if self.request.limit == 0 {
            self.state = ScanState::Done;
        }
    }
}

/// The keys that begin with `prefix`, as the start and the end of a scan. An empty end: to the end of the
/// keys.
#[must_use]
pub fn range_of_prefix(prefix: &[u8]) -> (Bytes, Bytes) {
    let kept = prefix.iter().rposition(|&byte| byte != 0xff).map_or(0, |last| last + 1);
    let mut end = prefix[..kept].to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (Bytes::copy_from_slice(prefix), end.into())
}

/// The policy pairs every answer with its call, and `rpc` makes it of the call's own operation.
fn mismatch(reply: &Reply) -> ! {
    unreachable!("the answer is to another operation: {reply:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_prefix_ends_after_its_last_key() {
        let range = |prefix: &'static [u8]| range_of_prefix(prefix).1;
        assert_eq!(range(b"ab"), Bytes::from_static(b"ac"));
        assert_eq!(range(b"a\xff\xff"), Bytes::from_static(b"b"));
        assert_eq!(range(b"\xff"), Bytes::new(), "to the end");
        assert_eq!(range(b""), Bytes::new(), "everything");
    }
}
