//! kvctl: the cluster from the command line. This file is the way in and the exit codes; see `kvctl --help`.

mod args;
mod backup;
mod base64;
mod commands;
mod failure;
mod output;
mod stages;
mod tables;
mod txn_file;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kvctl: this process cannot start its event loop: {error}");
            return ExitCode::from(failure::UNAVAILABLE);
        }
    };
    match runtime.block_on(commands::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(line) = failure.line() {
                eprintln!("kvctl: {line}");
            }
            ExitCode::from(failure.code())
        }
    }
}
