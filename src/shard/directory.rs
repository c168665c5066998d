//! What one core knows of who leads each shard, for routing and for health.
//!
//! Every core of a node has its own copy. The core that holds a shard's replica tells the others what
//! changes.

use crate::env::signal::{AnswerReceiver, AnswerSender, answer};
use crate::ids::{NodeId, ShardId, Term};

/// Who leads a shard, as one replica sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The leader; `None` where none is known.
    pub leader: Option<NodeId>,
    /// The term that this was learnt in.
    pub term: Term,
    /// Whether that leader was heard within an election timeout (a leader: whether a quorum answers it).
    pub is_serving: bool,
}

/// A change of what is known of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// The shard.
    pub shard: ShardId,
    /// What is known of it.
    pub known: Known,
}

/// What is known of every shard.
pub struct Directory {
    shards: Vec<Known>,
    version: u64,
    watchers: Vec<AnswerSender<u64>>,
}

impl Directory {
    /// Nothing is known of any of `shards` shards.
    #[must_use]
    pub fn new(shards: u32) -> Self {
        Self { shards: vec![Known::default(); shards as usize], version: 1, watchers: Vec::new() }
    }

    /// Takes news in; whether they changed anything.
    pub fn learn(&mut self, news: News) -> bool {
        let Some(known) = self.shards.get_mut(news.shard.0 as usize) else { return false };
        if *known == news.known {
            return false;
        }
        *known = news.known;
        self.touch();
        true
    }

    /// What is known of a shard.
    #[must_use]
    pub fn known(&self, shard: ShardId) -> Known {
        self.shards.get(shard.0 as usize).copied().unwrap_or_default()
    }

    /// Every shard, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, Known)> + '_ {
        (0u32..).map(ShardId).zip(self.shards.iter().copied())
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Says that something watchers want to know has changed.
    pub fn touch(&mut self) {
        self.version += 1;
        for watcher in std::mem::take(&mut self.watchers) {
            watcher.send(self.version);
        }
    }

    /// The next version after `seen`: at once where there is one already. As many may wait as there are
    /// streams.
    pub fn changed(&mut self, seen: u64) -> AnswerReceiver<u64> {
        let (sender, receiver) = answer();
        if self.version > seen {
            sender.send(self.version);
        } else {
            self.watchers.retain(AnswerSender::is_awaited);
            self.watchers.push(sender);
        }
        receiver
    }
}
