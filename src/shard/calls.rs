//! The calls that this core's edge has in flight: to whom each was sent, and what to do when no answer comes.
//!
//! ```text
//!             leader known                     answer
//!   ─► parked ────────────► sent (to, term) ────────────► finished
//!        ▲   before the deadline: NO_LEADER     │
//!        └── not proposed; lost, and may be ────┤ lost, and may not be sent again: OUTCOME_UNKNOWN
//!            sent again                         └ deadline: DEADLINE_EXCEEDED
//! ```
//!
//! Invariants:
//! - Each sending has a number of its own, so that a late answer to an earlier one is not taken for the later
//!   one's; an answer to an earlier life of the process is nobody's.
//! - A change is sent again only after "not proposed" or with a request id (the state machine then applies it
//!   once).
//! - After a sending that ended without an answer, a change ends in its stored answer, or its outcome is
//!   unknown.
//! - At most `calls_max` calls are held, so that the place of every answer is reserved when its call is taken
//!   in.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::env::Instant;
use crate::env::signal::{AnswerReceiver, AnswerSender, answer};
use crate::ids::{NodeId, ShardId, Term};
use crate::kv::Command;
use crate::route::call::{Answered, Consistency, Failure, FailureKind, Request};
use crate::route::parcel::{Call, CallId, Order, Reply};
use crate::shard::config::{Config, PlantedBug};
use crate::shard::directory::Directory;
use crate::shard::pipeline::{Member, Orders};

/// What a call ends in.
pub(crate) type Outcome = Result<Answered, Failure>;

/// A call that is on its way, and the node it goes to.
pub(crate) type Sending = (NodeId, Call);

/// A call that has no answer yet.
pub(crate) struct Pending {
    pub(crate) shard: ShardId,
    pub(crate) request: Request,
    pub(crate) deadline: Instant,
    /// From when on it is said that no leader was found.
    hopeless_at: Instant,
    sender: AnswerSender<Outcome>,
    pub(crate) was_lost: bool,
    pub(crate) member: Option<Member>,
    to: NodeId,
    term: Term,
    sent_at: Instant,
    /// How often it was sent because no answer came.
    resends: u32,
    /// Who refused it last, and in which term: nobody is asked again at once who has just refused.
    refused_by: Option<(NodeId, Term)>,
    rests_until: Instant,
}

/// The calls of one core.
pub(crate) struct Calls {
    config: Rc<Config>,
    last_number: u64,
    count: usize,
    sent: BTreeMap<u64, Pending>,
    parked: BTreeMap<ShardId, VecDeque<Pending>>,
    parked_count: usize,
    orders: Orders,
}

/// What a moment means to the calls: the time, and who leads.
pub(crate) struct Moment<'a> {
    pub(crate) now: Instant,
    pub(crate) directory: &'a Directory,
}

impl Calls {
    pub(crate) fn new(config: Rc<Config>) -> Self {
        Self {
            config,
            last_number: 0,
            count: 0,
            sent: BTreeMap::new(),
            parked: BTreeMap::new(),
            parked_count: 0,
            orders: Orders::default(),
        }
    }

    /// How many have no answer yet.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Numbers a new stream of ordered calls.
    pub(crate) fn open_stream(&mut self) -> u64 {
        self.orders.open()
    }

    /// No more calls come on this stream.
    pub(crate) fn end_stream(&mut self, stream: u64) {
        self.orders.end(stream);
    }

    /// Takes a call in and sends it, or parks it until a leader is known.
    pub(crate) fn start(
        &mut self,
        (shard, mut request): (ShardId, Request),
        deadline: Instant,
        stream: Option<u64>,
        moment: &Moment<'_>,
        out: &mut Vec<Sending>,
    ) -> AnswerReceiver<Outcome> {
        let (sender, receiver) = answer();
        if self.config.is_planted(PlantedBug::ReadServedByAnyNode)
            && let Request::Query { consistency, .. } = &mut request
        {
            *consistency = Consistency::Stale;
        }
        if self.count >= self.config.limits.calls_max {
            sender.send(Err(Failure::of(FailureKind::Overloaded)));
            return receiver;
        }
        self.count += 1;
        let member = stream.map(|stream| self.orders.join(stream, shard));
        assert!(self.count <= self.config.limits.calls_max, "{} calls are held", self.count);
        let pending = Pending {
            shard,
            request,
            deadline,
            hopeless_at: hopeless_at(moment.now, deadline, self.config.times.tick),
            sender,
            was_lost: false,
            member,
            to: self.config.node(),
            term: Term(0),
            sent_at: moment.now,
            resends: 0,
            refused_by: None,
            rests_until: moment.now,
        };
        match pending.member {
            Some(member) => {
                self.orders.queue(member, pending);
                self.pump(member, moment, out);
            }
            None if self.has_parking() || self.target(&pending, moment).is_some() => {
                self.send_or_park(pending, moment, out);
            }
            None => self.finish(pending, Err(Failure::of(FailureKind::Overloaded))),
        }
        receiver
    }

