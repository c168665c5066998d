//! Directories and files by name: what is durable, and what waits for a sync of its directory.
//!
//! ```text
//! directory  durable { name → inode }      survives a power cut, where the directory itself does
//!            current { name → inode }      what is seen
//!            pending [ link | unlink | rename ]   each kept or lost by a power cut, those kept in order
//! ```
//!
//! Invariants:
//! - Applying all pending changes of a directory to `durable` gives `current`.
//! - An inode goes when neither a durable nor a current name leads to it and no handle is open on it.
//! - Syncing a directory says nothing of its own name in its parent.
//!
//! It deliberately has no links, no permissions, and no rename from one directory into another.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::contents::Contents;
use super::fate::Fates;
use super::{EEXIST, EISDIR, ENOENT, ENOTDIR, EXDEV, os_error};

/// A file or directory, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InodeId(pub(super) u64);

/// The directory that is always there, and always durable.
const ROOT: InodeId = InodeId(0);

/// What a name leads to.
enum Inode {
    File(Contents),
    Directory(Directory),
}

/// A directory: its names on the disk, its names as seen, and what lies between.
#[derive(Default)]
struct Directory {
    durable: BTreeMap<String, InodeId>,
    current: BTreeMap<String, InodeId>,
    pending: Vec<(u64, Change)>,
}

/// A change of a directory.
#[derive(Clone)]
enum Change {
    Link { name: String, inode: InodeId },
    Unlink { name: String },
    Rename { from: String, to: String, inode: InodeId },
}

