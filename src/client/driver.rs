//! Runs the policy under tokio: one task a client, which owns the policy and starts a task for each sending.
//!
//! Invariants:
//! - The policy is touched by this task alone.
//! - The queue of commands is bounded by [`COMMANDS_MAX`]; callers wait for room in it. Sendings are bounded
//!   by the policy's `calls_max`, and each ends by its own timeout.
//! - The task ends when every handle is gone, or one asked it to, and the policy is closed: at most one
//!   sending later.
//!
//! What it deliberately does not do: decide anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::channels::Channels;
use crate::client::error::Error;
use crate::client::message::{Action, AttemptId, CallId, Event, Request, Spec, Target};
use crate::client::operation::{Operation, Reply};
use crate::client::policy::Policy;
use crate::client::rpc;

/// The most commands that wait for the driver.
pub(super) const COMMANDS_MAX: usize = 1024;

/// What a handle asks of the driver.
pub(super) enum Command {
    /// A call, and where its end is told.
    Call(Spec<Operation>, oneshot::Sender<Result<Reply, Error>>),
    /// Finish the calls under way, close the sessions, then say so.
    Close(oneshot::Sender<()>),
}

/// What the driver goes on with.
enum Wake {
    Command(Command),
    HandlesGone,
    Ended(Event<Reply>),
    Due,
}

/// The task and what it owns.
pub(super) struct Driver {
    policy: Policy<Operation, Reply>,
    channels: Arc<Channels>,
    commands: mpsc::Receiver<Command>,
    handles: Handles,
    waiting: BTreeMap<CallId, oneshot::Sender<Result<Reply, Error>>>,
    closers: Vec<oneshot::Sender<()>>,
    flights: JoinSet<Event<Reply>>,
    started_at: Instant,
    chance: RandomState,
    draws: u64,
}

/// Whether anybody can still send a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handles {
    Some,
    Gone,
}

impl Driver {
    /// A driver that has not been started.
    pub(super) fn new(
        policy: Policy<Operation, Reply>,
        channels: Arc<Channels>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            policy,
            channels,
            commands,
            handles: Handles::Some,
            waiting: BTreeMap::new(),
            closers: Vec::new(),
            flights: JoinSet::new(),
            started_at: Instant::now(),
            chance: RandomState::new(),
            draws: 0,
        }
    }

    /// Runs until the client is closed.
    pub(super) async fn run(mut self) {
        while !self.policy.is_closed() {
            let wake = self.next().await;
            let (now, random) = (self.started_at.elapsed(), self.draw());
            match wake {
                Wake::Command(Command::Call(spec, reply)) => {
                    let call = self.policy.start(now, random, spec);
                    self.waiting.insert(call, reply);
                }
                Wake::Command(Command::Close(done)) => {
                    self.closers.push(done);
                    self.policy.close(now, random);
                }
                Wake::HandlesGone => {
                    self.handles = Handles::Gone;
                    self.policy.close(now, random);
                }
                Wake::Ended(event) => self.policy.event(now, random, event),
                Wake::Due => self.policy.tick(now, random),
            }
            self.act();
        }
        assert!(self.waiting.is_empty(), "{} callers wait for a client that is closed", self.waiting.len());
        self.turn_away().await;
        for closer in self.closers {
            // Whoever asked for it may have gone since.
            let _ = closer.send(());
        }
    }

    /// Tells those whose commands still wait that they came too late.
    async fn turn_away(&mut self) {
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Call(_, reply) => drop(reply.send(Err(Error::Reconnect))),
                Command::Close(done) => drop(done.send(())),
            }
        }
    }

    /// Waits for whatever comes first. Nothing is lost when the others are dropped: all of them may be waited
    /// for again.
    fn next(&mut self) -> impl Future<Output = Wake> {
        let due = self.policy.wake_at().map(|at| self.started_at + at);
        let Self { commands, flights, handles, .. } = self;
        async move {
            tokio::select! {
                command = commands.recv(), if *handles == Handles::Some => {
                    command.map_or(Wake::HandlesGone, Wake::Command)
                }
                Some(ended) = flights.join_next(), if !flights.is_empty() => {
                    // A sending whose task was ended counts as lost when its time is over.
                    ended.map_or(Wake::Due, Wake::Ended)
                }
                () = sleep_until(due) => Wake::Due,
            }
        }
    }

    /// Does what the policy wants done.
    fn act(&mut self) {
        while let Some(action) = self.policy.next_action() {
            match action {
                Action::Send { attempt, target, request, timeout } => {
                    self.send(attempt, target, request, timeout);
                }
                Action::Finish { call, result } => {
                    if let Some(reply) = self.waiting.remove(&call) {
                        // A caller that no longer waits has dropped its end.
                        let _ = reply.send(result);
                    }
                }
            }
        }
    }

    /// Starts the task of one sending.
    fn send(&mut self, attempt: AttemptId, target: Target, request: Request<Operation>, timeout: Duration) {
        let address = self.policy.address(target);
        match self.channels.to(&address) {
            Ok(channel) => {
                self.flights.spawn(rpc::attempt(channel, attempt, request, timeout));
            }
            Err(fault) => {
                let detail = fault.to_string();
                self.flights.spawn(async move { Event::Unreached { attempt, detail } });
            }
        }
    }

    /// A random number: a counter under the keyed hash of the standard library, whose key is of the system.
    fn draw(&mut self) -> u64 {
        self.draws += 1;
        self.chance.hash_one(self.draws)
    }
}

/// Sleeps, or waits for ever where there is nothing to wake up for.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