    /// Whether a new call may wait until its shard has a leader. Those that do may take half of all places,
    /// or shards without a leader would close the node to the others.
    fn has_parking(&self) -> bool {
        self.parked_count < self.config.limits.calls_max.div_ceil(2)
    }

    /// An answer arrived.
    pub(crate) fn reply(&mut self, reply: Reply, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        if !self.is_ours(&reply.id) {
            return;
        }
        let Some(mut pending) = self.sent.remove(&reply.id.number) else { return };
        let is_unknown =
            matches!(&reply.outcome, Err(failure) if failure.kind == FailureKind::OutcomeUnknown);
        let is_unproposed =
            matches!(&reply.outcome, Err(failure) if failure.kind == FailureKind::NotProposed);
        if is_unknown {
            self.lost(pending, moment, out);
        } else if is_unproposed {
            match pending.member {
                Some(member) => {
                    self.orders.refused(member, Some(pending));
                    self.pump(member, moment, out);
                }
                None => {
                    pending.refused_by = Some((pending.to, pending.term));
                    pending.rests_until =
                        moment.now + self.config.times.tick * self.config.times.heartbeat_ticks;
                    self.send_or_park(pending, moment, out);
                }
            }
        } else {
            if let Some(member) = pending.member.take() {
                match &reply.outcome {
                    Ok(_) | Err(Failure { kind: FailureKind::Refused(_), .. }) => {
                        self.orders.answered(member)
                    }
                    Err(_) => self.orders.refused(member, None),
                }
                self.pump(member, moment, out);
            }
            self.finish(pending, reply.outcome);
        }
    }