impl Change {
    /// Makes the change in one view of the names. A name that is not there any more is none to remove.
    fn apply(&self, names: &mut BTreeMap<String, InodeId>) {
        match self {
            Self::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl Directory {
    /// Makes a change that is seen at once, and is durable after a sync.
    fn change(&mut self, sequence: u64, change: Change) {
        change.apply(&mut self.current);
        self.pending.push((sequence, change));
    }

    /// Makes durable what was changed up to a sequence number.
    fn sync(&mut self, through: u64) {
        let covered = self.pending.partition_point(|&(sequence, _)| sequence <= through);
        for (_, change) in self.pending.drain(..covered) {
            change.apply(&mut self.durable);
        }
    }

    /// Keeps or loses each change that was not synced: not only the last ones, as a journal would.
    fn power_cut(&mut self, fates: &Fates) {
        for (_, change) in std::mem::take(&mut self.pending) {
            if fates.choose(2) == 1 {
                change.apply(&mut self.durable);
            }
        }
        self.current = self.durable.clone();
    }
}

/// All names and inodes of a disk.
pub(super) struct Tree {
    inodes: BTreeMap<InodeId, Inode>,
    last: u64,
}

impl Tree {
    /// An empty root.
    pub(super) fn new() -> Self {
        Self { inodes: BTreeMap::from([(ROOT, Inode::Directory(Directory::default()))]), last: 0 }
    }

    /// A new inode, which no name leads to yet.
    fn add(&mut self, inode: Inode) -> InodeId {
        self.last += 1;
        self.inodes.insert(InodeId(self.last), inode);
        InodeId(self.last)
    }

    /// The contents of a file that is open or was found by name.
    pub(super) fn file(&self, id: InodeId) -> &Contents {
        match self.inodes.get(&id) {
            Some(Inode::File(contents)) => contents,
            Some(Inode::Directory(_)) | None => panic!("{id:?} is held as a file and is none"),
        }
    }

    /// The same, to change.
    pub(super) fn file_mut(&mut self, id: InodeId) -> &mut Contents {
        match self.inodes.get_mut(&id) {
            Some(Inode::File(contents)) => contents,
            Some(Inode::Directory(_)) | None => panic!("{id:?} is held as a file and is none"),
        }
    }

    /// A directory that a path goes through.
    fn directory(&self, id: InodeId) -> io::Result<&Directory> {
        match self.inodes.get(&id) {
            Some(Inode::Directory(directory)) => Ok(directory),
            Some(Inode::File(_)) | None => Err(os_error(ENOTDIR)),
        }
    }

    /// The same, to change.
    fn directory_mut(&mut self, id: InodeId) -> io::Result<&mut Directory> {
        match self.inodes.get_mut(&id) {
            Some(Inode::Directory(directory)) => Ok(directory),
            Some(Inode::File(_)) | None => Err(os_error(ENOTDIR)),
        }
    }

    /// What a path leads to.
    fn find(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = ROOT;
        for name in names(path) {
            at = *self.directory(at)?.current.get(&name).ok_or_else(|| os_error(ENOENT))?;
        }
        Ok(at)
    }

    /// The directory that a path lies in, and its name there.
    fn parent(&self, path: &Path) -> io::Result<(InodeId, String)> {
        let mut names = names(path);
        let name = names.pop().ok_or_else(|| os_error(EISDIR))?;
        let mut at = ROOT;
        for name in names {
            at = *self.directory(at)?.current.get(&name).ok_or_else(|| os_error(ENOENT))?;
        }
        self.directory(at)?;
        Ok((at, name))
    }

    /// A file by name.
    pub(super) fn find_file(&self, path: &Path) -> io::Result<InodeId> {
        let id = self.find(path)?;
        match self.inodes.get(&id) {
            Some(Inode::File(_)) => Ok(id),
            Some(Inode::Directory(_)) | None => Err(os_error(EISDIR)),
        }
    }

    /// A new, empty file.
    pub(super) fn create_file(&mut self, sequence: u64, path: &Path) -> io::Result<InodeId> {
        let (parent, name) = self.parent(path)?;
        if self.directory(parent)?.current.contains_key(&name) {
            return Err(os_error(EEXIST));
        }
        let inode = self.add(Inode::File(Contents::default()));
        self.directory_mut(parent)?.change(sequence, Change::Link { name, inode });
        Ok(inode)
    }

    /// A directory and its parents, those that are not there.
    pub(super) fn create_directories(&mut self, sequence: u64, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path) {
            let found = self.directory(at)?.current.get(&name).copied();
            at = match found {
                Some(inode) => inode,
                None => {
                    let inode = self.add(Inode::Directory(Directory::default()));
                    self.directory_mut(at)?.change(sequence, Change::Link { name, inode });
                    inode
                }
            };
        }
        self.directory(at).map(|_| ())
    }

    /// Gives a file another name in its directory, in place of whatever file had it: one change, kept or lost
    /// whole.
    pub(super) fn rename(&mut self, sequence: u64, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find_file(from)?;
        let (parent, from) = self.parent(from)?;
        let (target, to_name) = self.parent(to)?;
        if parent != target {
            return Err(os_error(EXDEV));
        }
        match self.find_file(to) {
            Err(error) if error.raw_os_error() == Some(EISDIR) => return Err(error),
            // Another file of that name goes; its inode stays as long as it is needed.
            Ok(_) | Err(_) => {}
        }
        let change = Change::Rename { from, to: to_name, inode };
        self.directory_mut(parent)?.change(sequence, change);
        Ok(())
    }

    /// Takes the name of a file away.
    pub(super) fn remove(&mut self, sequence: u64, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        let (parent, name) = self.parent(path)?;
        self.directory_mut(parent)?.change(sequence, Change::Unlink { name });
        Ok(())
    }

    /// The names in a directory, sorted.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let id = self.find(path)?;
        Ok(self.directory(id)?.current.keys().cloned().collect())
    }

    /// Makes changes of one directory durable; its own name in its parent is another matter.
    pub(super) fn sync_directory(&mut self, path: &Path, through: u64) -> io::Result<()> {
        let id = self.find(path)?;
        self.directory_mut(id)?.sync(through);
        Ok(())
    }

    /// Makes all names durable that are there: for what a run begins with.
    pub(super) fn settle_names(&mut self) {
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::Directory(directory) => directory.sync(u64::MAX),
                Inode::File(_) => {}
            }
        }
    }

    /// Leaves what a power cut leaves. Only what a kept name leads to asks for a choice.
    pub(super) fn power_cut(&mut self, fates: &mut Fates) {
        let mut reached = BTreeSet::new();
        let mut next = vec![ROOT];
        while let Some(id) = next.pop() {
            if !reached.insert(id) {
                continue;
            }
            match self.inodes.get_mut(&id) {
                Some(Inode::Directory(directory)) => {
                    directory.power_cut(fates);
                    next.extend(directory.durable.values());
                }
                Some(Inode::File(contents)) => contents.power_cut(fates),
                None => panic!("a name leads to {id:?}, which is not there"),
            }
        }
        self.inodes.retain(|id, _| reached.contains(id));
    }

    /// Lets go of inodes that nothing leads to, but those that are `held`.
    pub(super) fn collect(&mut self, held: impl Fn(InodeId) -> bool) {
        let mut reached: BTreeSet<InodeId> = BTreeSet::from([ROOT]);
        for inode in self.inodes.values() {
            match inode {
                Inode::Directory(directory) => {
                    reached.extend(directory.durable.values());
                    reached.extend(directory.current.values());
                    reached.extend(directory.pending.iter().filter_map(|(_, change)| change.leads_to()));
                }
                Inode::File(_) => {}
            }
        }
        self.inodes.retain(|&id, _| reached.contains(&id) || held(id));
    }

    /// The bytes that all files take, whole blocks of `block` each.
    pub(super) fn bytes_used(&self, block: u64) -> u64 {
        let files = self.inodes.values().map(|inode| match inode {
            Inode::File(contents) => contents.len().next_multiple_of(block),
            Inode::Directory(_) => 0,
        });
        files.sum()
    }

    /// Bytes of files that are not durable.
    pub(super) fn cached_bytes(&self) -> u64 {
        let files = self.inodes.values().map(|inode| match inode {
            Inode::File(contents) => contents.cached_bytes(),
            Inode::Directory(_) => 0,
        });
        files.sum()
    }
}

impl Change {
    /// The inode that this change gives a name.
    fn leads_to(&self) -> Option<InodeId> {
        match self {
            Self::Link { inode, .. } | Self::Rename { inode, .. } => Some(*inode),
            Self::Unlink { .. } => None,
        }
    }
}

/// The names of a path from the root; `.` and the root itself are none. A path is never relative to another
/// place.
fn names(path: &Path) -> Vec<String> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) | Component::ParentDir => None,
    });
    normal.collect()
}
