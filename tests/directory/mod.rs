//! A small data directory, made in memory by the product's own code: an identity, a lane of two lives with
//! entries of two shards, and a table of each.
//!
//! Invariants: the same code makes the same bytes, so that the directory can be kept as a fixture and
//! compared.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use distribkv::env::{Env, File as _, OpenMode};
use distribkv::ids::{ClusterId, DirectoryId, Index, LaneId, NodeId, Sequence, ShardId, Term};
use distribkv::inspect::Files;
use distribkv::kv::{self, Command, Limits, Previous, RequestId, State, Write, session_id};
use distribkv::log::{
    Append, FreshIdentity, Identity, IdentityStore, Lane, LaneConfig, Noted, OnDamage, OpenError,
    RecoveredAt, Recovery, TableRef, table_name,
};
use distribkv::raft::{Entry, HardState, Standing};
use distribkv::shard::OpenTable;

use crate::kv_tables::{self, base_of};
use crate::log_mem::{self, MemEnv};

/// The bytes of a block.
pub const BLOCK: usize = 4096;
/// Where the lane lies, from the root.
pub const LANE_DIR: &str = "/lane-0";
/// What names the table.
pub const SALT: u64 = 0x5a17;
/// The shards of the lane.
pub const SHARDS: [ShardId; 2] = [ShardId(0), ShardId(1)];

/// The files of a directory by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory(pub BTreeMap<String, Vec<u8>>);

impl Directory {
    /// The files of an environment.
    pub fn of(env: &MemEnv) -> Self {
        let name = |path: &PathBuf| path.to_string_lossy().trim_start_matches('/').to_owned();
        Self(env.files().iter().map(|(path, bytes)| (name(path), bytes.clone())).collect())
    }

    /// The files of a directory on disk.
    pub fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            let entries = std::fs::read_dir(root.join(&dir)).expect("the directory can be read");
            for entry in entries.map(|entry| entry.expect("it can be read")) {
                let name = entry.file_name().into_string().expect("names are ASCII");
                let name = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                match entry.path().is_dir() {
                    true => dirs.push(name),
                    false => drop(files.insert(name, std::fs::read(entry.path()).expect("it can be read"))),
                }
            }
        }
        Self(files)
    }

    /// Writes them to a directory on disk.
    pub fn write(&self, root: &Path) {
        for (name, bytes) in &self.0 {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("it is below the root")).expect("it can be made");
            std::fs::write(path, bytes).expect("it can be written");
        }
    }

    /// An environment with these files.
    pub fn env(&self) -> MemEnv {
        let env = MemEnv::default();
        let files: log_mem::Files =
            self.0.iter().map(|(name, bytes)| (Path::new("/").join(name), bytes.clone())).collect();
        env.change(|there| *there = files);
        env
    }

    /// A file's bytes, to be changed.
    pub fn file(&mut self, name: &str) -> &mut Vec<u8> {
        self.0.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// The name of the first shard's table.
    pub fn table(&self) -> String {
        let mut names = self.0.keys().filter(|name| name.contains("/table-"));
        names.next().expect("it has a table").clone()
    }
}

impl Files for Directory {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let below = |name: &String| {
            let rest =
                if dir.is_empty() { Some(&name[..]) } else { name.strip_prefix(dir)?.strip_prefix('/') };
            rest.map(|rest| rest.split('/').next().unwrap_or_default().to_owned())
        };
        let mut names: Vec<String> = self.0.keys().filter_map(below).collect();
        names.dedup();
        Ok(names)
    }

    fn len(&self, file: &str) -> io::Result<u64> {
        self.0.get(file).map(|bytes| bytes.len() as u64).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&self, file: &str, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.0.get(file).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[from..from.saturating_add(len).min(bytes.len())].to_vec())
    }
}

/// The lane's settings: segments of three blocks beside their header.
pub fn lane_config() -> LaneConfig {
    LaneConfig {
        lane: LaneId(0),
        segment_bytes: 4 * BLOCK as u64,
        batch_bytes_max: 2 * BLOCK,
        batch_delay: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        seal_after: Duration::from_millis(10),
        damage: OnDamage::Stop,
        #[cfg(debug_assertions)]
        planted: None,
    }
}

/// What a start of the directory asks for, in a cluster of so many nodes.
pub fn fresh(nodes: u32) -> FreshIdentity {
    FreshIdentity {
        node: NodeId(1),
        cluster: ClusterId(77),
        nodes,
        shards: 2,
        lanes: 1,
        cluster_hash: 0x5e77,
        recovery: None,
    }
}

/// The entries of the first shard.
pub fn commands() -> Vec<Command> {
    let put = |key: &'static str, value: &'static str| Write::Put {
        key: key.into(),
        value: value.into(),
        if_mod_revision: None,
        return_previous: Previous::Omit,
    };
    let id = RequestId {
        session: session_id(SHARDS[0], Index(1)),
        sequence: Sequence(1),
        acknowledged: Sequence(0),
    };
    let append = Write::Append { key: "log".into(), value: "appended".into(), if_mod_revision: None };
    vec![
        Command::OpenSession { ttl_ms: 5000 },
        Command::Write { id: Some(id), write: append },
        Command::Write { id: None, write: put("a", "1") },
        Command::Write { id: None, write: put("b\n", "") },
        Command::Write { id: None, write: put("a", "2") },
        Command::Expire { session: id.session, last_active_index: Index(1) },
    ]
}

fn encoded(command: &Command) -> Bytes {
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    bytes.into()
}