    /// The link to `node` went down: what was sent to it and not answered is lost.
    pub(crate) fn link_down(&mut self, node: NodeId, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        let numbers: Vec<u64> =
            self.sent.iter().filter(|(_, pending)| pending.to == node).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(pending) = self.sent.remove(&number) {
                self.lost(pending, moment, out);
            }
        }
    }

    /// Who leads a shard has changed: what waits for that is sent, and what its old leader holds may be sent
    /// again.
    pub(crate) fn leader_changed(&mut self, shard: ShardId, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        let known = moment.directory.known(shard);
        if known.leader.is_none() {
            return;
        }
        let deposed: Vec<u64> = self
            .sent
            .iter()
            .filter(|(_, pending)| pending.shard == shard && pending.term < known.term)
            .filter(|(_, pending)| pending.to != known.leader.unwrap_or(pending.to))
            .filter(|(_, pending)| pending.may_be_sent_again(&self.config))
            .map(|(number, _)| *number)
            .collect();
        for number in deposed {
            if let Some(pending) = self.sent.remove(&number) {
                self.lost(pending, moment, out);
            }
        }
        self.unpark(shard, moment, out);
        self.orders.rested(Some(shard));
        self.pump_all(moment, out);
    }

    /// Time passes: deadlines, second sendings, and another look at what is parked.
    pub(crate) fn tick(&mut self, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        self.expire_sent(moment, out);
        self.check();
        let shards: Vec<ShardId> = self.parked.keys().copied().collect();
        for shard in shards {
            self.expire_parked(shard, moment.now);
            self.unpark(shard, moment, out);
        }
        for pending in self.orders.take_expired(|pending| pending.is_idle(moment.now)) {
            self.give_up(pending);
        }
        self.orders.rested(None);
        self.pump_all(moment, out);
    }

    /// Ends every call that has not been sent, for the node is going away.
    pub(crate) fn shut_down(&mut self) {
        let parked: Vec<Pending> = std::mem::take(&mut self.parked).into_values().flatten().collect();
        self.parked_count = 0;
        for pending in parked {
            self.finish(pending, Err(Failure::of(FailureKind::ShuttingDown)));
        }
    }

    /// What holds between any two events.
    fn check(&self) {
        let parked: usize = self.parked.values().map(VecDeque::len).sum();
        assert_eq!(parked, self.parked_count, "calls that wait for a leader are counted");
        let held = parked + self.sent.len();
        assert!(held <= self.count, "{held} calls are parked or sent, {} are held in all", self.count);
        let newest = self.sent.last_key_value().map_or(0, |(number, _)| *number);
        assert!(
            newest <= self.last_number,
            "call {newest} was sent, the last number is {}",
            self.last_number
        );
    }

    /// Whether this life of this core made the call: numbers begin anew with each life.
    fn is_ours(&self, id: &CallId) -> bool {
        let (node, core) = (self.config.node(), self.config.core());
        id.node == node && id.core == core && id.incarnation == self.config.incarnation
    }

    fn send_or_park(&mut self, pending: Pending, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        let target = self.target(&pending, moment);
        match target.filter(|(to, term)| pending.may_go_to((*to, term.unwrap_or_default()), moment.now)) {
            Some((to, term)) => self.send(pending, (to, term), None, moment, out),
            None => {
                self.parked_count += 1;
                self.parked.entry(pending.shard).or_default().push_back(pending);
            }
        }
    }

    /// Where a call goes: to the leader, a stale read to this very node. In a stream stale reads go the way
    /// of the others where there is one: each change of the node would wait for all that is under way.
    fn target(&self, pending: &Pending, moment: &Moment<'_>) -> Option<(NodeId, Option<Term>)> {
        let known = moment.directory.known(pending.shard);
        let to_leader = known.leader.map(|leader| (leader, Some(known.term)));
        match pending.request {
            Request::Query { consistency: Consistency::Stale, .. } => {
                let is_anywhere = self.config.is_planted(PlantedBug::ReadServedByAnyNode);
                let in_stream = to_leader.filter(|_| pending.member.is_some() && !is_anywhere);
                Some(in_stream.map_or((self.config.node(), None), |(leader, _)| (leader, None)))
            }
            Request::Query { consistency: Consistency::Linearizable, .. }
            | Request::Command(_)
            | Request::Transfer { .. } => to_leader,
        }
    }

    fn send(
        &mut self,
        mut pending: Pending,
        (to, term): (NodeId, Option<Term>),
        order: Option<Order>,
        moment: &Moment<'_>,
        out: &mut Vec<Sending>,
    ) {
        self.last_number += 1;
        let call = Call {
            id: CallId {
                node: self.config.node(),
                incarnation: self.config.incarnation,
                core: self.config.core(),
                number: self.last_number,
            },
            shard: pending.shard,
            term,
            remaining: pending.deadline.since(moment.now),
            order,
            request: pending.request.clone(),
        };
        pending.to = to;
        pending.term = term.unwrap_or_default();
        pending.sent_at = moment.now;
        let replaced = self.sent.insert(self.last_number, pending);
        assert!(replaced.is_none(), "the number {} was used before", self.last_number);
        out.push((to, call));
    }

    /// Sends what a stream may send on one shard now.
    fn pump(&mut self, member: Member, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        while let Some(target) = self.orders.peek(member).and_then(|pending| self.target(pending, moment)) {
            let Some((pending, order)) = self.orders.take_next(member) else { return };
            self.send(pending, target, Some(order), moment, out);
        }
    }

    fn pump_all(&mut self, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        for member in self.orders.waiting() {
            self.pump(member, moment, out);
        }
    }

    fn unpark(&mut self, shard: ShardId, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        if moment.directory.known(shard).leader.is_none() {
            return;
        }
        let parked = self.parked.remove(&shard).unwrap_or_default();
        self.parked_count -= parked.len();
        for pending in parked {
            self.send_or_park(pending, moment, out);
        }
    }

    /// A sending ended without an answer.
    fn lost(&mut self, mut pending: Pending, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        pending.was_lost = true;
        pending.resends += 1;
        let again = pending.may_be_sent_again(&self.config);
        let member = pending.member;
        match (again, member) {
            (true, Some(member)) => self.orders.refused(member, Some(pending)),
            (true, None) => self.send_or_park(pending, moment, out),
            (false, member) => {
                if let Some(member) = member {
                    self.orders.refused(member, None);
                }
                self.finish(pending, Err(Failure::of(FailureKind::OutcomeUnknown)));
            }
        }
        if let Some(member) = member {
            self.pump(member, moment, out);
        }
    }

    fn expire_sent(&mut self, moment: &Moment<'_>, out: &mut Vec<Sending>) {
        let resend_after = self.config.times.resend_after;
        let due: Vec<u64> = self
            .sent
            .iter()
            .filter(|(_, pending)| pending.wants_attention(moment.now, resend_after))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            let Some(mut pending) = self.sent.remove(&number) else { continue };
            if pending.deadline > moment.now
                && (pending.may_be_sent_again(&self.config) || pending.member.is_some())
            {
                self.lost(pending, moment, out);
            } else if pending.deadline > moment.now {
                pending.sent_at = moment.now;
                self.sent.insert(number, pending);
            } else {
                if let Some(member) = pending.member {
                    self.orders.refused(member, None);
                    self.pump(member, moment, out);
                }
                self.finish(pending, Err(Failure::of(FailureKind::DeadlineExceeded)));
            }
        }
    }

    fn expire_parked(&mut self, shard: ShardId, now: Instant) {
        let Some(queue) = self.parked.get_mut(&shard) else { return };
        let (past, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(queue).into_iter().partition(|pending| pending.is_idle(now));
        self.parked_count -= past.len();
        *queue = kept;
        for pending in past {
            self.give_up(pending);
        }
    }

    /// No leader was found in time.
    fn give_up(&mut self, pending: Pending) {
        let kind = if pending.was_lost && pending.request.is_change() {
            FailureKind::DeadlineExceeded
        } else {
            FailureKind::NoLeader
        };
        self.finish(pending, Err(Failure::of(kind)));
    }

    fn finish(&mut self, pending: Pending, outcome: Outcome) {
        assert!(self.count > 0, "a call finished that was not counted");
        self.count -= 1;
        let is_doubtful = pending.was_lost
            && pending.request.is_change()
            && !self.config.is_planted(PlantedBug::NotExecutedAfterLostSending);
        let outcome = match outcome {
            Err(failure) if is_doubtful && failure.kind != FailureKind::DeadlineExceeded => {
                Err(Failure { kind: FailureKind::OutcomeUnknown, ..failure })
            }
            outcome => outcome,
        };
        pending.sender.send(outcome);
    }
}

