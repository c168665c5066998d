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

    fn contents(&self, file: &str) -> io::Result<Vec<u8>> {
        self.disk.contents(&self.root.join(file)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Files for DiskFiles {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.names(&self.root.join(dir)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn len(&self, file: &str) -> io::Result<u64> {
        self.contents(file).map(|bytes| bytes.len() as u64)
    }

    fn read(&self, file: &str, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.contents(file)?;
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[from..from.saturating_add(len).min(bytes.len())].to_vec())
    }
}

/// Checks the data directory of a node.
///
/// # Errors
/// There is none.
pub fn check(cluster: &Cluster, node: NodeId) -> io::Result<Report> {
    verify(&DiskFiles::new(cluster.machine(node).disk(), cluster.data_dir(node)))
}
