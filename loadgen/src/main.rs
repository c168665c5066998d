//! The load generator of distribKV: how fast a cluster answers, told so that it can be trusted.
//!
//! It shares the machine with what it measures, so it speaks HTTP/2 by itself (see [`http2`]): a library
//! costs several times as much a call. Each thread is one engine: one future that polls its connections,
//! with no task and no allocation for a call. What it costs all the same is in the result.
//!
//! Invariants:
//! - A closed loop (`--in-flight`) times a call from the moment when its place was free; an open loop
//!   (`--rate`) from the moment when the schedule wanted it sent, whether or not it could be: a stalled
//!   server cannot hide. The service time, from when the call was sent, stands beside it.
//! - A call belongs to the measured window if it was meant to start in it; it is then waited for past the
//!   window's end.
//! - Every call is sent once. A failure is counted by its kind, never hidden by a retry (`--load` and
//!   `--preload` alone write again).
//! - Everything is bounded: calls, connections, bytes waiting for a socket, the time that a call may take.
//!
//! - With `--audit` it checks that a sample of the answers can be right (see [`audit`]).
//!
//! What it does not do: check every answer (the simulator and the process tests do).

mod answer;
mod args;
mod arrivals;
mod audit;
mod call;
mod compare;
mod connection;
mod control;
mod engine;
mod etcd;
mod header;
mod hgrm;
mod host;
mod html;
mod http2;
mod inserts;
mod interval_log;
mod json;
mod keys;
mod knee;
mod links;
mod live;
mod message;
mod method;
mod pipeline;
mod protobuf;
mod random;
mod ready;
mod record;
mod report;
mod revisions;
mod routing;
mod run;
mod schedule;
mod series;
mod several;
mod shared;
mod skim;
mod status;
mod timer;
mod told;
mod trace;
mod units;
mod usage;
mod values;
mod warnings;
mod watch;
mod workload;
mod zipfian;

#[cfg(test)]
mod testing;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings = match args::Settings::check(args::Args::parse()) {
        Ok(settings) => settings,
        Err(refused) => refused.exit(),
    };
    if let Some(wanted) = settings.find_max.clone() {
        return knee::run(settings, &wanted);
    }
    match settings.versus.clone() {
        Some(versus) => compare::run(settings, versus),
        None => run::run(settings),
    }
}
