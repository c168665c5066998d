//! What is asked of one node and no other: its status and its health. Each is asked once, without the policy.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use crate::client::channels::EndpointFault;
use crate::client::clerk::Clerk;
use crate::client::error::{Cause, Error, Reason, Setback};
use crate::client::message::Refusal;
use crate::client::rpc;
use crate::client::status::Verdict;
use crate::ids::NodeId;
use crate::wire::health::HealthCheckRequest;
use crate::wire::health::health_check_response::ServingStatus;
use crate::wire::health::health_client::HealthClient;
use crate::wire::v1;
use crate::wire::v1::cluster_client::ClusterClient;

/// How long a watch waits before it asks a node again that did not answer.
const WATCH_PAUSE: Duration = Duration::from_millis(500);
/// The most changes of health that wait for whoever watches.
const WATCH_CHANGES_MAX: usize = 64;

/// What one node says of itself, or why it does not.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// The address that was asked.
    pub address: String,
    /// The node, where it answered or the routing table names it.
    pub node: Option<NodeId>,
    /// Its answer.
    pub status: Result<v1::StatusResponse, Error>,
}

/// What one node says of its health, or why it does not.
#[derive(Clone, Debug)]
pub struct NodeHealth {
    /// The address that was asked.
    pub address: String,
    /// Its answer.
    pub health: Result<ServingStatus, Error>,
}

/// The changes of health at every endpoint. Dropping it ends the watch.
pub struct Watch {
    changes: mpsc::Receiver<NodeHealth>,
    _tasks: JoinSet<()>,
}

impl Watch {
    /// The next change at any node; the first of each is how it is at the beginning. Waits as long as it
    /// takes.
    pub async fn next(&mut self) -> Option<NodeHealth> {
        self.changes.recv().await
    }
}

/// Calls on single nodes.
impl Clerk {
    /// Asks every node for its status once: the endpoints, and whatever further nodes the first that answers
    /// names. In the order of the endpoints, then of the node ids; a node under two addresses counts once.
    pub async fn status(&self) -> Vec<NodeStatus> {
        let asked = self.endpoints.iter().map(|endpoint| (endpoint.clone(), None)).collect();
        let mut nodes = self.status_of(asked).await;
        let mut seen = BTreeSet::new();
        nodes.retain(|node| node.node.is_none_or(|id| seen.insert(id)));
        let Some(table) = self.table_of_first(&nodes).await else { return nodes };
        let mut further = Vec::new();
        for info in table.nodes {
            let id = NodeId(info.node_id);
            match nodes.iter_mut().find(|known| known.address == info.address) {
                Some(known) => known.node = known.node.or(Some(id)),
                None if seen.insert(id) => further.push((info.address, Some(id))),
                None => {}
            }
        }
        further.sort_by_key(|(_, id)| *id);
        nodes.extend(self.status_of(further).await);
        nodes
    }

    /// Asks every endpoint once for the health of a service (`""`: of the node as a whole).
    pub async fn health(&self, service: &str) -> Vec<NodeHealth> {
        let timeout = self.direct_timeout();
        let asked = self.endpoints.iter().map(|address| {
            let (channel, service) = (self.channels.to(address), service.to_owned());
            let address = address.clone();
            async move {
                let health = check_health(&address, channel, service, timeout).await;
                NodeHealth { address, health }
            }
        });
        in_order(asked).await
    }

    /// Follows the health of a service at every endpoint.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn health_watch(&self, service: &str) -> Watch {
        let (changes, queue) = mpsc::channel(WATCH_CHANGES_MAX);
        let mut tasks = JoinSet::new();
        for address in self.endpoints.iter() {
            let watcher =
                Watcher { address: address.clone(), service: service.to_owned(), changes: changes.clone() };
            tasks.spawn(watcher.run(self.channels.to(address)));
        }
        Watch { changes: queue, _tasks: tasks }
    }

    /// How long one node is waited for.
    fn direct_timeout(&self) -> Duration {
        self.options.timeout.min(self.options.policy.attempt_timeout)
    }

    /// Asks these addresses, whose nodes may be known from the routing table.
    async fn status_of(&self, asked: Vec<(String, Option<NodeId>)>) -> Vec<NodeStatus> {
        let timeout = self.direct_timeout();
        let asked = asked.into_iter().map(|(address, node)| {
            let channel = self.channels.to(&address);
            async move {
                let status = ask_status(&address, channel, timeout).await;
                let node = status.as_ref().map_or(node, |status| Some(NodeId(status.node_id)));
                NodeStatus { address, node, status }
            }
        });
        in_order(asked).await
    }

    /// The routing table of the first node that answered, for the addresses in it.
    async fn table_of_first(&self, nodes: &[NodeStatus]) -> Option<v1::ShardsResponse> {
        let first = nodes.iter().find(|node| node.status.is_ok())?;
        let channel = self.channels.to(&first.address).ok()?;
        let request = rpc::timed(v1::ShardsRequest {}, self.direct_timeout());
        ClusterClient::new(channel).shards(request).await.ok().map(tonic::Response::into_inner)
    }
}

