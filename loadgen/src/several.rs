//! What a measurement of several runs has in common: the word that ends it, and the pause between runs.
//!
//! Invariant: a run that was cut short is no result: it ends in [`Stop::Interrupted`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::args::Settings;
use crate::record::Measured;
use crate::run::{self, Reached, RunError};

/// Why there is no run to be counted.
#[derive(Debug)]
pub enum Stop {
    /// Nobody wants it.
    Interrupted,
    /// It came to nothing.
    Failed(RunError),
}

/// Turns true with the first Ctrl-C. To be called on the supervisor's runtime.
pub fn stopped() -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.send_replace(true);
        }
        // Whoever waits for the word would take its end for one.
        std::future::pending::<()>().await;
    });
    stopped
}

/// Finds the cluster.
pub async fn reach(settings: &Settings, stopped: &mut watch::Receiver<bool>) -> Result<Reached, Stop> {
    tokio::select! {
        biased;
        Ok(_) = stopped.wait_for(|is_stopped| *is_stopped) => Err(Stop::Interrupted),
        reached = run::reach(settings) => reached.map_err(Stop::Failed),
    }
}

/// One run.
pub async fn measured(
    settings: &Arc<Settings>,
    stopped: &mut watch::Receiver<bool>,
) -> Result<Measured, Stop> {
    let reached = reach(settings, stopped).await?;
    let measured = run::measure(settings, reached, false).await;
    // What was cut short is no run to compare with a whole one, and no failure either.
    if *stopped.borrow() {
        return Err(Stop::Interrupted);
    }
    measured.map_err(Stop::Failed)
}

/// Waits.
pub async fn pause(span: Duration, stopped: &mut watch::Receiver<bool>) -> Result<(), Stop> {
    tokio::select! {
        Ok(_) = stopped.wait_for(|is_stopped| *is_stopped) => Err(Stop::Interrupted),
        () = sleep(span) => Ok(()),
    }
}
