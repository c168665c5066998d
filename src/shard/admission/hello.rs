//! What nodes say to each other before anything else, and its form: a hello, and the verdict on it. This is
//! version 1, which the hello names: of parcels and frames too.
//!
//! ```text
//! hello     0        4      8      12      16        24          32         40
//!           ├ format ┼ node ┼ core ┼ nodes ┼ cluster ┼ directory ┼ settings ┤
//!           40            48             56         60      64
//!           ├ incarnation ┼ recovered_at ┼ may vote ┼ zeros ┤
//! verdict   0        4                                        68
//!           ├   0    ┼ the hello of who welcomes ─────────────┤
//!           0        4      12       20        24
//!           ├ reason ┼ ours ┼ theirs ┼ may vote ┼ zeros …
//! ```
//!
//! Reasons: 1 format, 2 cluster, 3 settings, 4 node, 5 directory, 6 incarnation, 7 recovery, 8 no witness.
//! All numbers are little-endian.
//!
//! Pure: bytes in, values out. What follows from a verdict is decided elsewhere.

use bytes::{Buf, Bytes};

use crate::ids::{ClusterId, CoreId, DirectoryId, NodeId};
use crate::log::{Identity, Noted, RecoveredAt};

/// The version of everything that nodes say to each other.
pub const LINK_FORMAT: u32 = 1;

/// The size of an encoded hello.
pub const HELLO_BYTES: usize = 64;

/// The size of an encoded verdict.
pub const VERDICT_BYTES: usize = 4 + HELLO_BYTES;

/// What a node says of itself before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of what it says.
    pub format: u32,
    /// Who it is.
    pub node: NodeId,
    /// The core that the link begins at.
    pub core: CoreId,
    /// How many nodes it thinks there are.
    pub nodes: u32,
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// The hash of the settings that must agree.
    pub settings: u64,
    /// Which start of its data directory this is.
    pub incarnation: u64,
    /// When its data directory was put in the place of a lost one.
    pub recovered_at: RecoveredAt,
    /// Whether it may vote.
    pub standing: Standing,
}

/// Why a hello was refused. `ours` is of who refused, `theirs` of who was refused, on both ends of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Another version of what nodes say to each other.
    Format {
        /// Of who refused.
        ours: u32,
        /// Of who was refused.
        theirs: u32,
    },
    /// Another cluster.
    Cluster {
        /// Of who refused.
        ours: ClusterId,
        /// Of who was refused.
        theirs: ClusterId,
    },
    /// Other values of settings that must agree.
    Settings {
        /// The hash, of who refused.
        ours: u64,
        /// The hash, of who was refused.
        theirs: u64,
    },
    /// No such node, or the very node that was asked.
    Node {
        /// Who refused.
        ours: NodeId,
        /// Who was refused.
        theirs: NodeId,
    },
    /// That node is known with another data directory: this one was wiped, or is not its own.
    Directory {
        /// The one that is noted.
        noted: DirectoryId,
        /// The one that it came with.
        theirs: DirectoryId,
    },
    /// A newer start of that data directory was heard of: an older copy of it is in use, or two are.
    Incarnation {
        /// The newest start that was heard of.
        newest: u64,
        /// The one that it came with.
        theirs: u64,
    },
    /// That node is known with a data directory of a later recovery: an older directory is in use, or the
    /// clock was behind when this one was recovered.
    Recovery {
        /// When the one that is noted was recovered.
        newest: RecoveredAt,
        /// When the one that it came with was.
        theirs: RecoveredAt,
    },
    /// Nothing is known of that node, whose directory is new, by one that was recovered: it may have known
    /// another one before.
    NoWitness {
        /// When who refuses was recovered.
        ours: RecoveredAt,
        /// The directory that it came with.
        theirs: DirectoryId,
    },
}

/// Whether a node may vote and acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its data directory is new: not enough others are known to have noted it.
    New,
    /// It may.
    Entitled,
}

