//! The data directory of a node that does not run, as `kvserver verify` sees it.

use std::io;
use std::path::PathBuf;

use distribkv::ids::NodeId;
use distribkv::inspect::{Files, Report, verify};

use crate::cluster::Cluster;
use crate::disk::Disk;

/// The files of a directory on a simulated disk, with what is cached.
pub struct DiskFiles {
    disk: Disk,
    root: PathBuf,
}

impl DiskFiles {
    /// The files below a directory.
    #[must_use]
    pub fn new(disk: &Disk, root: PathBuf) -> Self {
        Self { disk: disk.clone(), root }
    }
}

impl Files for DiskFiles {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.names(&self.root.join(dir)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn len(&self, file: &str) -> io::Result<u64> {
        let bytes = self.disk.contents(&self.root.join(file)).ok_or(io::ErrorKind::NotFound)?;
        Ok(bytes.len() as u64)
    }

    fn read(&self, file: &str, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.disk.read_now(&self.root.join(file), at, len)
    }
}

/// Checks the data directory of a node.
///
/// # Errors
/// There is none.
pub fn check(cluster: &Cluster, node: NodeId) -> io::Result<Report> {
    verify(&DiskFiles::new(cluster.machine(node).disk(), cluster.data_dir(node)))
}
