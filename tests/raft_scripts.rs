//! Golden scripts for the consensus core: a story each, under the name of the like one among etcd raft's
//! tests.
//!
//! Every file of `tests/golden/raft` is a cluster of its own. `UPDATE_GOLDENFILES=1` writes the outputs anew;
//! a person reads the difference. The rules of `raft_harness/checks.rs` hold in every script: a broken one
//! fails the command.
//!
//! ```text
//! cluster nodes=3 [election=10] [heartbeat=2] [lease=true] [window=3] …   begins anew, with limits
//! disk 1 term=2 log="1,1,2" [vote=1]   restarts node 1 with this on its disk: an entry a number, its
//!                                      term; the first of a term is its no-op
//! campaign 1 · tick 1 2 [count=5] · propose 1 a b · read 1 7 8 · transfer 1 [2] · willing 1 [draining]
//! deliver · drop · repeat · late       messages under way now, oldest first (late: newest first);
//!   [from=1] [to=2] [kind=Append] [count=1]   chosen by these
//! stabilize                            delivers until nothing is under way
//! manual 1 · auto 1 · persist 1 [count=1]     whether a write is durable at once, or when told
//! isolate 3 · cut 1 2 · heal           ways that lose everything
//! crash 1 [written=0] · restart 1      a process that loses what is not durable
//! compact 1 5                          node 1 makes a table of all it applied, and its log begins after 5
//! install 3 · report 1 3 failed        the table offered to node 3 is durable there; node 1 hears of it
//! wipe 3 episode=7 · damage 3 keep=2 · damage_table 3     a node that stops and has lost something
//! status · peers 1 · log · wire        shows
//! ```

mod raft_harness;

use std::error::Error;
use std::str::FromStr;

use bytes::Bytes;
use distribkv::ids::{Index, NodeId, Term};
use distribkv::raft::{Entry, HardState, Message, ReadMode, SnapshotOutcome, Standing, Voice, Willingness};
use goldenscript::{ArgumentConsumer, Command, Context};

use raft_harness::{Cluster, Disk, config, describe};

type Failure = Box<dyn Error>;

struct Script {
    cluster: Cluster,
}

#[test]
fn golden_scripts() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/raft");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("the scripts lie beside the tests")
        .map(|entry| entry.expect("the directory can be read").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 60, "{} scripts in {dir}", paths.len());
    for path in paths {
        println!("{}", path.display());
        let mut script = Script { cluster: Cluster::new(config(3)) };
        goldenscript::run(&mut script, &path).expect("the script runs as it did");
    }
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Failure> {
        let mut args = command.consume_args();
        self.act(&command.name, &mut args)?;
        args.reject_next()?;
        let mut lines = std::mem::take(&mut self.cluster.events).join("\n");
        if !lines.is_empty() {
            lines.push('\n');
        }
        match self.cluster.checks.violations.first() {
            Some(violation) => Err(format!("{lines}broken: {violation}").into()),
            None => Ok(lines),
        }
    }
}

impl Script {
    fn act(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        match name {
            "cluster" => self.begin(args),
            "disk" => self.disk(args),
            "campaign" => self.each(args, |cluster, id| {
                cluster.act(id, distribkv::raft::Raft::campaign);
            }),
            "tick" => self.tick(args),
            "propose" => self.propose(args),
            "read" => self.read(args),
            "transfer" => self.transfer(args),
            "willing" => self.willing(args),
            "deliver" | "drop" | "repeat" | "late" => self.wire(name, args),
            "stabilize" => {
                self.cluster.stabilize();
                Ok(())
            }
            "manual" => self.each(args, |cluster, id| cluster.node_mut(id).is_manual = true),
            "auto" => self.each(args, |cluster, id| {
                cluster.node_mut(id).is_manual = false;
                while cluster.complete_write(id) {}
            }),
            "persist" => self.persist(args),
            "isolate" => self.each(args, Cluster::isolate),
            "cut" => self.cut(args),
            "heal" => {
                self.cluster.cut.clear();
                Ok(())
            }
            "crash" => self.crash(args),
            "restart" => self.each(args, Cluster::start),
            "compact" | "report" => self.table(name, args),
            "install" => self.each(args, Cluster::install),
            "wipe" | "damage" | "damage_table" => self.lose(name, args),
            "status" | "peers" | "log" | "wire" => self.show(name, args),
            unknown => Err(format!("no command {unknown}").into()),
        }
    }

