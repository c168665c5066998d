//! `kvserver restore`: makes the data directory of one node from a backup, and ends.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use distribkv::config::Settings;
use distribkv::env::executor::{CorePlacement, ExecutorOptions, start_executor};
use distribkv::env::glommio::GlommioEnv;
use distribkv::host::exit::Exit;
use distribkv::host::restore::{Restored, restore, restored_text};
use distribkv::ids::NodeId;

use crate::args::RestoreArgs;
use crate::placement::cores_of;
use crate::serve::{LOCK_FILE, follow_parent, lock, start_logging};

/// Restores a node; what the process ends with.
pub fn run(args: &RestoreArgs) -> Result<(), Exit> {
    let settings = args.node.settings().map_err(Exit::Usage)?;
    follow_parent(args.node.die_with_parent)?;
    start_logging(&settings)?;
    let backup = File::open(&args.from)
        .map_err(|source| Exit::Io { what: format!("--from {}", args.from.display()), source })?;
    let dir = settings.data_dir();
    check_empty(&dir)?;
    let _lock = lock(&settings)?;
    let (node, nodes) = (NodeId(settings.node.id), settings.cluster.peers.len());
    let restored = restore_on_executor(settings, backup, &args.from)?;
    let nodes = u32::try_from(nodes).expect("validated to be few");
    println!("kvserver restore: {}", restored_text(&restored, node, nodes));
    Ok(())
}

/// Nothing may be in the directory: what is there would be part of what is restored.
fn check_empty(dir: &Path) -> Result<(), Exit> {
    let failed = |source| Exit::Io { what: format!("data directory {}", dir.display()), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        if entry.map_err(failed)?.file_name() != LOCK_FILE {
            return Err(Exit::Usage(format!(
                "--data-dir {} is not empty: a node is restored into a directory of its own. Nothing was \
                 changed",
                dir.display()
            )));
        }
    }
    Ok(())
}

fn restore_on_executor(settings: Settings, backup: File, from: &Path) -> Result<Restored, Exit> {
    let (cores, from) = (cores_of(&settings)?, from.to_path_buf());
    let (sender, outcome) = mpsc::channel();
    let options = ExecutorOptions::new("kv-restore", CorePlacement::Anywhere, 1);
    let thread = start_executor(options, move || async move {
        let restored = restore_here(&settings, cores, &backup, from).await;
        // An exit may hold what cannot leave its thread: what it says can.
        let restored = restored.map_err(|exit| (exit.code(), exit.to_string()));
        // Who started this waits for it.
        let _ = sender.send(restored);
    });
    let _thread = thread.map_err(Exit::Executor)?;
    let gone = |_| Exit::Said { code: 1, text: "the executor ended without a word".into() };
    outcome.recv().map_err(gone)?.map_err(|(code, text)| Exit::Said { code, text })
}

async fn restore_here(
    settings: &Settings,
    cores: u32,
    backup: &File,
    from: PathBuf,
) -> Result<Restored, Exit> {
    let env = GlommioEnv::new().map_err(|source| Exit::Io { what: "starting an executor".into(), source })?;
    let restored = restore(&env, settings, cores, backup).await;
    restored.map_err(|source| Exit::Restore { from, dir: settings.data_dir(), source })
}
