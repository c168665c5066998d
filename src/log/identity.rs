//! Who a data directory is: its node, its cluster, its own random id, and the directories of the other nodes
//! that it has noted. Kept in a [`TwinFile`], durable before the first hello. This is version 1 of a data
//! directory; later versions read it.
//!
//! ```text
//! payload:  0        4      8       12       16      20         24
//!           ├ format ┼ node ┼ nodes ┼ shards ┼ lanes ┼ entitled ┤
//!           24          32        40         48       56             64      72       80
//!           ├ directory ┼ cluster ┼ settings ┼ starts ┼ recovered_at ┼ count ┼ origin ┼ noted …
//! noted:    count × { node 4, zeros 4, directory 8, recovered_at 8 }
//! ```
//!
//! Why the id: a node whose disk was wiped must not pass for a new one, or it forgets whom it voted for and
//! what it acknowledged. A new directory votes and acknowledges only once enough other nodes have durably
//! noted its id, none of them knowing another for that node; any two such sets of nodes meet.
//!
//! The cluster is what the settings come to, its origin, unless its nodes were restored from a backup: then
//! the backup is part of it, so that they take no node for one of their own that was not. The settings of a
//! start are compared with the origin.
//!
//! A directory that is **recovered** was made where a person said that the node's own one is lost. It knows
//! so for ever, and others note it in the place of an older one: the later of two recoveries counts, by the
//! clock of whoever ordered it. Its starts are counted from that moment on, so that they are above those of
//! every directory before it: what is told apart by starts stays apart. Only a directory that may not vote
//! yet is ever turned into a recovered one: it has said nothing that could be forgotten.
//!
//! Invariants:
//! - A directory has one id for ever, made at random with it; an identity that disagrees with what is asked
//!   is refused.
//! - A noted id is overwritten by that of a later recovery alone; every change is durable in both copies
//!   before the caller goes on.
//! - A directory that may vote is never made to forget that it may, nor what it is.
//! - An identity is not made where lanes are already: that would be a lost one, not a new one.
//!
//! It lives on the core that speaks for the node. It deliberately does not decide who is entitled: that is
//! counted from the hellos of the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::ids::{ClusterId, DirectoryId, NodeId};

use super::codec::Source;
use super::error::{Damage, DamageKind, Disagreement, Doing, LogFailure, NoteError, OpenError};
use super::twin::{Copies, TwinFile, TwinKind, TwinReport};

/// The version of the data directory as a whole.
pub const DIRECTORY_FORMAT: u32 = 1;

/// What the directories of lanes are named by: `lane-0`, `lane-1`, …
pub const LANE_DIR_PREFIX: &str = "lane-";

const FIXED_BYTES: usize = 80;
const NOTED_BYTES: usize = 24;

/// The most nodes that a cluster may have, and so the most directories that are noted.
pub const NODES_MAX: u32 = 1024;

/// When a directory was put in the place of a lost one: milliseconds since 1970, by the clock of the machine
/// that it was done on. Nothing is measured with it: it says which of two recoveries is the later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecoveredAt(pub u64);

impl RecoveredAt {
    /// Of a directory that was made with its node.
    pub const NEVER: Self = Self(0);
}

/// A node's directory, as it is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its id.
    pub directory: DirectoryId,
    /// When it was put in the place of a lost one.
    pub recovered_at: RecoveredAt,
}
/// The most shards that a cluster may have: there are as many slots of keys.
pub const SHARDS_MAX: u32 = 16_384;

/// Who a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The directory's own random id.
    pub directory: DirectoryId,
    /// The cluster.
    pub cluster: ClusterId,
    /// What the cluster's settings come to: the same, unless it was restored from a backup.
    pub origin: ClusterId,
    /// The nodes of the cluster when it was made.
    pub nodes: u32,
    /// Its shards.
    pub shards: u32,
    /// The lanes of this directory, fixed when it was made.
    pub lanes: u32,
    /// The hash of the settings that all nodes must agree on, as of the last start.
    pub cluster_hash: u64,
    /// When it was put in the place of a lost one: what this node said before, it does not hold.
    pub recovered_at: RecoveredAt,
    /// The directories of other nodes that were noted.
    pub noted: BTreeMap<NodeId, Noted>,
    /// Whether enough other nodes have noted this directory: it votes and acknowledges.
    pub entitled: bool,
    /// The version of the data directory.
    pub format: u32,
    /// How often this directory was opened, counted from its recovery where it is a recovered one: names the
    /// lives of its process.
    pub starts: u64,
}

