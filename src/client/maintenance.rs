//! What is asked of single nodes for upkeep: tables on request, and a backup. Each is asked once, without the
//! policy.

use std::time::Duration;

use bytes::Bytes;

use crate::client::clerk::Clerk;
use crate::client::error::{Cause, Error};
use crate::client::nodes::{in_order, setback, unanswered, undialled};
use crate::client::rpc;
use crate::ids::ShardId;
use crate::wire::v1;
use crate::wire::v1::maintenance_client::MaintenanceClient;

/// What came of the tables that one node was asked for.
#[derive(Clone, Debug)]
pub struct NodeSnapshot {
    /// The address that was asked.
    pub address: String,
    /// They are durable, or why they are not known to be.
    pub outcome: Result<(), Error>,
}

/// A backup on its way from one node.
pub struct BackupStream {
    address: String,
    stream: tonic::Streaming<v1::BackupResponse>,
    patience: Duration,
}

impl Clerk {
    /// The endpoints that this client was given.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Has every endpoint make tables of these shards, none: of all, and waits until they are durable there.
    pub async fn snapshot(&self, shards: &[ShardId]) -> Vec<NodeSnapshot> {
        let timeout = self.options.timeout;
        let request = v1::SnapshotRequest { shards: shards.iter().map(|shard| shard.0).collect() };
        let asked = self.endpoints.iter().map(|address| {
            let (channel, request, address) = (self.channels.to(address), request.clone(), address.clone());
            async move {
                let outcome = match channel {
                    Ok(channel) => {
                        let mut maintenance = MaintenanceClient::new(channel);
                        let asked = maintenance.snapshot(rpc::timed(request, timeout));
                        in_time(&address, timeout, asked).await.map(|_| ())
                    }
                    Err(fault) => Err(undialled(&address, &fault)),
                };
                NodeSnapshot { address, outcome }
            }
        });
        in_order(asked).await
    }

    /// Begins a backup of the cluster at one of its nodes. The client's time for a call is how long that node
    /// may be silent.
    ///
    /// # Errors
    /// The node could not be reached or refused. Another may do it.
    pub async fn backup(&self, address: &str) -> Result<BackupStream, Error> {
        let channel = self.channels.to(address).map_err(|fault| undialled(address, &fault))?;
        let patience = self.options.timeout;
        let mut maintenance = MaintenanceClient::new(channel);
        let asked = maintenance.backup(v1::BackupRequest {});
        let stream = in_time(address, patience, asked).await?.into_inner();
        Ok(BackupStream { address: address.to_owned(), stream, patience })
    }
}

impl BackupStream {
    /// The next bytes of the file, none of them where the node says that it is still at work; `None` after
    /// the last. Whether they are a whole backup is for the caller to check.
    ///
    /// # Errors
    /// The node gave up or fell silent. What was had of it is no backup.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let message = in_time(&self.address, self.patience, self.stream.message()).await?;
        Ok(message.map(|response| response.chunk))
    }
}

/// Waits for a node, and says why it did not answer well.
async fn in_time<T>(
    address: &str,
    patience: Duration,
    asked: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer.map_err(|status| unanswered(address, &status)),
        Err(_) => Err(setback(address, Cause::Unanswered, "no answer in time")),
    }
}
