//! Files and directories as one life of a node sees them: what the environment is made of.

use std::io;
use std::path::Path;
use std::rc::Rc;

use distribkv::env::OpenMode;

use super::Disk;
use super::action::{Action, Answer, Through};
use super::names::InodeId;
use super::settings::Kind;
use crate::executor::Group;

/// A file of a [`Disk`] that is open in one life of its node.
pub(crate) struct OpenFile {
    disk: Disk,
    group: Group,
    inode: InodeId,
    mode: OpenMode,
}

/// Files and directories, for the environment.
impl Disk {
    /// Opens or creates a file.
    pub(crate) async fn open(&self, group: Group, path: &Path, mode: OpenMode) -> io::Result<OpenFile> {
        match self.operate(group, Action::Open { path: path.to_path_buf(), mode }).await? {
            Answer::Opened(inode) => Ok(OpenFile { disk: self.clone(), group, inode, mode }),
            Answer::Done | Answer::Bytes(_) | Answer::Length(_) | Answer::Names(_) => {
                wrong_answer(Kind::Open)
            }
        }
    }

    /// The names in a directory.
    pub(crate) async fn list(&self, group: Group, dir: &Path) -> io::Result<Vec<String>> {
        match self.operate(group, Action::List { path: dir.to_path_buf() }).await? {
            Answer::Names(names) => Ok(names),
            Answer::Done | Answer::Bytes(_) | Answer::Length(_) | Answer::Opened(_) => {
                wrong_answer(Kind::List)
            }
        }
    }

    /// Makes a directory and its parents.
    pub(crate) async fn create_dir(&self, group: Group, dir: &Path) -> io::Result<()> {
        self.operate(group, Action::CreateDir { path: dir.to_path_buf() }).await.map(|_| ())
    }

    /// Renames a file within its directory.
    pub(crate) async fn rename(&self, group: Group, from: &Path, to: &Path) -> io::Result<()> {
        let action = Action::Rename { from: from.to_path_buf(), to: to.to_path_buf() };
        self.operate(group, action).await.map(|_| ())
    }

    /// Removes a file.
    pub(crate) async fn remove(&self, group: Group, path: &Path) -> io::Result<()> {
        self.operate(group, Action::Remove { path: path.to_path_buf() }).await.map(|_| ())
    }

    /// Makes durable what has changed in a directory until now.
    pub(crate) async fn sync_dir(&self, group: Group, dir: &Path) -> io::Result<()> {
        let through = self.inner.state.borrow().sequence;
        self.operate(group, Action::SyncDir { path: dir.to_path_buf(), through }).await.map(|_| ())
    }
}

impl OpenFile {
    /// Writes whole sectors; how far they go before this returns is a matter of the mode.
    pub(crate) async fn write(&self, pos: u64, data: Rc<[u8]>) -> io::Result<()> {
        assert!(self.mode != OpenMode::Read, "a write at {pos} of a file opened for reading");
        let through = if self.mode.is_durable() { Through::Disk } else { Through::Cache };
        self.operate(Action::Write { inode: self.inode, pos, data, through }).await.map(|_| ())
    }

    /// Reads; fewer bytes only where the file ends.
    pub(crate) async fn read(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        match self.operate(Action::Read { inode: self.inode, pos, len }).await? {
            Answer::Bytes(bytes) => Ok(bytes),
            Answer::Done | Answer::Length(_) | Answer::Opened(_) | Answer::Names(_) => {
                wrong_answer(Kind::Read)
            }
        }
    }

    /// Makes durable what has completed until now. Data of other handles on the file is covered too.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        let through = self.disk.inner.state.borrow().sequence;
        self.operate(Action::Sync { inode: self.inode, through }).await.map(|_| ())
    }

    /// Makes the file so long; the length is durable after a sync.
    pub(crate) async fn allocate(&self, len: u64) -> io::Result<()> {
        self.operate(Action::Allocate { inode: self.inode, len }).await.map(|_| ())
    }

    /// The length.
    pub(crate) async fn len(&self) -> io::Result<u64> {
        match self.operate(Action::Length { inode: self.inode }).await? {
            Answer::Length(len) => Ok(len),
            Answer::Done | Answer::Bytes(_) | Answer::Opened(_) | Answer::Names(_) => {
                wrong_answer(Kind::Read)
            }
        }
    }

    /// Says what closing says; the handle itself goes when it is dropped.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.operate(Action::Close).await.map(|_| ())
    }

    /// An operation of the life that opened the file.
    async fn operate(&self, action: Action) -> io::Result<Answer> {
        self.disk.operate(self.group, action).await
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if !self.disk.inner.world.is_alive(self.group) {
            return;
        }
        let mut state = self.disk.inner.state.borrow_mut();
        let left = state.open.get_mut(&self.inode).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            state.open.remove(&self.inode);
            state.collect();
        }
    }
}

/// [`State::perform`] answers each kind of action with its own kind of answer.
fn wrong_answer(kind: Kind) -> ! {
    panic!("a disk operation of kind {kind:?} was answered as another")
}