/// What a node that refuses a hello says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub rejection: Rejection,
    /// What the node that refuses is itself.
    pub standing: Standing,
}

/// The answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is noted; this is who noted it.
    Welcome(Hello),
    /// It is not welcome.
    Rejected(Refusal),
}

impl Hello {
    /// What a node says of itself, from its identity.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        Self {
            format: LINK_FORMAT,
            node: identity.node,
            core: CoreId(0),
            nodes: identity.nodes,
            cluster: identity.cluster,
            directory: identity.directory,
            settings: identity.cluster_hash,
            incarnation: identity.starts,
            recovered_at: identity.recovered_at,
            standing: if identity.entitled { Standing::Entitled } else { Standing::New },
        }
    }

    /// What is to be noted of it.
    #[must_use]
    pub fn noted(&self) -> Noted {
        Noted { directory: self.directory, recovered_at: self.recovered_at }
    }

    /// Why the other cannot be spoken to, judged by what is known without asking the identity.
    pub(super) fn compare(&self, other: &Self) -> Option<Rejection> {
        if other.format != self.format {
            Some(Rejection::Format { ours: self.format, theirs: other.format })
        } else if other.cluster != self.cluster {
            Some(Rejection::Cluster { ours: self.cluster, theirs: other.cluster })
        } else if other.settings != self.settings || other.nodes != self.nodes {
            Some(Rejection::Settings { ours: self.settings, theirs: other.settings })
        } else if other.node == self.node || other.node.0 == 0 || other.node.0 > self.nodes {
            Some(Rejection::Node { ours: self.node, theirs: other.node })
        } else {
            None
        }
    }

    /// The hello as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = Vec::with_capacity(HELLO_BYTES);
        for word in [self.format, self.node.0, self.core.0, self.nodes] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let last = [self.incarnation, self.recovered_at.0];
        for word in [self.cluster.0, self.directory.0, self.settings].into_iter().chain(last) {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&u64::from(self.standing == Standing::Entitled).to_le_bytes());
        out.try_into().expect("four words of 4 bytes and six of 8")
    }

    /// Reads a hello.
    #[must_use]
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Self {
        let mut bytes = Bytes::copy_from_slice(bytes);
        Self {
            format: bytes.get_u32_le(),
            node: NodeId(bytes.get_u32_le()),
            core: CoreId(bytes.get_u32_le()),
            nodes: bytes.get_u32_le(),
            cluster: ClusterId(bytes.get_u64_le()),
            directory: DirectoryId(bytes.get_u64_le()),
            settings: bytes.get_u64_le(),
            incarnation: bytes.get_u64_le(),
            recovered_at: RecoveredAt(bytes.get_u64_le()),
            standing: if bytes.get_u64_le() == 0 { Standing::New } else { Standing::Entitled },
        }
    }
}

impl Verdict {
    /// The verdict as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; VERDICT_BYTES] {
        let mut out = [0; VERDICT_BYTES];
        let refusal = match self {
            Self::Welcome(hello) => {
                out[4..].copy_from_slice(&hello.encode());
                return out;
            }
            Self::Rejected(refusal) => refusal,
        };
        let (reason, ours, theirs) = refusal.rejection.parts();
        out[..4].copy_from_slice(&reason.to_le_bytes());
        out[4..12].copy_from_slice(&ours.to_le_bytes());
        out[12..20].copy_from_slice(&theirs.to_le_bytes());
        out[20..24].copy_from_slice(&u32::from(refusal.standing == Standing::Entitled).to_le_bytes());
        out
    }

    /// Reads a verdict; `None` where its reason is none that is known.
    #[must_use]
    pub fn decode(bytes: &[u8; VERDICT_BYTES]) -> Option<Self> {
        let mut rest = Bytes::copy_from_slice(bytes);
        let reason = rest.get_u32_le();
        if reason == 0 {
            let hello = rest.as_ref().try_into().expect("what is left is as long as a hello");
            return Some(Self::Welcome(Hello::decode(hello)));
        }
        let (ours, theirs) = (rest.get_u64_le(), rest.get_u64_le());
        let standing = if rest.get_u32_le() == 0 { Standing::New } else { Standing::Entitled };
        let rejection = Rejection::of_parts(reason, ours, theirs)?;
        Some(Self::Rejected(Refusal { rejection, standing }))
    }
}

