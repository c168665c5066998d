//! The Clerk's policy against a small model of a cluster, over a network that loses, repeats and delays.
//!
//! One seed is one run: three nodes, two shards whose leaders move, sessions that end at any moment, and
//! sendings that are answered, refused, never delivered, delivered without an answer, delivered twice, or
//! delivered long after they were given up. Time is a number, so a run takes no time.
//!
//! Checked of every run:
//! - every change is applied at most once, and what was answered was applied and answered with its own
//!   answer;
//! - what ended in an error that says "not executed" was not applied, neither then nor by a sending that came
//!   late;
//! - no call outlives its deadline, and no live call is told that its answer was forgotten;
//! - `acknowledged` never passes a sequence whose caller still waits, and no session runs ahead of its
//!   window.
//!
//! Each planted bug of the policy must be found by these checks.

#![cfg(debug_assertions)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use distribkv::client::{
    Action, Answer, AttemptId, CallId, Config, Error, Event, Kind, PlantedBug, Policy, Reason, Refusal,
    Request, Route, ShardPlace, Spec, Stamp, Table, Target, slot_of,
};
use distribkv::ids::{NodeId, SessionId, ShardId};

const NODES: u32 = 3;
const SHARDS: u64 = 2;
const WINDOW_MAX: u64 = 8;
const CALLS: u64 = 150;
const SEEDS: u64 = 300;

type Check = Result<(), String>;

/// splitmix64: the same seed, the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn node(&mut self) -> NodeId {
        NodeId(1 + u32::try_from(self.below(u64::from(NODES))).expect("below NODES"))
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most + 1))
    }
}

/// One session of the model.
#[derive(Default)]
struct Session {
    acknowledged: u64,
    answers: BTreeMap<u64, (u64, u64)>,
}

/// One shard of the model: what was applied, in order, and its sessions.
struct Shard {
    leader: NodeId,
    applied: Vec<u64>,
    sessions: BTreeMap<u64, Session>,
    opened: u64,
}

impl Shard {
    fn apply(&mut self, change: u64) -> u64 {
        self.applied.push(change);
        u64::try_from(self.applied.len()).expect("a short run")
    }

    /// The contract's rules for a stamped change.
    fn change(&mut self, change: u64, stamp: Stamp) -> Result<u64, Reason> {
        let (sequence, acknowledged) = (stamp.sequence.0, stamp.acknowledged.0);
        let Some(session) = self.sessions.get_mut(&stamp.session.0) else {
            return Err(Reason::SessionExpired);
        };
        session.acknowledged = session.acknowledged.max(acknowledged);
        session.answers = session.answers.split_off(&(session.acknowledged + 1));
        match session.answers.get(&sequence) {
            Some((of, answer)) if *of == change => return Ok(*answer),
            Some(_) => return Err(Reason::SequenceReused),
            None if sequence <= session.acknowledged => return Err(Reason::SequenceForgotten),
            None if sequence > session.acknowledged + WINDOW_MAX => return Err(Reason::Overloaded),
            None => {}
        }
        self.applied.push(change);
        let answer = u64::try_from(self.applied.len()).expect("a short run");
        session.answers.insert(sequence, (change, answer));
        Ok(answer)
    }
}

/// What the network still has to do.
enum Pending {
    Deliver { attempt: Option<AttemptId>, target: Target, request: Request<u64> },
    Report(Event<u64>),
    Start(u64),
}

/// What is known of a call from outside the policy.
struct Call {
    change: u64,
    kind: Kind,
    shard: ShardId,
    deadline: Duration,
    stamp: Option<Stamp>,
    result: Option<Result<u64, Error>>,
}

struct World {
    dice: Dice,
    now: Duration,
    policy: Policy<u64, u64>,
    shards: BTreeMap<ShardId, Shard>,
    pending: BTreeMap<(Duration, u64), Pending>,
    queued: u64,
    calls: BTreeMap<CallId, Call>,
    attempts: BTreeMap<AttemptId, CallId>,
}

/// The key of a shard of two halves of the slots.
fn shard_of(key: &[u8]) -> ShardId {
    ShardId(u32::from(slot_of(key).0) / 8192)
}

fn key_of(change: u64) -> Vec<u8> {
    format!("key{}", change % 7).into_bytes()
}

