//! The simulator of distribKV: whole clusters in one thread, on a simulated clock, disk and network.
//!
//! One seed gives one run, bit for bit: the world polls one task at a time, in an order drawn from the seed;
//! time stands still while anything can run, and then leaps to the next timer. The code under test is the
//! product's own, above [`distribkv::env::Env`]; what is simulated is what lies below that seam, and it is
//! made as hostile as the real thing may be.
//!
//! | module | what it is |
//! |---|---|
//! | [`random`] | the numbers of a seed, and choices that a small run can enumerate |
//! | [`trace`] | the running hash of everything that happened |
//! | [`executor`] | tasks, timers, clocks, crashes of processes |
//! | [`disk`] | a disk that outlives its node: page cache, torn writes, faults |
//! | [`env`](mod@env) | [`distribkv::env::Env`] on the three above |
//! | [`inspect`] | [`distribkv::inspect`] of a disk, between two lives |
//! | [`network`] | packets that are lost, late, repeated and reordered |
//! | [`history`], [`linear`] | what the clients saw, and whether one register could have answered so |
//! | [`cluster`] | the product's nodes on all that |
//! | [`clerk`], [`workload`] | the product's Clerk, and what clients do with it |
//! | [`nemesis`], [`decay`], [`observer`] | what goes wrong, and what must hold all the same |
//! | [`run`](mod@run) | one seed from beginning to end |
//!
//! Invariants:
//! - Nothing reads a real clock, a random state or an address of memory: the same seed gives the same trace
//!   hash.
//! - Nothing of a crashed process runs again: not its tasks, not its timers, not its way to disk and network.

pub mod clerk;
pub mod cluster;
pub mod decay;
pub mod disk;
pub mod env;
pub mod executor;
pub mod history;
pub mod inspect;
pub mod linear;
pub mod nemesis;
pub mod network;
pub mod observer;
pub mod random;
pub mod run;
pub mod story;
pub mod trace;
pub mod workload;

/// Plants the mistake of this name, of whichever module has it.
///
/// # Errors
/// Where there is none of that name, or this build has none at all.
pub fn plant(options: &mut run::Options, name: &str) -> Result<(), String> {
    #[cfg(debug_assertions)]
    {
        use distribkv::client::PlantedBug as Client;
        let clients =
            [Client::NotExecutedAfterLostSending, Client::ResendWithNewSequence, Client::AcknowledgedTooFar];
        options.planted_client = clients.into_iter().find(|bug| format!("client::{bug:?}") == name);
        if let Some(planted) = distribkv::host::node::Planted::named(name) {
            options.planted = planted;
        } else if options.planted_client.is_none() {
            return Err(format!("there is no planted bug {name:?}"));
        }
        Ok(())
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = options;
        Err(format!("{name}: a build that serves makes no mistakes on purpose; use --profile sim"))
    }
}