/// Follows one node for a [`Watch`].
struct Watcher {
    address: String,
    service: String,
    changes: mpsc::Sender<NodeHealth>,
}

/// Nobody watches any more.
struct Unwatched;

impl Watcher {
    /// Follows the node, and follows it again after a pause whenever that ends.
    async fn run(self, channel: Result<Channel, EndpointFault>) {
        let mut last = None;
        loop {
            let status = match &channel {
                Ok(channel) => self.follow(channel.clone(), &mut last).await,
                Err(fault) => Ok(undialled(&self.address, fault)),
            };
            let Ok(error) = status else { return };
            if self.tell(&mut last, Err(error)).await.is_err() {
                return;
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }

    /// Tells what the node says until the stream ends, and then why it did.
    async fn follow(&self, channel: Channel, last: &mut Option<Told>) -> Result<Error, Unwatched> {
        let request = HealthCheckRequest { service: self.service.clone() };
        let mut stream = match HealthClient::new(channel).watch(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(unanswered(&self.address, &status)),
        };
        loop {
            match stream.message().await {
                Ok(Some(response)) => self.tell(last, Ok(response.status())).await?,
                Ok(None) => return Ok(setback(&self.address, Cause::Unanswered, "the watch was ended")),
                Err(status) => return Ok(unanswered(&self.address, &status)),
            }
        }
    }

    /// Tells what is new.
    async fn tell(
        &self,
        last: &mut Option<Told>,
        health: Result<ServingStatus, Error>,
    ) -> Result<(), Unwatched> {
        let told = health.as_ref().map_or(Told::Silent, |status| Told::Said(*status));
        if last.replace(told) == Some(told) {
            return Ok(());
        }
        let health = NodeHealth { address: self.address.clone(), health };
        self.changes.send(health).await.map_err(|_| Unwatched)
    }
}

/// What a watcher told last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Said(ServingStatus),
    Silent,
}

/// Runs them all at once, and returns what they brought in the order in which they were given.
pub(super) async fn in_order<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.map(tokio::spawn).collect();
    let mut all = Vec::with_capacity(tasks.len());
    for task in tasks {
        // A task ends without a result only where the runtime is being shut down.
        if let Ok(one) = task.await {
            all.push(one);
        }
    }
    all
}

/// Asks one node for its status.
async fn ask_status(
    address: &str,
    channel: Result<Channel, EndpointFault>,
    timeout: Duration,
) -> Result<v1::StatusResponse, Error> {
    let channel = channel.map_err(|fault| undialled(address, &fault))?;
    let request = rpc::timed(v1::StatusRequest {}, timeout);
    let answer = ClusterClient::new(channel).status(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| unanswered(address, &status))
}

/// Asks one node for the health of a service.
async fn check_health(
    address: &str,
    channel: Result<Channel, EndpointFault>,
    service: String,
    timeout: Duration,
) -> Result<ServingStatus, Error> {
    let channel = channel.map_err(|fault| undialled(address, &fault))?;
    let request = rpc::timed(HealthCheckRequest { service }, timeout);
    match HealthClient::new(channel).check(request).await {
        Ok(response) => Ok(response.get_ref().status()),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(ServingStatus::ServiceUnknown),
        Err(status) => Err(unanswered(address, &status)),
    }
}

/// An address that cannot be dialled.
pub(super) fn undialled(address: &str, fault: &EndpointFault) -> Error {
    setback(address, Cause::Unreached, &fault.to_string())
}

/// A read of one node that did not come about: nothing was changed, whatever the status says.
pub(super) fn unanswered(address: &str, status: &Status) -> Error {
    if rpc::never_left(status) {
        return setback(address, Cause::Unreached, status.message());
    }
    match rpc::verdict_of(status) {
        Verdict::Refused(Refusal { reason, detail, .. }) => setback(address, Cause::Refused(reason), &detail),
        Verdict::Unknown { detail, .. } | Verdict::Lost { detail } => {
            setback(address, Cause::Unanswered, &detail)
        }
    }
}

/// One node's silence or refusal as an error of the client.
pub(super) fn setback(address: &str, cause: Cause, detail: &str) -> Error {
    let last = Setback { address: address.into(), cause, detail: detail.to_owned() };
    match cause {
        Cause::Refused(Reason::Limit | Reason::Invalid) => Error::ChangeRequest { last },
        Cause::Refused(_) | Cause::Unreached | Cause::Unanswered => Error::TryAgain { last: Some(last) },
    }
}