/// What an identity is made of where there is none, and compared with where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreshIdentity {
    /// The node that is started.
    pub node: NodeId,
    /// The cluster that it is to be in, as the settings have it.
    pub cluster: ClusterId,
    /// Its nodes, 1 to [`NODES_MAX`].
    pub nodes: u32,
    /// Its shards.
    pub shards: u32,
    /// The lanes of a directory that is made now. Of one that exists, the kept number counts.
    pub lanes: u32,
    /// The hash of the settings that must agree. It may change from start to start; the last one is kept.
    pub cluster_hash: u64,
    /// When a person said that the node's directory is lost, where this start says so.
    pub recovery: Option<RecoveredAt>,
}

/// The identity where it is kept.
#[derive(Debug)]
pub struct IdentityStore<E: Env> {
    twin: TwinFile<E>,
    path: PathBuf,
    identity: Identity,
    report: TwinReport,
}

impl<E: Env> IdentityStore<E> {
    /// Opens the identity of a directory, or makes it where the directory is new. It is durable when this
    /// returns.
    pub async fn open_or_create(
        env: E,
        dir: &Path,
        fresh: FreshIdentity,
    ) -> Result<(Self, Identity), OpenError> {
        assert!((1..=NODES_MAX).contains(&fresh.nodes), "a cluster of {} nodes", fresh.nodes);
        let names = prepared_dir(&env, dir).await?;
        let kept = (TwinKind::Identity, Copies::Both);
        let (twin, payload, report) = TwinFile::open(env.clone(), dir, kept).await?;
        let path = dir.join(TwinKind::Identity.names()[0]);
        let damage = |kind| OpenError::Damaged(Damage { file: path.clone(), offset: 0, kind });
        let mut identity = match payload {
            Some(payload) => decode(&payload, &path)?.ok_or_else(|| damage(DamageKind::Content))?,
            None if names.iter().any(|name| name.starts_with(LANE_DIR_PREFIX)) => {
                return Err(damage(DamageKind::CopiesMissing));
            }
            None => fresh.made(DirectoryId(env.random().max(1))),
        };
        let recovered = disagreement(&identity, &fresh).map_or(Ok(()), Err);
        let recovered = recovered.and_then(|()| fresh.recovery.map_or(Ok(()), |at| identity.recover(at)));
        recovered.map_err(|what| OpenError::Disagrees { dir: dir.to_path_buf(), what })?;
        identity.cluster_hash = fresh.cluster_hash;
        identity.starts += 1;
        let mut store = Self { twin, path, identity, report };
        store.write().await?;
        let identity = store.identity.clone();
        Ok((store, identity))
    }

    /// Makes the identity of a directory that was restored, the last thing that it lacks: with the id of the
    /// cluster that the backup made. Its next start is its first. It is durable when this returns.
    pub async fn create_restored(
        env: E,
        dir: &Path,
        fresh: FreshIdentity,
        cluster: ClusterId,
    ) -> Result<Identity, OpenError> {
        let kept = (TwinKind::Identity, Copies::Both);
        let (twin, payload, report) = TwinFile::open(env.clone(), dir, kept).await?;
        let path = dir.join(TwinKind::Identity.names()[0]);
        assert!(payload.is_none(), "{} is there before it is made", path.display());
        let identity = Identity { cluster, ..fresh.made(DirectoryId(env.random().max(1))) };
        let mut store = Self { twin, path, identity, report };
        store.write().await?;
        Ok(store.identity)
    }