impl World {
    fn new(seed: u64, planted_bug: Option<PlantedBug>) -> Self {
        let config = Config {
            window_max: WINDOW_MAX,
            session_ttl: Duration::from_secs(5),
            attempt_timeout: Duration::from_millis(200),
            planted_bug,
            ..Config::default()
        };
        let mut dice = Dice(seed);
        let shards = (0..2).map(|shard| {
            let leader = dice.node();
            (ShardId(shard), Shard { leader, applied: Vec::new(), sessions: BTreeMap::new(), opened: 0 })
        });
        let shards = shards.collect();
        let policy = Policy::new(config, &["n1:1".to_owned(), "n2:1".to_owned()]);
        let (pending, calls, attempts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { dice, now: Duration::ZERO, policy, shards, pending, queued: 0, calls, attempts }
    }

    fn run(&mut self) -> Check {
        for change in 0..CALLS {
            let at = self.dice.millis(3000);
            self.later(at, Pending::Start(change));
        }
        while self.step()? {
            self.disturb();
            self.act()?;
        }
        self.check_end()
    }

    /// Moves on to whatever is due next; false: nothing ever will be.
    fn step(&mut self) -> Result<bool, String> {
        let done =
            self.calls.len() == usize::try_from(CALLS).expect("small") && self.policy.calls_under_way() == 0;
        // A policy that serves keeps its sessions alive for ever.
        let wake_at = self.policy.wake_at().filter(|_| !done);
        let network_at = self.pending.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = wake_at.into_iter().chain(network_at).min() else { return Ok(false) };
        self.now = self.now.max(next);
        let random = self.dice.roll();
        if wake_at.is_some_and(|at| at <= self.now) {
            self.policy.tick(self.now, random);
            return Ok(true);
        }
        let Some((_, pending)) = self.pending.pop_first() else { return Ok(false) };
        match pending {
            Pending::Start(change) => self.start(change),
            Pending::Report(event) => self.policy.event(self.now, random, event),
            Pending::Deliver { attempt, target, request } => self.deliver(attempt, target, request)?,
        }
        Ok(true)
    }

    fn start(&mut self, change: u64) {
        let kind =
            [Kind::Write, Kind::Write, Kind::Write, Kind::WriteOnce, Kind::Read][(change % 5) as usize];
        let timeout = Duration::from_millis(300) + self.dice.millis(4000);
        let key = key_of(change);
        let shard = shard_of(&key);
        let spec = Spec { kind, route: Route::Key(key.into()), payload: change, timeout };
        let random = self.dice.roll();
        let id = self.policy.start(self.now, random, spec);
        let deadline = self.now + timeout;
        self.calls.insert(id, Call { change, kind, shard, deadline, stamp: None, result: None });
    }

    /// Leaders move and sessions end.
    fn disturb(&mut self) {
        for shard in self.shards.values_mut() {
            if self.dice.percent(2) {
                shard.leader = self.dice.node();
            }
            if self.dice.percent(1) {
                shard.sessions.pop_first();
            }
        }
    }

    fn act(&mut self) -> Check {
        while let Some(action) = self.policy.next_action() {
            match action {
                Action::Send { attempt, target, request, timeout } => {
                    if timeout.is_zero() {
                        return Err(format!("{attempt:?} is sent without any time"));
                    }
                    self.check_stamp(attempt, &request)?;
                    self.send(attempt, target, request);
                }
                Action::Finish { call, result } => self.finish(call, result)?,
            }
        }
        Ok(())
    }

    fn finish(&mut self, id: CallId, result: Result<u64, Error>) -> Check {
        let Some(call) = self.calls.get_mut(&id) else {
            return Err(format!("{id:?} finishes and was never started"));
        };
        if self.now > call.deadline {
            return Err(format!("{id:?} outlived its deadline {:?}: {:?}", call.deadline, self.now));
        }
        match call.result.replace(result) {
            None => Ok(()),
            Some(first) => Err(format!("{id:?} finishes twice, at first with {first:?}")),
        }
    }

    /// What the fields of a stamp promise, against what the callers have been told.
    fn check_stamp(&mut self, attempt: AttemptId, request: &Request<u64>) -> Check {
        let Request::Call { payload, stamp } = request else { return Ok(()) };
        let found = self.calls.iter_mut().find(|(_, call)| call.change == *payload);
        let Some((id, call)) = found else { return Err(format!("nobody asked for change {payload}")) };
        self.attempts.insert(attempt, *id);
        if call.result.is_some() {
            return Err(format!("{id:?} is sent again after its end"));
        }
        if (call.kind == Kind::Write) != stamp.is_some() {
            return Err(format!("{id:?}, a {:?}, is sent with {stamp:?}", call.kind));
        }
        let Some(stamp) = *stamp else { return Ok(()) };
        call.stamp = Some(stamp);
        if stamp.sequence.0 <= stamp.acknowledged.0 || stamp.sequence.0 - stamp.acknowledged.0 > WINDOW_MAX {
            return Err(format!("{stamp:?} is outside its window of {WINDOW_MAX}"));
        }
        let live = self.calls.values().filter(|call| call.result.is_none()).filter_map(|call| call.stamp);
        let passed = live
            .into_iter()
            .find(|other| other.session == stamp.session && other.sequence.0 <= stamp.acknowledged.0);
        passed.map_or(Ok(()), |passed| Err(format!("{stamp:?} acknowledges what {passed:?} waits for")))
    }

    /// Draws what becomes of a sending.
    fn send(&mut self, attempt: AttemptId, target: Target, request: Request<u64>) {
        let stamped = !matches!(request, Request::Call { stamp: None, .. });
        let there = self.dice.millis(5);
        let deliver = |attempt| Pending::Deliver { attempt, target, request: request.clone() };
        let lost = || Pending::Report(Event::Lost { attempt, detail: String::new() });
        let unreached = || Pending::Report(Event::Unreached { attempt, detail: String::new() });
        match self.dice.below(100) {
            0..70 => self.later(there, deliver(Some(attempt))),
            70..75 => self.later(there, deliver(None)),
            75..80 => {
                self.later(there, deliver(None));
                self.later(there * 2, lost());
            }
            80..85 => self.later(there, lost()),
            85..90 => self.later(there, unreached()),
            90..95 => {
                let late = self.dice.millis(5000);
                self.later(late, deliver(None));
                self.later(there, lost());
            }
            // A transport does not repeat; whoever passes a request on may, when it is stamped.
            _ if stamped => {
                let late = self.dice.millis(5000);
                self.later(there, deliver(Some(attempt)));
                self.later(late, deliver(None));
            }
            _ => {}
        }
    }

    fn later(&mut self, delay: Duration, pending: Pending) {
        self.queued += 1;
        self.pending.insert((self.now + delay, self.queued), pending);
    }

    /// A sending arrives at a node; with an attempt, its outcome goes back.
    fn deliver(&mut self, attempt: Option<AttemptId>, target: Target, request: Request<u64>) -> Check {
        let address = self.policy.address(target);
        let node = NodeId(u32::from(address.as_bytes()[1] - b'0'));
        let outcome = self.serve(node, request);
        let Some(attempt) = attempt else { return Ok(()) };
        if let Err(refusal) = &outcome
            && refusal.reason == Reason::SequenceForgotten
            && self.attempts.get(&attempt).is_some_and(|id| self.calls[id].result.is_none())
        {
            return Err(format!("{attempt:?} of a live call is told that its answer is forgotten"));
        }
        let back = self.dice.millis(5);
        let report = match outcome {
            Ok(answer) => Event::Answered { attempt, answer },
            Err(refusal) => Event::Refused { attempt, refusal },
        };
        self.later(back, Pending::Report(report));
        Ok(())
    }

    fn serve(&mut self, node: NodeId, request: Request<u64>) -> Result<Answer<u64>, Refusal> {
        if self.dice.percent(6) {
            let reasons = [Reason::NoLeader, Reason::Overloaded, Reason::ShuttingDown, Reason::Limit];
            let retry_after = self.dice.percent(30).then_some(Duration::from_secs(5));
            return Err(Refusal { retry_after, ..Refusal::of(reasons[self.dice.below(4) as usize]) });
        }
        let shard = match &request {
            Request::Shards => return Ok(Answer::Table(self.table())),
            Request::Call { payload, .. } => shard_of(&key_of(*payload)),
            Request::Open { key, .. } => shard_of(key),
            Request::KeepAlive { session, .. } | Request::Close { session } => {
                ShardId(u32::try_from(session.0 % SHARDS).expect("small"))
            }
        };
        let (refuses, hints, stale) = (self.dice.percent(50), self.dice.percent(70), self.dice.node());
        let shard_state = self.shards.get_mut(&shard).expect("one of two shards");
        if shard_state.leader != node && refuses {
            let leader = if hints { shard_state.leader } else { stale };
            return Err(Refusal { leader: Some(leader), ..Refusal::of(Reason::NotLeader) });
        }
        lead(shard, shard_state, request)
    }

    fn table(&mut self) -> Table {
        let leader = |shard: u32| self.shards.get(&ShardId(shard)).map(|shard| shard.leader);
        let shards = vec![
            ShardPlace { shard: ShardId(0), first_slot: 0, last_slot: 8191, leader: leader(0) },
            ShardPlace { shard: ShardId(1), first_slot: 8192, last_slot: 16383, leader: leader(1) },
        ];
        let nodes = (1..=NODES).map(|node| (NodeId(node), format!("n{node}:1")));
        Table::new(shards, nodes.collect()).expect("two halves")
    }

    fn check_end(&self) -> Check {
        for (id, call) in &self.calls {
            let Some(result) = &call.result else { return Err(format!("{id:?} never finished")) };
            let applied = &self.shards[&call.shard].applied;
            let times = applied.iter().filter(|change| **change == call.change).count();
            let changes = call.kind != Kind::Read;
            match result {
                Ok(_) | Err(_) if times > 1 => return Err(format!("{id:?} was applied {times} times")),
                Ok(answer) if changes && applied.get(*answer as usize - 1) != Some(&call.change) => {
                    return Err(format!("{id:?} got the answer {answer} of another call"));
                }
                Err(error) if !changes && !error.is_not_executed() => {
                    return Err(format!("{id:?}, a read, ends in {error:?}"));
                }
                Err(error) if error.is_not_executed() && times > 0 => {
                    return Err(format!("{id:?} was applied and ends in {error:?}"));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// What the leader of a shard answers.
fn lead(id: ShardId, shard: &mut Shard, request: Request<u64>) -> Result<Answer<u64>, Refusal> {
    let call = |answer, leader| Answer::Call { answer, served_by: Some(leader) };
    let ttl = Duration::from_secs(5);
    match request {
        Request::Call { payload, stamp: Some(stamp) } => {
            let answer = shard.change(payload, stamp).map_err(Refusal::of)?;
            Ok(call(answer, shard.leader))
        }
        Request::Call { payload, stamp: None } if payload % 5 == 3 => {
            let answer = shard.apply(payload);
            Ok(call(answer, shard.leader))
        }
        Request::Call { stamp: None, .. } => Ok(call(0, shard.leader)),
        Request::Open { .. } => {
            shard.opened += 1;
            let session = shard.opened * SHARDS + u64::from(id.0);
            shard.sessions.insert(session, Session::default());
            Ok(Answer::Opened { session: SessionId(session), ttl, shard: id })
        }
        Request::KeepAlive { session, acknowledged } => match shard.sessions.get_mut(&session.0) {
            Some(session) => {
                session.acknowledged = session.acknowledged.max(acknowledged.0);
                Ok(Answer::KeptAlive { ttl })
            }
            None => Err(Refusal::of(Reason::SessionExpired)),
        },
        Request::Close { session } => {
            shard.sessions.remove(&session.0);
            Ok(Answer::Closed)
        }
        Request::Shards => unreachable!("any node answers that by itself"),
    }
}

fn run(seed: u64, planted_bug: Option<PlantedBug>) -> (World, Check) {
    let mut world = World::new(seed, planted_bug);
    let check = world.run();
    (world, check)
}

#[test]
fn every_change_happens_at_most_once_and_every_error_is_true() {
    let mut seen = BTreeSet::new();
    let mut finished = 0;
    for seed in 0..SEEDS {
        let (world, check) = run(seed, None);
        if let Err(fault) = check {
            panic!("seed {seed}: {fault}");
        }
        for call in world.calls.values() {
            finished += 1;
            seen.insert(match call.result.as_ref().expect("checked") {
                Ok(_) => "answered",
                Err(Error::TryAgain { .. }) => "try again",
                Err(Error::SlowDown { .. }) => "slow down",
                Err(Error::ChangeRequest { .. }) => "change request",
                Err(Error::CheckOutcome { .. }) => "check outcome",
                Err(Error::FreeSpace { .. } | Error::Reconnect) => "not of this model",
            });
        }
    }
    let all = ["answered", "change request", "check outcome", "slow down", "try again"];
    assert_eq!(seen, BTreeSet::from(all), "the runs do not reach every end");
    assert_eq!(finished, SEEDS * CALLS);
}

#[test]
fn one_seed_is_one_run() {
    let ends =
        |seed| run(seed, None).0.calls.into_iter().map(|(id, call)| (id, call.result)).collect::<Vec<_>>();
    assert_eq!(ends(7), ends(7));
    assert_ne!(ends(7), ends(8));
}

#[test]
fn planted_bugs_are_found() {
    for bug in [
        PlantedBug::NotExecutedAfterLostSending,
        PlantedBug::ResendWithNewSequence,
        PlantedBug::AcknowledgedTooFar,
    ] {
        let found = (0..SEEDS).find_map(|seed| run(seed, Some(bug)).1.err());
        assert!(found.is_some(), "{bug:?} is not found in {SEEDS} seeds");
    }
}