    fn begin(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let mut config = config(number(args, "nodes")?.unwrap_or(3));
        config.election_ticks = number(args, "election")?.unwrap_or(config.election_ticks);
        config.heartbeat_ticks = number(args, "heartbeat")?.unwrap_or(config.heartbeat_ticks);
        config.append_bytes_max = number(args, "append_bytes")?.unwrap_or(config.append_bytes_max);
        config.window_messages_max = number(args, "window")?.unwrap_or(config.window_messages_max);
        config.cache_bytes_max = number(args, "cache_bytes")?.unwrap_or(config.cache_bytes_max);
        config.uncommitted_bytes_max =
            number(args, "uncommitted_bytes")?.unwrap_or(config.uncommitted_bytes_max);
        config.reads_pending_max = number(args, "reads")?.unwrap_or(config.reads_pending_max);
        if number(args, "lease")?.unwrap_or(false) {
            config.read_mode = ReadMode::Lease;
        }
        self.cluster = Cluster::new(config);
        Ok(())
    }

    fn each(
        &mut self,
        args: &mut ArgumentConsumer<'_>,
        action: fn(&mut Cluster, NodeId),
    ) -> Result<(), Failure> {
        while let Some(id) = next_node(args)? {
            action(&mut self.cluster, id);
        }
        Ok(())
    }

