//! Damage to the files of one node: which, and where, drawn from the seed; and what may be asked of the node
//! afterwards.
//!
//! | what | where | shows |
//! |---|---|---|
//! | rot | a bit or a sector of a segment, a table, one copy of a manifest or identity | by a checksum |
//! | a bad block | of the same | when it is read, by an error |
//! | loss | a segment, a table, one copy of a manifest or identity | when it is opened |
//! | a stray write | any write | by a checksum or a number, unless it was the last of its file |
//!
//! There is damage that nothing on the disk can show: a lane's last batch that no other covers looks like a
//! tear where it rots, and like nothing at all where it never landed. Such a node may have forgotten what it
//! said, and does not know; so it is [doubted](Doubt): its next life ends before it speaks to anybody, and it
//! is recovered, as by somebody who does not trust the disk.

use std::path::PathBuf;

use distribkv::ids::NodeId;

use crate::cluster::Cluster;
use crate::disk::{Fault, Stray};
use crate::random::Random;

/// Blocks at the end of a log that may be those of its last batch, and some more.
const LAST_BLOCKS: u64 = 10;
const BLOCK: u64 = 4096;

/// Whether a node may have lost what it said without a trace on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It has not.
    #[default]
    None,
    /// It has, if its log ends with what looks like a tear.
    WhereCut,
    /// It may have.
    Always,
}

/// What happens to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// A bit turns over.
    Bit,
    /// A sector is spoilt.
    Sector,
    /// A block cannot be read any more.
    BadBlock,
    /// A file is gone.
    File,
    /// A write never lands.
    Lost,
    /// A write lands elsewhere in its file.
    Misdirected,
}

impl Decay {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Bit, Self::Sector, Self::BadBlock, Self::File, Self::Lost, Self::Misdirected];
}

/// A file of a node, and up to where something is written in it.
struct Used {
    path: PathBuf,
    written: u64,
    /// Whether it is one of the last segments of its lane.
    is_last: bool,
}

/// Lets the disk of a node decay; says what has become of it.
pub fn decay(cluster: &Cluster, node: NodeId, decay: Decay, random: &mut Random) -> Doubt {
    let disk = cluster.machine(node).disk();
    let stray = match decay {
        Decay::Bit | Decay::Sector | Decay::BadBlock | Decay::File => None,
        Decay::Lost => Some(Stray::Lost),
        Decay::Misdirected => Some(Stray::Elsewhere(random.draw())),
    };
    if let Some(stray) = stray {
        disk.fail(Fault::Astray { stray, after: random.below(30) });
        return Doubt::Always;
    }
    let files = used(cluster, node);
    if files.is_empty() {
        return Doubt::None;
    }
    let Used { path, written, is_last } = &files[random.index(files.len())];
    let at = random.below(*written);
    match decay {
        Decay::Bit => disk.flip_bit(path, at, (random.below(8)) as u8),
        Decay::Sector => disk.garble(path, at),
        Decay::BadBlock => disk.spoil_block(path, at),
        Decay::File | Decay::Lost | Decay::Misdirected => disk.lose_file(path),
    }
    let is_in_last = *is_last && at + LAST_BLOCKS * BLOCK >= *written;
    let looks_torn = matches!(decay, Decay::Bit | Decay::Sector);
    if is_in_last && looks_torn { Doubt::WhereCut } else { Doubt::None }
}

/// The files of a node that anything is written in. Of what is kept twice, only the first copy: one of the
/// two stays whole.
fn used(cluster: &Cluster, node: NodeId) -> Vec<Used> {
    let mut used = Vec::new();
    for dir in cluster.data_dirs(node) {
        let first = used.len();
        for (name, bytes) in cluster.machine(node).disk().files(&dir) {
            let is_segment = name.ends_with(".log");
            let is_kept = is_segment || name.ends_with("-a") || name.starts_with("table-");
            let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
            if is_kept && written > 0 {
                // A segment with nothing but its header is not where the log ends.
                let is_last = is_segment && written > BLOCK;
                used.push(Used { path: dir.join(name), written, is_last });
            }
        }
        for (later, file) in used[first..].iter_mut().rev().filter(|file| file.is_last).enumerate() {
            file.is_last = later < 2;
        }
    }
    used
}