    /// Who this directory is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The environment that it is kept in.
    #[must_use]
    pub fn env(&self) -> &E {
        self.twin.env()
    }

    /// What was found of the two copies when they were opened.
    #[must_use]
    pub fn report(&self) -> TwinReport {
        self.report
    }

    /// Notes the directory of another node, durably: where none is known, or an older one than a recovered
    /// one. The same one again changes nothing.
    pub async fn note(&mut self, node: NodeId, noted: Noted) -> Result<(), NoteError> {
        if node == NodeId(0) || node.0 > self.identity.nodes {
            return Err(NoteError::NoSuchNode);
        }
        match self.identity.noted.get(&node) {
            Some(known) if known.recovered_at < noted.recovered_at => {}
            Some(known) if known.directory == noted.directory => return Ok(()),
            Some(known) => return Err(NoteError::AnotherKnown { known: *known }),
            None => {}
        }
        let before = self.identity.noted.insert(node, noted);
        self.write().await.map_err(|failure| {
            self.identity.noted.remove(&node);
            self.identity.noted.extend(before.map(|before| (node, before)));
            NoteError::Failed(failure)
        })
    }

    /// Keeps that enough other nodes have noted this directory.
    pub async fn entitle(&mut self) -> Result<(), LogFailure> {
        if self.identity.entitled {
            return Ok(());
        }
        self.identity.entitled = true;
        self.write().await.inspect_err(|_| self.identity.entitled = false)
    }

    /// Where the first copy is, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn write(&mut self) -> Result<(), LogFailure> {
        self.twin.write(&encode(&self.identity), Copies::Both).await
    }
}

impl Identity {
    /// Whether it was put in the place of a lost one.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.recovered_at != RecoveredAt::NEVER
    }

    /// Makes it one that was put in the place of a lost one. One that may vote stays as it is: it was
    /// recovered before, or nothing of it is lost.
    fn recover(&mut self, at: RecoveredAt) -> Result<(), Disagreement> {
        assert!(at != RecoveredAt::NEVER, "a recovery has its moment");
        if self.entitled {
            return if self.is_recovered() { Ok(()) } else { Err(Disagreement::NotLost) };
        }
        self.recovered_at = self.recovered_at.max(at);
        self.starts = self.starts.max(at.0);
        Ok(())
    }
}

impl FreshIdentity {
    fn made(&self, directory: DirectoryId) -> Identity {
        Identity {
            node: self.node,
            directory,
            cluster: self.cluster,
            origin: self.cluster,
            nodes: self.nodes,
            shards: self.shards,
            lanes: self.lanes,
            cluster_hash: self.cluster_hash,
            recovered_at: RecoveredAt::NEVER,
            noted: BTreeMap::new(),
            entitled: false,
            format: DIRECTORY_FORMAT,
            starts: 0,
        }
    }
}

/// Makes a directory durable with its parent, and lists it.
pub(super) async fn prepared_dir<E: Env>(env: &E, dir: &Path) -> Result<Vec<String>, OpenError> {
    let failed = |source| LogFailure::new(Doing::Directory, dir, source);
    env.create_dir(dir).await.map_err(failed)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        env.sync_dir(parent).await.map_err(failed)?;
    }
    Ok(env.list(dir).await.map_err(failed)?)
}

fn disagreement(kept: &Identity, asked: &FreshIdentity) -> Option<Disagreement> {
    if kept.node != asked.node {
        Some(Disagreement::Node { kept: kept.node, asked: asked.node })
    } else if kept.nodes != asked.nodes {
        Some(Disagreement::Nodes { kept: kept.nodes, asked: asked.nodes })
    } else if kept.shards != asked.shards {
        Some(Disagreement::Shards { kept: kept.shards, asked: asked.shards })
    } else if kept.origin != asked.cluster {
        Some(Disagreement::Cluster { kept: kept.origin, asked: asked.cluster })
    } else {
        None
    }
}