impl Rejection {
    fn parts(&self) -> (u32, u64, u64) {
        match *self {
            Self::Format { ours, theirs } => (1, u64::from(ours), u64::from(theirs)),
            Self::Cluster { ours, theirs } => (2, ours.0, theirs.0),
            Self::Settings { ours, theirs } => (3, ours, theirs),
            Self::Node { ours, theirs } => (4, u64::from(ours.0), u64::from(theirs.0)),
            Self::Directory { noted, theirs } => (5, noted.0, theirs.0),
            Self::Incarnation { newest, theirs } => (6, newest, theirs),
            Self::Recovery { newest, theirs } => (7, newest.0, theirs.0),
            Self::NoWitness { ours, theirs } => (8, ours.0, theirs.0),
        }
    }

    fn of_parts(reason: u32, ours: u64, theirs: u64) -> Option<Self> {
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        match reason {
            1 => Some(Self::Format { ours: narrow(ours), theirs: narrow(theirs) }),
            2 => Some(Self::Cluster { ours: ClusterId(ours), theirs: ClusterId(theirs) }),
            3 => Some(Self::Settings { ours, theirs }),
            4 => Some(Self::Node { ours: NodeId(narrow(ours)), theirs: NodeId(narrow(theirs)) }),
            5 => Some(Self::Directory { noted: DirectoryId(ours), theirs: DirectoryId(theirs) }),
            6 => Some(Self::Incarnation { newest: ours, theirs }),
            7 => Some(Self::Recovery { newest: RecoveredAt(ours), theirs: RecoveredAt(theirs) }),
            8 => Some(Self::NoWitness { ours: RecoveredAt(ours), theirs: DirectoryId(theirs) }),
            _ => None,
        }
    }

