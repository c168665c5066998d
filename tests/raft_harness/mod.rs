//! A cluster of replicas in one thread: raft's core between a disk and a network of plain data.
//!
//! Nothing happens by itself. A test says which message arrives, which write becomes durable, who crashes;
//! what the replicas then want done is carried out or queued, told in [`Cluster::events`], and held against
//! the rules of [`checks`]. A crash loses what was not written.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

pub mod chaos;
pub mod checks;
pub mod describe;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use distribkv::ids::{Index, NodeId, Term};
use distribkv::raft::{
    Config, Entry, Fetch, HardState, Installed, Message, Persist, Raft, ReadMode, Ready, Recovered, Role,
    SnapshotOffer, Standing,
};

use checks::Checks;

/// What a replica's disk holds. A table is here the entries that were applied to make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    pub hard_state: HardState,
    pub standing: Standing,
    /// All entries. Those up to `released` are no longer in the log, only in the table.
    pub entries: Vec<Entry>,
    pub released: usize,
    pub table: Vec<Entry>,
}

impl Disk {
    /// Carries a write out.
    pub fn write(&mut self, persist: &Persist) {
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        self.standing = persist.standing.unwrap_or(self.standing);
        if let Some((index, _)) = persist.restart {
            let length = place(index.next());
            assert!(length <= self.table.len(), "the log begins anew at {index}, which no table holds");
            self.entries = self.table[..length].to_vec();
            self.released = length;
        }
        overwrite(&mut self.entries, &persist.entries);
    }

    /// Whether an entry is on it, in the log or in the table.
    pub fn holds(&self, entry: &Entry) -> bool {
        let at = place(entry.index);
        let in_log = self.entries.get(at).filter(|_| at >= self.released);
        in_log == Some(entry) || self.table.get(at) == Some(entry)
    }

    /// Term and index of the last entry, in the order that votes go by.
    pub fn end(&self) -> (Term, Index) {
        let of = |entry: Option<&Entry>| entry.map_or((Term(0), Index(0)), |last| (last.term, last.index));
        of(self.entries.last()).max(of(self.table.last()))
    }

    /// The last entry's index.
    pub fn last_index(&self) -> Index {
        let length = self.entries.len().max(self.table.len());
        Index(u64::try_from(length).expect("test logs are short"))
    }

    /// What a replica that starts from here is told.
    pub fn recovered(&self) -> Recovered {
        let log = &self.entries[self.released.min(self.entries.len())..];
        let table = self.table.last().map_or((Index(0), Term(0)), |last| (last.index, last.term));
        Recovered {
            hard_state: self.hard_state,
            standing: self.standing,
            table,
            terms: runs(log),
            last_index: Index(u64::try_from(self.entries.len()).expect("test logs are short")),
        }
    }
}

/// The first index of each run of entries of one term, and the term.
pub fn runs(log: &[Entry]) -> Vec<(Index, Term)> {
    let mut terms: Vec<(Index, Term)> = Vec::new();
    for entry in log {
        if terms.last().is_none_or(|last| last.1 != entry.term) {
            terms.push((entry.index, entry.term));
        }
    }
    terms
}

/// Puts entries into a log, over whatever is there from the first one's place on.
pub fn overwrite(log: &mut Vec<Entry>, entries: &[Entry]) {
    if let Some(first) = entries.first() {
        let keep = place(first.index);
        assert!(keep <= log.len(), "entry {} would leave a gap behind {}", first.index, log.len());
        log.truncate(keep);
        log.extend_from_slice(entries);
    }
}

/// Where an entry lies in a vector of all of them.
pub fn place(index: Index) -> usize {
    usize::try_from(index.0 - 1).expect("test logs are short")
}

/// One replica and what belongs to it.
pub struct Node {
    pub id: NodeId,
    /// `None` while it is down.
    pub raft: Option<Raft>,
    pub disk: Disk,
    /// Writes handed out and not yet durable.
    pub writing: VecDeque<Persist>,
    /// The log with what is being written.
    pub log: Vec<Entry>,
    pub applied: Index,
    /// The table that it was offered and has not fetched.
    pub offer: Option<SnapshotOffer>,
    /// Reads under way: the index that the answer has to reach.
    pub reads: BTreeMap<u64, Index>,
    /// Whether writes become durable only when the test says so.
    pub is_manual: bool,
    told: (Role, Term, Option<NodeId>),
}