    fn disk(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let id = one_node(args)?;
        let terms: Vec<u64> = match args.take_key("log") {
            Some(log) => log.split(',').map(str::parse).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        let mut before = 0;
        let entry = |(index, &term): (u64, &u64)| {
            let is_first = std::mem::replace(&mut before, term) != term;
            let data = if is_first { Bytes::new() } else { format!("{index}@{term}").into() };
            Entry { index: Index(index), term: Term(term), data }
        };
        let hard_state = HardState {
            term: Term(number(args, "term")?.unwrap_or(0)),
            vote: number(args, "vote")?.map(NodeId),
            commit: Index(number(args, "commit")?.unwrap_or(0)),
        };
        let entries = (1..).zip(&terms).map(entry).collect();
        self.cluster.start_with(id, Disk { hard_state, entries, ..Disk::default() });
        Ok(())
    }

    fn table(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let id = one_node(args)?;
        if name == "compact" {
            let index = args.next_pos().ok_or("up to which entry?")?.parse()?;
            self.cluster.compact(id, Index(index));
            return Ok(());
        }
        let to = one_node(args)?;
        let outcome = match args.next_pos() {
            Some("failed") => SnapshotOutcome::Failed,
            Some("finished") => SnapshotOutcome::Finished,
            word => return Err(format!("not {word:?}").into()),
        };
        self.cluster.act(id, |raft| raft.snapshot_ended(to, outcome));
        Ok(())
    }

    fn lose(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let (episode, keep) = (number(args, "episode")?, number(args, "keep")?);
        let id = one_node(args)?;
        let episode = episode.unwrap_or(1);
        match name {
            "wipe" => self.cluster.wipe(id, episode),
            "damage" => self.cluster.damage(id, keep.unwrap_or(0), episode),
            _ => self.cluster.damage_table(id, episode),
        }
        Ok(())
    }

    fn tick(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let count: u32 = number(args, "count")?.unwrap_or(1);
        let mut ids = Vec::new();
        while let Some(id) = next_node(args)? {
            ids.push(id);
        }
        for _ in 0..count {
            ids.iter().for_each(|&id| self.cluster.tick(id));
        }
        Ok(())
    }

    fn propose(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let id = one_node(args)?;
        while let Some(data) = args.next_pos() {
            self.cluster.propose(id.0, data);
        }
        Ok(())
    }

    fn read(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let id = one_node(args)?;
        while let Some(token) = args.next_pos() {
            self.cluster.read(id.0, token.parse()?);
        }
        Ok(())
    }

    fn transfer(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let (id, to) = (one_node(args)?, next_node(args)?);
        let line = match self.cluster.act(id, |raft| raft.transfer(to)) {
            Some(Ok(to)) => format!("n{id} hands leadership to n{to}"),
            Some(Err(error)) => format!("n{id} refuses: {}", describe::transfer_error(&error)),
            None => format!("n{id} is down"),
        };
        self.cluster.events.push(line);
        Ok(())
    }

    fn willing(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let id = one_node(args)?;
        let willingness = match args.next_pos() {
            Some("draining") => Willingness::Draining,
            Some("short") => Willingness::Short,
            Some("full") => Willingness::Full,
            Some(word) => return Err(format!("not {word}").into()),
            None => Willingness::Willing,
        };
        self.cluster.act(id, |raft| raft.set_willing(willingness));
        Ok(())
    }

    /// Takes messages off the wire and does with them what the command says.
    fn wire(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let mut chosen = self.take(args)?;
        if name == "late" {
            chosen.reverse();
        }
        for message in chosen {
            match name {
                "drop" => self.cluster.events.push(format!("lost: {}", describe::message(&message))),
                "repeat" => {
                    self.cluster.arrive(message.clone());
                    self.cluster.arrive(message);
                }
                _ => self.cluster.arrive(message),
            }
        }
        Ok(())
    }

    fn take(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<Vec<Message>, Failure> {
        let from: Option<u32> = number(args, "from")?;
        let to: Option<u32> = number(args, "to")?;
        let kind = args.take_key("kind");
        let mut count: usize = number(args, "count")?.unwrap_or(usize::MAX);
        let mut chosen = Vec::new();
        for message in std::mem::take(&mut self.cluster.wire) {
            let is_kind = kind.is_none_or(|kind| kind == describe::kind(&message.body));
            let is_way =
                from.is_none_or(|from| message.from.0 == from) && to.is_none_or(|to| message.to.0 == to);
            if is_kind && is_way && count > 0 {
                count -= 1;
                chosen.push(message);
            } else {
                self.cluster.wire.push(message);
            }
        }
        Ok(chosen)
    }

    fn persist(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let count: usize = number(args, "count")?.unwrap_or(usize::MAX);
        let id = one_node(args)?;
        let mut done = 0;
        while done < count && self.cluster.complete_write(id) {
            done += 1;
        }
        Ok(())
    }

    fn cut(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let (from, to) = (one_node(args)?, one_node(args)?);
        self.cluster.cut.insert((from, to));
        Ok(())
    }

    fn crash(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let written = number(args, "written")?.unwrap_or(0);
        self.cluster.crash(one_node(args)?, written);
        Ok(())
    }

    fn show(&mut self, what: &str, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let mut ids = Vec::new();
        while let Some(id) = next_node(args)? {
            ids.push(id);
        }
        if ids.is_empty() {
            ids.clone_from(&self.cluster.config.voters);
        }
        let lines = match what {
            "wire" => self.cluster.wire.iter().map(describe::message).collect(),
            "log" => ids.iter().map(|&id| self.log_line(id)).collect(),
            "peers" => ids.iter().flat_map(|&id| self.peer_lines(id)).collect(),
            _ => ids.iter().map(|&id| self.status_line(id)).collect::<Vec<_>>(),
        };
        self.cluster.events.extend(lines);
        Ok(())
    }

    fn status_line(&self, id: NodeId) -> String {
        let Some(raft) = &self.cluster.node(id).raft else { return format!("n{id} is down") };
        let role = describe::role((raft.role(), raft.term(), raft.leader()), id);
        let (commit, last, durable) = (raft.commit(), raft.last_index(), raft.persisted_index());
        let begins = match raft.log_start() {
            Index(0) => String::new(),
            start => format!(", log after {start}"),
        };
        let standing = match raft.standing() {
            Standing::Whole => String::new(),
            lost => format!(", {}", describe::standing(lost)),
        };
        format!("n{id} {role}, commit {commit}, last {last}, durable {durable}{begins}{standing}")
    }

    fn log_line(&self, id: NodeId) -> String {
        format!("n{id} has {}", describe::entries(&self.cluster.node(id).log))
    }

    fn peer_lines(&self, id: NodeId) -> Vec<String> {
        let peers = self.cluster.raft(id.0).peers();
        let line = |peer: &distribkv::raft::Peer| {
            let mode = match peer.snapshot {
                Some(pending) => format!("sends a table to {pending} to"),
                None => if peer.is_probed { "probes" } else { "replicates to" }.to_owned(),
            };
            let silent = if peer.is_active { "" } else { ", silent" };
            let voice = match peer.voice {
                Voice::Whole => "",
                Voice::Damaged => ", damaged",
                Voice::Healing => ", healing",
                Voice::Forgetful => ", forgetful",
            };
            let active = format!("{silent}{voice}");
            let (to, matched, next, in_flight) = (peer.id, peer.matched, peer.next, peer.in_flight);
            format!("n{id} {mode} n{to}: matched {matched}, next {next}, {in_flight} in flight{active}")
        };
        peers.iter().map(line).collect()
    }
}

/// The number behind a key, if it is there.
fn number<T: FromStr<Err: Error + 'static>>(
    args: &mut ArgumentConsumer<'_>,
    key: &str,
) -> Result<Option<T>, Failure> {
    Ok(args.take_key(key).map(str::parse).transpose()?)
}

fn next_node(args: &mut ArgumentConsumer<'_>) -> Result<Option<NodeId>, Failure> {
    match args.next_pos() {
        Some(argument) => Ok(Some(NodeId(argument.parse()?))),
        None => Ok(None),
    }
}

fn one_node(args: &mut ArgumentConsumer<'_>) -> Result<NodeId, Failure> {
    next_node(args)?.ok_or_else(|| "which node?".into())
}