    /// The rejection in words, by the names of who refused and of who was refused: both ends say the same of
    /// the same node.
    #[must_use]
    pub fn text(&self, refuser: &str, refused: &str) -> String {
        match self {
            Self::Format { ours, theirs } => format!(
                "{refuser} speaks link format {ours}, {refused} speaks {theirs}: run one version on all nodes"
            ),
            Self::Cluster { ours, theirs } => format!(
                "{refuser} belongs to cluster {:016x}, {refused} to {:016x}: --cluster-name, --peers and \
                 --shards must be the same on all nodes when they are first started, and if one is restored \
                 from a backup, all must be restored from that same file",
                ours.0, theirs.0
            ),
            Self::Settings { ours, theirs } => format!(
                "{refuser} has cluster settings with hash {ours:016x}, {refused} with {theirs:016x}: \
                 --election-timeout-ms, --heartbeat-ms, lease_reads, --shards and the number of --peers must \
                 be the same on all nodes"
            ),
            Self::Node { ours, theirs } => format!(
                "{refuser} is node {ours} and was asked by {refused}, which says that it is node {theirs}: \
                 check --id and --peers"
            ),
            Self::Directory { noted, theirs } => format!(
                "{refuser} knows {refused} with data directory {:016x}, it came with {:016x}: the directory \
                 was replaced or wiped, and with it what {refused} has voted and acknowledged. Put the \
                 directory back that {refuser} knows. Where it is lost for good, start {refused} with \
                 --recover: it comes back under its id and holds nothing, neither votes nor acknowledges \
                 until the others have told it what it may have forgotten, and gets all data from them; the \
                 lost directory must never be used again. Only on a cluster that never held data: stop all \
                 nodes and delete all data directories",
                noted.0, theirs.0
            ),
            Self::Incarnation { newest, theirs } => format!(
                "{refuser} has heard of start {newest} of {refused}, which comes with start {theirs} of the \
                 same data directory: an older copy of it is in use, or two processes have a copy each. An \
                 older copy does not know what {refused} has voted and acknowledged since: put the newest \
                 one back. Where that is lost for good, move this one away and start {refused} with \
                 --recover"
            ),
            Self::Recovery { newest, theirs } => format!(
                "{refuser} knows {refused} with a data directory that was recovered at {} (in milliseconds \
                 since 1970), it came with one that was recovered at {}: that one was given up. Put the \
                 newer one back. Where it is lost, too, or the clock of this machine was behind, start \
                 {refused} with --recover and the right time, on an empty data directory if this one has \
                 voted",
                newest.0, theirs.0
            ),
            Self::NoWitness { theirs, .. } => format!(
                "{refuser} was recovered itself: it does not remember whether {refused} had another data \
                 directory before {:016x}, which is new, and cannot vouch for it. Where too few others can, \
                 start {refused} with --recover: it then gets from them what it may have forgotten",
                theirs.0
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_survives_the_way() {
        let hello = Hello {
            format: 1,
            node: NodeId(2),
            core: CoreId(3),
            nodes: 5,
            cluster: ClusterId(4),
            directory: DirectoryId(5),
            settings: 6,
            incarnation: 7,
            recovered_at: RecoveredAt(8),
            standing: Standing::Entitled,
        };
        let refused = |rejection, standing| Verdict::Rejected(Refusal { rejection, standing });
        let verdicts = [
            Verdict::Welcome(hello),
            refused(
                Rejection::Directory { noted: DirectoryId(8), theirs: DirectoryId(9) },
                Standing::Entitled,
            ),
            refused(
                Rejection::NoWitness { ours: RecoveredAt(8), theirs: DirectoryId(9) },
                Standing::Entitled,
            ),
            refused(Rejection::Settings { ours: 8, theirs: 9 }, Standing::New),
            refused(Rejection::Cluster { ours: ClusterId(8), theirs: ClusterId(9) }, Standing::New),
            refused(Rejection::Incarnation { newest: 9, theirs: 8 }, Standing::New),
            refused(
                Rejection::Recovery { newest: RecoveredAt(9), theirs: RecoveredAt(8) },
                Standing::Entitled,
            ),
            refused(Rejection::Format { ours: 8, theirs: 9 }, Standing::New),
            refused(Rejection::Node { ours: NodeId(8), theirs: NodeId(9) }, Standing::Entitled),
        ];
        for verdict in verdicts {
            assert_eq!(Verdict::decode(&verdict.encode()), Some(verdict));
        }
    }

    #[test]
    fn both_ends_name_the_same_values_for_the_same_node() {
        let (mine, other) = (hello_with_settings(1), hello_with_settings(2));
        let rejection = mine.compare(&other).expect("the settings differ");
        let (at_refuser, at_refused) =
            (rejection.text("this node", "node 2"), rejection.text("node 1", "this node"));
        assert!(at_refuser.contains("this node has cluster settings with hash 0000000000000001"));
        assert!(at_refuser.contains("node 2 with 0000000000000002"));
        assert!(at_refused.contains("node 1 has cluster settings with hash 0000000000000001"));
        assert!(at_refused.contains("this node with 0000000000000002"));
    }

    fn hello_with_settings(settings: u64) -> Hello {
        Hello {
            format: LINK_FORMAT,
            node: NodeId(u32::try_from(settings).expect("small")),
            core: CoreId(0),
            nodes: 3,
            cluster: ClusterId(4),
            directory: DirectoryId(5),
            settings,
            incarnation: 1,
            recovered_at: RecoveredAt::NEVER,
            standing: Standing::New,
        }
    }
}