/// A cluster. Ids count from 1.
pub struct Cluster {
    pub config: Config,
    pub nodes: BTreeMap<NodeId, Node>,
    /// Messages under way, oldest first.
    pub wire: Vec<Message>,
    /// Ways that lose everything.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// What happened, one fact a line.
    pub events: Vec<String>,
    pub checks: Checks,
    pub jitter: u32,
}

/// A configuration with short times: T of 10 ticks, a heartbeat every 2.
pub fn config(voters: u32) -> Config {
    let mut config = Config::new(NodeId(1), (1..=voters).map(NodeId).collect());
    config.election_ticks = 10;
    config.heartbeat_ticks = 2;
    config.read_mode = ReadMode::ReadIndex;
    config
}

impl Cluster {
    /// A cluster whose nodes start empty.
    pub fn new(config: Config) -> Self {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            wire: Vec::new(),
            cut: BTreeSet::new(),
            events: Vec::new(),
            checks: Checks::new(config.quorum()),
            jitter: 0,
            config,
        };
        for id in cluster.config.voters.clone() {
            let told = (Role::Follower, Term(0), None);
            let node = Node {
                id,
                raft: None,
                disk: Disk::default(),
                writing: VecDeque::new(),
                log: Vec::new(),
                applied: Index(0),
                offer: None,
                reads: BTreeMap::new(),
                is_manual: false,
                told,
            };
            cluster.nodes.insert(id, node);
            cluster.start(id);
        }
        cluster
    }

    /// Starts a node from what its disk holds.
    pub fn start(&mut self, id: NodeId) {
        let (mut config, jitter) = (self.config.clone(), self.jitter);
        config.id = id;
        let node = self.node_mut(id);
        let recovered = node.disk.recovered();
        let raft = Raft::new(config, recovered, jitter).expect("a test's disk makes sense");
        node.told = (Role::Follower, raft.term(), None);
        node.log.clone_from(&node.disk.entries);
        if raft.last_index() == raft.log_start() {
            node.log.clone_from(&node.disk.table);
        }
        node.applied = raft.log_start();
        node.offer = None;
        node.raft = Some(raft);
        self.pump(id);
    }

    /// Stops a node; the first `written` of its writes still reach the disk, the others are lost.
    pub fn crash(&mut self, id: NodeId, written: usize) {
        let node = self.node_mut(id);
        let writing = std::mem::take(&mut node.writing);
        for persist in writing.iter().take(written) {
            node.disk.write(persist);
        }
        node.raft = None;
        node.reads.clear();
        node.log.clone_from(&node.disk.entries);
        if node.log.len() < node.disk.table.len() {
            node.log.clone_from(&node.disk.table);
        }
        self.events.push(format!("n{id} is down"));
    }

    /// Stops a node and takes everything from it; it comes back as one that forgot.
    pub fn wipe(&mut self, id: NodeId, episode: u64) {
        self.crash(id, 0);
        let standing = Standing::Forgetful { episode, told: None };
        let node = self.node_mut(id);
        node.disk = Disk { standing, ..Disk::default() };
        node.log.clear();
    }

    /// Stops a node and takes the end of its log from it, from behind an index, or from the table's end where
    /// that is further; what it still knows is where its log ended, unless it was forgetful before.
    pub fn damage(&mut self, id: NodeId, keep: usize, episode: u64) {
        self.crash(id, 0);
        let node = self.node_mut(id);
        let disk = &mut node.disk;
        let (last_term, last_index) = disk.end();
        disk.standing = disk.standing.after_damage(last_index, last_term, episode);
        disk.entries.truncate(keep.max(disk.table.len()));
        node.log.clone_from(&disk.entries);
    }

    /// The same, and the table is lost too, so that nothing is left.
    pub fn damage_table(&mut self, id: NodeId, episode: u64) {
        self.damage(id, 0, episode);
        let node = self.node_mut(id);
        (node.disk.released, node.log) = (0, Vec::new());
        node.disk.entries.clear();
        node.disk.table.clear();
    }

    /// Makes a table of all that a node has applied and its log holds durably, and lets go of the log up to
    /// an index.
    pub fn compact(&mut self, id: NodeId, index: Index) {
        let node = self.node_mut(id);
        let Some(raft) = node.raft.as_mut() else { return };
        let last = place(node.applied.min(raft.persisted_index()).next());
        if last > node.disk.table.len() {
            node.disk.table = node.log[..last].to_vec();
        }
        let index = index.min(Index(u64::try_from(last).expect("test logs are short")));
        raft.compact(index);
        node.disk.released = node.disk.released.max(place(index.next()));
        self.pump(id);
    }

    /// Lets a node have the table that it was offered, if the other is there to give it.
    pub fn install(&mut self, id: NodeId) {
        let Some(offer) = self.node(id).offer else { return };
        let giver = self.node(offer.from);
        let has_it = giver.disk.table.get(place(offer.index)).is_some_and(|last| last.term == offer.term);
        let is_there = giver.raft.is_some() && !self.cut.contains(&(offer.from, id)) && has_it;
        let table = giver.disk.table.clone();
        let node = self.node_mut(id);
        node.offer = None;
        let Some(raft) = node.raft.as_mut() else { return };
        let is_wanted = |last: &&Entry| is_there && raft.wants_table(last.index, last.term);
        let Some(last) = table.last().filter(is_wanted) else {
            raft.install_failed();
            self.events.push(format!("n{id} cannot have the table of n{}", offer.from));
            return self.pump(id);
        };
        let (index, term) = (last.index, last.term);
        node.disk.table.clone_from(&table);
        self.events.push(format!("n{id} has the table to {index}@{term} of n{}", offer.from));
        self.checks.on_install(id, self.node(id).applied, &table);
        self.take_table(id, &table, (index, term));
        self.pump(id);
    }

    fn take_table(&mut self, id: NodeId, table: &[Entry], (index, term): (Index, Term)) {
        let node = self.node_mut(id);
        let Some(raft) = node.raft.as_mut() else { return };
        match raft.installed(index, term) {
            Installed::Restarted => {
                node.log = table.to_vec();
                node.applied = index;
            }
            Installed::Kept => node.applied = node.applied.max(index),
            Installed::Stale => {}
        }
    }

    /// Stops a node, sets its disk, and starts it again.
    pub fn start_with(&mut self, id: NodeId, disk: Disk) {
        let node = self.node_mut(id);
        node.writing.clear();
        node.disk = disk;
        self.start(id);
    }

    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).expect("the node exists")
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("the node exists")
    }

    /// A node's replica; a test asks only nodes that run.
    pub fn raft(&self, id: u32) -> &Raft {
        self.node(NodeId(id)).raft.as_ref().expect("the node runs")
    }

    /// Does something to a replica that runs, and carries out what it then wants.
    pub fn act<T>(&mut self, id: NodeId, action: impl FnOnce(&mut Raft) -> T) -> Option<T> {
        let answer = self.node_mut(id).raft.as_mut().map(action);
        self.pump(id);
        answer
    }

    pub fn tick(&mut self, id: NodeId) {
        let jitter = self.jitter;
        self.act(id, |raft| raft.tick(jitter));
    }

    pub fn propose(&mut self, id: u32, data: &str) {
        let data = Bytes::copy_from_slice(data.as_bytes());
        let answer = self.act(NodeId(id), |raft| raft.propose(data));
        if let Some(Err(error)) = answer {
            self.events.push(format!("n{id} refuses: {}", describe::propose_error(&error)));
        }
    }

    /// Asks for a read; the answer has to see all that is committed now.
    pub fn read(&mut self, id: u32, token: u64) {
        let floor = self.checks.committed_index();
        self.node_mut(NodeId(id)).reads.insert(token, floor);
        let answer = self.act(NodeId(id), |raft| raft.read(token));
        if let Some(Err(error)) = answer {
            self.node_mut(NodeId(id)).reads.remove(&token);
            self.events.push(format!("n{id} refuses: {}", describe::read_error(&error)));
        }
    }

    /// Delivers the message at a place of the wire.
    pub fn deliver(&mut self, position: usize) {
        let message = self.wire.remove(position);
        self.arrive(message);
    }

    /// Lets a message arrive, unless its way is cut.
    pub fn arrive(&mut self, message: Message) {
        if self.cut.contains(&(message.from, message.to)) {
            self.events.push(format!("lost: {}", describe::message(&message)));
            return;
        }
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let decoded = Message::decode(Bytes::from(bytes)).expect("what was encoded can be decoded");
        assert_eq!(decoded, message, "a message changed on its way");
        self.act(message.to, |raft| raft.step(decoded));
    }

    /// Makes the oldest write of a node durable; whether there was one.
    pub fn complete_write(&mut self, id: NodeId) -> bool {
        let node = self.node_mut(id);
        let Some(persist) = node.writing.pop_front() else { return false };
        node.disk.write(&persist);
        self.events.push(format!("n{id} #{} is durable", persist.number));
        let completion = persist.completion();
        for message in persist.then_send {
            self.send(message);
        }
        self.act(id, |raft| raft.persisted(completion));
        true
    }

    /// Delivers and writes until nothing moves, or too long.
    pub fn stabilize(&mut self) {
        for _ in 0..10_000 {
            if self.wire.is_empty() {
                return;
            }
            self.deliver(0);
        }
        self.checks.violation("the cluster does not come to rest".to_owned());
    }

    /// Cuts a node off, both ways.
    pub fn isolate(&mut self, id: NodeId) {
        for &other in &self.config.voters {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    fn send(&mut self, message: Message) {
        self.events.push(describe::message(&message));
        self.checks.on_send(&message, &self.nodes);
        self.wire.push(message);
    }

    /// Carries out what a replica wants, until it wants nothing.
    fn pump(&mut self, id: NodeId) {
        while let Some(raft) = self.node_mut(id).raft.as_mut().filter(|raft| raft.has_ready()) {
            let ready = raft.ready();
            self.tell_role(id);
            self.carry_out(id, ready);
        }
        self.tell_role(id);
        if !self.node(id).is_manual && self.node(id).raft.is_some() {
            while self.complete_write(id) {}
        }
        self.checks.on_state(&self.nodes);
    }

    fn tell_role(&mut self, id: NodeId) {
        let Some(raft) = &self.node(id).raft else { return };
        let now = (raft.role(), raft.term(), raft.leader());
        let node = self.node_mut(id);
        if node.told != now {
            node.told = now;
            self.events.push(format!("n{id} {}", describe::role(now, id)));
        }
    }

    fn carry_out(&mut self, id: NodeId, ready: Ready) {
        let Ready { messages, persist, commit, reads, reads_lost, fetch, snapshots, offer } = ready;
        for message in messages {
            self.send(message);
        }
        if let Some(persist) = persist {
            self.events.push(describe::persist(id, &persist));
            let node = self.node_mut(id);
            overwrite(&mut node.log, &persist.entries);
            node.writing.push_back(persist);
        }
        self.apply(id, commit);
        for read in reads {
            self.events.push(format!("n{id} answers read {} at {}", read.token, read.index));
            let floor = self.node_mut(id).reads.remove(&read.token);
            self.checks.on_read(id, read, floor);
        }
        for token in reads_lost {
            self.events.push(format!("n{id} gives up read {token}"));
            self.node_mut(id).reads.remove(&token);
        }
        for fetch in fetch {
            self.answer_fetch(id, fetch);
        }
        for need in snapshots {
            self.events.push(format!("n{id} has a table to {} for n{}", need.index, need.to));
        }
        if let Some(offer) = offer {
            let SnapshotOffer { from, index, term } = offer;
            self.events.push(format!("n{id} is offered a table to {index}@{term} by n{from}"));
            self.node_mut(id).offer = Some(offer);
        }
    }

    fn apply(&mut self, id: NodeId, commit: Index) {
        let term = self.raft(id.0).term();
        while self.node(id).applied < commit {
            let node = self.node_mut(id);
            node.applied = node.applied.next();
            let index = node.applied;
            let Some(entry) = node.log.get(place(index)).cloned() else {
                return self.checks.violation(format!("n{id} commits {index} beyond its log"));
            };
            self.events.push(format!("n{id} applies {}", describe::entry(&entry)));
            self.checks.on_commit(id, term, &entry, &self.nodes);
        }
        if let Some(raft) = self.node_mut(id).raft.as_mut() {
            raft.applied(commit);
        }
    }

    fn answer_fetch(&mut self, id: NodeId, fetch: Fetch) {
        self.events.push(format!("n{id} reads {}..{} for n{}", fetch.first, fetch.last, fetch.to));
        let node = self.node_mut(id);
        assert!(place(fetch.first) >= node.disk.released, "n{id} reads {fetch:?}, which its log let go");
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in &node.log[place(fetch.first)..=place(fetch.last)] {
            bytes += entry.cost_bytes();
            if !entries.is_empty() && bytes > fetch.bytes_max {
                break;
            }
            entries.push(entry.clone());
        }
        if let Some(raft) = node.raft.as_mut() {
            raft.fetched(fetch.to, entries);
        }
    }
}