impl Pending {
    /// Whether a second sending cannot do harm: it changes nothing, or the state machine knows it again.
    fn may_be_sent_again(&self, config: &Config) -> bool {
        match &self.request {
            Request::Query { .. } => true,
            Request::Command(Command::Write { id, .. }) => {
                id.is_some() || config.is_planted(PlantedBug::ResentWithoutAnswer)
            }
            Request::Command(
                Command::OpenSession { .. }
                | Command::KeepAlive { .. }
                | Command::CloseSession { .. }
                | Command::Expire { .. },
            )
            | Request::Transfer { .. } => false,
        }
    }

    /// Whether it may be sent there: not to whom it was just refused by.
    fn may_go_to(&self, target: (NodeId, Term), now: Instant) -> bool {
        self.refused_by != Some(target) || now >= self.rests_until
    }

    fn wants_attention(&self, now: Instant, resend_after: Duration) -> bool {
        // Each wait is twice as long as the one before: what is slow is not made slower.
        let patience = resend_after * (1 << self.resends.min(6));
        self.deadline <= now || now.since(self.sent_at) >= patience
    }

    /// Whether there is no use in its waiting to be sent: nobody waits for it, or it is time to say so.
    fn is_idle(&self, now: Instant) -> bool {
        !self.sender.is_awaited() || now >= self.hopeless_at
    }
}

/// When to say of a call that no leader was found: a tenth of its wait before the deadline, so that the
/// answer arrives, and at most 200 ms before it. Calls are looked at with the ticks, and between two looks
/// lie up to two; so it is three ticks before at least, where that is not in the first half of the wait.
fn hopeless_at(now: Instant, deadline: Instant, tick: Duration) -> Instant {
    const EARLY_MAX: Duration = Duration::from_millis(200);
    let wait = deadline.since(now);
    let early = (wait / 10).min(EARLY_MAX).max((3 * tick).min(wait / 2));
    assert!(early <= wait, "it is said after {wait:?}, and no more than {early:?} before its end");
    now + (wait - early)
}

#[cfg(all(test, debug_assertions))]
#[path = "calls_tests.rs"]
mod tests;