fn entries(shard: ShardId, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    let data = |index: u64| {
        let command = commands().into_iter().nth(index as usize - 1);
        if shard == SHARDS[0] {
            command.map(|command| encoded(&command)).unwrap_or_default()
        } else {
            Bytes::new()
        }
    };
    indexes.map(|index| Entry { index: Index(index), term: Term(1 + index / 4), data: data(index) }).collect()
}

/// A table of what these commands come to.
fn table(shard: ShardId, commands: &[Command]) -> (TableRef, Vec<u8>) {
    let mut state = State::new(kv::Config::new(shard, Limits::DEFAULT));
    for (index, command) in (1..).zip(commands) {
        let base = base_of(&state, None, command);
        state.apply(Index(index), command, &base).expect("the commands are valid");
    }
    let _frozen = state.freeze(Term(2), Bytes::from_static(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]));
    let file = kv_tables::File::merge(&mut state, None, SALT).expect("what was frozen is merged");
    let bytes = file.bytes().to_vec();
    let checksum = bytes[bytes.len() - BLOCK..].first_chunk().expect("a page has eight bytes");
    let named = TableRef {
        generation: SALT,
        index: state.applied(),
        term: Term(2),
        bytes: bytes.len() as u64,
        footer_checksum: u64::from_le_bytes(*checksum),
    };
    (named, bytes)
}

/// Makes the directory of a node of a cluster of so many.
pub fn made(nodes: u32) -> Directory {
    let env = MemEnv::default();
    let its = env.clone();
    env.run(async move {
        let opened = IdentityStore::open_or_create(its, Path::new("/"), fresh(nodes)).await;
        let (mut store, _) = opened.expect("the directory is new");
        for node in (2..=nodes).map(NodeId) {
            let noted =
                Noted { directory: DirectoryId(100 + u64::from(node.0)), recovered_at: RecoveredAt::NEVER };
            store.note(node, noted).await.expect("it is noted");
        }
        store.entitle().await.expect("it is kept");
    });
    let lane = begin(&env);
    append(&env, &lane, Append { entries: entries(SHARDS[0], 1..=3), ..of(SHARDS[0], 1) });
    append(&env, &lane, Append { entries: entries(SHARDS[1], 1..=1), ..of(SHARDS[1], 1) });
    append(&env, &lane, Append { entries: entries(SHARDS[0], 4..=5), ..of(SHARDS[0], 4) });
    switch(&env, &lane, SHARDS[0], &commands()[..4]);
    assert_eq!(lane.release(SHARDS[0], Index(2), Term(1)), Ok(()));
    end(&env, &lane);
    let lane = begin(&env);
    switch(&env, &lane, SHARDS[1], &vec![commands().swap_remove(4); 9]);
    let standing = Some(Standing::Forgetful { episode: 7, told: Some(Term(2)) });
    append(&env, &lane, Append { standing, restart: Some((Index(9), Term(2))), ..of(SHARDS[1], 0) });
    append(&env, &lane, Append { entries: entries(SHARDS[0], 6..=6), ..of(SHARDS[0], 5) });
    end(&env, &lane);
    Directory::of(&env)
}

fn of(shard: ShardId, commit: u64) -> Append {
    let hard_state = HardState { term: Term(2), vote: Some(NodeId(1)), commit: Index(commit) };
    Append { shard, number: 1, hard_state: Some(hard_state), ..Append::default() }
}

fn begin(env: &MemEnv) -> Lane<MemEnv> {
    let (lane, _) = open_lane(env).expect("nothing is damaged");
    env.spawn(lane.clone().run());
    env.settle();
    lane
}

fn append(env: &MemEnv, lane: &Lane<MemEnv>, append: Append) {
    assert_eq!(lane.append(append), Ok(()));
    env.settle();
    assert_eq!(lane.completions().len(), 1, "all works at once here");
}

/// Makes a table and has the manifest name it.
fn switch(env: &MemEnv, lane: &Lane<MemEnv>, shard: ShardId, commands: &[Command]) {
    let (its, lane, (named, bytes)) = (env.clone(), lane.clone(), table(shard, commands));
    env.run(async move {
        let path = Path::new(LANE_DIR).join(table_name(shard, named.generation));
        let file = its.open(&path, OpenMode::Create).await.expect("it is new");
        file.write_at(Rc::new(bytes), 0).await.expect("there is room");
        assert!(lane.switch_table(shard, named).await.is_some(), "the lane runs");
    });
}

fn end(env: &MemEnv, lane: &Lane<MemEnv>) {
    env.pass(12);
    lane.close();
    env.pass(2);
    env.kill();
}

/// Opens the lane of a directory as a start does.
pub fn open_lane(env: &MemEnv) -> Result<(Lane<MemEnv>, Recovery), OpenError> {
    let its = env.clone();
    env.run(async move { Lane::open(its, Path::new(LANE_DIR), lane_config()).await })
}

/// Opens the identity of a directory of a cluster of so many nodes, as a start does.
pub fn open_identity(env: &MemEnv, nodes: u32) -> Result<Identity, OpenError> {
    let its = env.clone();
    let opened =
        env.run(async move { IdentityStore::open_or_create(its, Path::new("/"), fresh(nodes)).await });
    opened.map(|(_, identity)| identity)
}

/// Opens a table of a directory as a start does.
pub fn open_table(env: &MemEnv, shard: ShardId, named: TableRef) -> OpenTable<MemEnv> {
    let its = env.clone();
    let opened =
        env.run(async move { distribkv::shard::open_table(&its, Path::new(LANE_DIR), shard, &named).await });
    opened.unwrap_or_else(|error| panic!("the table does not open: {error}"))
}
