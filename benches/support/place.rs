//! Where a bench that needs a disk runs: in a directory of its own, on an executor as a core has.

use std::path::Path;
use std::process::ExitCode;

use distribkv::env::executor::{CorePlacement, ExecutorOptions, start_executor};
use tempfile::TempDir;

/// A new directory below this one, which is made where it is missing. It goes with what is returned.
pub fn own_dir(dir: &Path) -> TempDir {
    std::fs::create_dir_all(dir).expect("the directory can be made");
    tempfile::tempdir_in(dir).expect("a directory can be made in it")
}

/// Runs a task on an executor to its end. A failure where it came to none, which is said.
pub fn on_executor<F>(name: &str, make_task: impl FnOnce() -> F + Send + 'static) -> ExitCode
where
    F: Future<Output = ()> + 'static,
{
    let options = ExecutorOptions::new(name, CorePlacement::Anywhere, 1);
    match start_executor(options, make_task).map(|thread| thread.join()) {
        Ok(Some(())) => return ExitCode::SUCCESS,
        Ok(None) => eprintln!("the executor ended early"),
        Err(error) => eprintln!("{error}"),
    }
    ExitCode::FAILURE
}