fn encode(identity: &Identity) -> Vec<u8> {
    let count = u32::try_from(identity.noted.len()).expect("no more are noted than NODES_MAX");
    let mut out = Vec::with_capacity(FIXED_BYTES + identity.noted.len() * NOTED_BYTES);
    let small = [identity.format, identity.node.0, identity.nodes, identity.shards, identity.lanes];
    small.iter().for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
    out.extend_from_slice(&u32::from(identity.entitled).to_le_bytes());
    let large = [identity.directory.0, identity.cluster.0, identity.cluster_hash, identity.starts];
    let last = [identity.recovered_at.0, u64::from(count), identity.origin.0];
    let noted = identity.noted.iter();
    let noted = noted.flat_map(|(node, noted)| [u64::from(node.0), noted.directory.0, noted.recovered_at.0]);
    for field in large.into_iter().chain(last).chain(noted) {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out
}

/// Reads the payload of an identity, whose copy is at `path`; `None` where it makes no sense.
///
/// # Errors
/// It is of a version that this build does not know.
pub fn decode(payload: &[u8], path: &Path) -> Result<Option<Identity>, OpenError> {
    let mut source = Source::new(payload);
    let format = source.u32().unwrap_or(0);
    if format != 0 && format != DIRECTORY_FORMAT {
        let [found, known] = [format, DIRECTORY_FORMAT].map(|it| u16::try_from(it).unwrap_or(u16::MAX));
        return Err(OpenError::Format { file: path.to_path_buf(), found, known });
    }
    Ok(decode_fields(format, &mut source))
}

fn decode_fields(format: u32, source: &mut Source<'_>) -> Option<Identity> {
    let node = NodeId(source.u32()?);
    let nodes = source.u32()?;
    let shards = source.u32()?;
    let lanes = source.u32()?;
    let entitled = source.u32()?;
    let directory = DirectoryId(source.u64()?);
    let cluster = ClusterId(source.u64()?);
    let cluster_hash = source.u64()?;
    let starts = source.u64()?;
    let recovered_at = RecoveredAt(source.u64()?);
    let count = usize::try_from(source.u64()?).ok()?;
    let origin = ClusterId(source.u64()?);
    let is_placed = (1..=nodes).contains(&node.0) && (1..=shards).contains(&lanes);
    let is_bounded = nodes <= NODES_MAX && shards <= SHARDS_MAX && starts < u64::MAX;
    if format == 0 || entitled > 1 || !is_placed || !is_bounded || count > nodes as usize {
        return None;
    }
    let mut noted = BTreeMap::new();
    for _ in 0..count {
        let node = NodeId(u32::try_from(source.u64()?).ok()?);
        let directory = DirectoryId(source.u64()?);
        noted.insert(node, Noted { directory, recovered_at: RecoveredAt(source.u64()?) });
    }
    let whole = noted.len() == count && source.is_empty();
    let entitled = entitled == 1;
    let identity = Identity {
        node,
        directory,
        cluster,
        origin,
        nodes,
        shards,
        lanes,
        cluster_hash,
        recovered_at,
        noted,
        entitled,
        format,
        starts,
    };
    whole.then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_comes_back_as_it_was() {
        let fresh = FreshIdentity {
            node: NodeId(2),
            cluster: ClusterId(77),
            nodes: 3,
            shards: 8,
            lanes: 2,
            cluster_hash: u64::MAX,
            recovery: None,
        };
        let mut identity = fresh.made(DirectoryId(5));
        let noted =
            |directory, at| Noted { directory: DirectoryId(directory), recovered_at: RecoveredAt(at) };
        identity.recovered_at = RecoveredAt(11);
        identity.noted.insert(NodeId(1), noted(9, 0));
        identity.noted.insert(NodeId(3), noted(10, 12));
        identity.entitled = true;
        identity.cluster = ClusterId(78);
        let bytes = encode(&identity);
        let path = Path::new("identity-a");
        assert!(matches!(decode(&bytes, path), Ok(Some(back)) if back == identity));
        for len in 4..bytes.len() {
            assert!(matches!(decode(&bytes[..len], path), Ok(None)), "cut to {len}");
        }
    }
}
