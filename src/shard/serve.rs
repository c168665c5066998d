//! How a replica serves calls: reads by read index, changes by proposal, transfers of leadership.

use crate::env::Env;
use crate::ids::NodeId;
use crate::kv::table::BlockHandle;
use crate::kv::{Command, Query, Resolved, ScanRun};
use crate::raft::{ProposeError, ReadError, ReadState, Role, Standing};
use crate::route::call::{Body, Consistency, Failure, FailureKind, Request};
use crate::route::parcel::{Call, Parcel, Reply};
use crate::shard::cache::{AtHand, Pinned};
use crate::shard::config::PlantedBug;
use crate::shard::event::BlocksFor;
use crate::shard::replica::{BlockLoad, Caller, ReadWaiter, Reading, Replica, TransferWaiter, Turn, Waiter};
use crate::shard::streams::StreamKey;

impl<E: Env> Replica<E> {
    /// Serves a call whose turn it is.
    pub(crate) fn serve(&mut self, call: Call, turn: &mut Turn<'_>) {
        let caller = Caller {
            id: call.id,
            stream: call.order.map(|order| (StreamKey::of(&call.id, &order), order)),
            may_resend: matches!(&call.request, Request::Command(Command::Write { id: Some(_), .. })),
            deadline: turn.now + call.remaining,
        };
        match call.request {
            Request::Query { consistency, .. } if self.repair.is_spoiled() => {
                // The next leader serves it; what this very replica holds cannot be had.
                let kind = match consistency {
                    Consistency::Linearizable => FailureKind::NotProposed,
                    Consistency::Stale => FailureKind::Damaged,
                };
                self.fail(caller, kind, turn);
            }
            Request::Query { query, consistency: Consistency::Stale } => {
                if matches!(self.raft.standing(), Standing::Forgetful { .. }) {
                    // What it has applied is next to nothing, or nothing: no client means that.
                    self.fail(caller, FailureKind::Damaged, turn);
                } else {
                    self.answer_query(ReadWaiter { caller, query }, turn);
                }
            }
            Request::Query { query, consistency: Consistency::Linearizable } => {
                self.begin_read(ReadWaiter { caller, query }, turn);
            }
            Request::Command(command) => {
                let is_timely = call.term.is_some_and(|term| self.raft.leads_in(term));
                let is_forgiven = self.raft.role() == Role::Leader
                    && turn.config.is_planted(PlantedBug::ProposedInLaterTerm);
                let refusal = self.refusal(&command, turn.config);
                if let Some(kind) = refusal.filter(|_| is_timely) {
                    self.fail(caller, kind, turn);
                } else if is_timely || is_forgiven {
                    self.propose(&command, caller, turn);
                } else {
                    self.fail(caller, FailureKind::NotProposed, turn);
                }
            }
            Request::Transfer { to } => self.begin_transfer(to, caller, turn),
        }
    }

    /// Refuses a call that its stream does not let through.
    pub(crate) fn refuse_unproposed(&mut self, call: &Call, turn: &mut Turn<'_>) {
        let failure = self.failure(FailureKind::NotProposed);
        turn.out.parcels.push((call.id.node, Parcel::Reply(Reply { id: call.id, outcome: Err(failure) })));
    }

    fn propose(&mut self, command: &Command, caller: Caller, turn: &mut Turn<'_>) {
        let mut data = Vec::with_capacity(command.encoded_len());
        command.encode(&mut data);
        match self.raft.propose(data.into()) {
            Ok((index, term)) => {
                assert!(index > self.committed, "entry {index} is proposed, {} is committed", self.committed);
                let earlier = self.waiters.insert(index, Waiter { term, caller });
                if let Some(earlier) = earlier {
                    assert!(earlier.term < term, "two proposals of term {term} at index {index}");
                    self.fail(earlier.caller, FailureKind::OutcomeUnknown, turn);
                }
            }
            Err(ProposeError::NotLeader { .. } | ProposeError::Transferring) => {
                self.fail(caller, FailureKind::NotProposed, turn);
            }
            Err(ProposeError::Full) => self.fail(caller, FailureKind::Overloaded, turn),
        }
    }

    fn begin_read(&mut self, waiter: ReadWaiter, turn: &mut Turn<'_>) {
        self.last_token += 1;
        let token = self.last_token;
        match self.raft.read(token) {
            Ok(()) => {
                let before = self.reads.insert(token, waiter);
                assert!(before.is_none(), "shard {}: token {token} is used twice", self.shard);
            }
            Err(ReadError::NotYet) if self.reads_early.len() < turn.config.limits.reads_pending_max => {
                self.reads_early.push_back(waiter);
            }
            Err(ReadError::NotYet | ReadError::Full) => {
                self.fail(waiter.caller, FailureKind::Overloaded, turn)
            }
            Err(ReadError::NotLeader { .. }) => self.fail(waiter.caller, FailureKind::NotProposed, turn),
        }
    }

    /// The term's first entry may be committed by now: the reads that waited for it are asked again.
    pub(crate) fn retry_early_reads(&mut self, turn: &mut Turn<'_>) {
        let has_committed_in_term = self.raft.term_at(self.raft.commit()) == Some(self.raft.term());
        let can_read = self.raft.role() != Role::Leader || has_committed_in_term;
        if can_read {
            for waiter in std::mem::take(&mut self.reads_early) {
                self.begin_read(waiter, turn);
            }
        }
    }

    /// A quorum has confirmed the indexes of these reads.
    pub(crate) fn read_indexes_known(&mut self, reads: Vec<ReadState>, turn: &mut Turn<'_>) {
        self.state.warm(reads.iter().filter_map(|read| self.reads.get(&read.token)?.query.key()));
        for read in reads {
            self.read_index_known(read, turn);
        }
    }

    fn read_index_known(&mut self, read: ReadState, turn: &mut Turn<'_>) {
        let Some(waiter) = self.reads.remove(&read.token) else { return };
        if self.state.applied() >= read.index || turn.config.is_planted(PlantedBug::ReadBeforeApplied) {
            self.answer_query(waiter, turn);
        } else {
            let before = self.reads_ready.insert((read.index, read.token), waiter);
            assert!(before.is_none(), "shard {}: token {} is ready twice", self.shard, read.token);
        }
    }

    /// Leadership was lost before a read's round was confirmed.
    pub(crate) fn read_lost(&mut self, token: u64, turn: &mut Turn<'_>) {
        if let Some(waiter) = self.reads.remove(&token) {
            self.fail(waiter.caller, FailureKind::NotProposed, turn);
        }
    }

    /// Answers the reads whose index is applied by now.
    pub(crate) fn answer_ready_reads(&mut self, turn: &mut Turn<'_>) {
        let ready = self.reads_ready.range(..=(self.state.applied(), u64::MAX));
        self.state.warm(ready.filter_map(|(_, waiter)| waiter.query.key()));
        while let Some(first) = self.reads_ready.first_entry() {
            if first.key().0 > self.state.applied() {
                return;
            }
            let waiter = first.remove();
            self.answer_query(waiter, turn);
        }
    }

    fn answer_query(&mut self, waiter: ReadWaiter, turn: &mut Turn<'_>) {
        self.read_state(Reading { waiter, run: ScanRun::default(), pinned: Pinned::default() }, turn);
    }

    /// Answers a read, or has the blocks of the table loaded that it needs.
    pub(crate) fn read_state(&mut self, mut reading: Reading, turn: &mut Turn<'_>) {
        let query = &reading.waiter.query;
        let at_hand = &mut AtHand { cache: &self.cache, pinned: &reading.pinned };
        let base = match self.state.resolve_query(query, &mut reading.run, at_hand) {
            Resolved::Done(base) => base,
            Resolved::Missing(handles) => return self.load_for_read(reading, handles, turn),
        };
        let outcome = match self.state.query(query, &base) {
            Ok((revision, answer)) => Ok(self.answered(revision, Body::Query(answer), turn)),
            Err(refusal) => Err(self.failure(FailureKind::Refused(refusal))),
        };
        self.reply(reading.waiter.caller, outcome, turn);
    }

    fn load_for_read(&mut self, reading: Reading, handles: Vec<BlockHandle>, turn: &mut Turn<'_>) {
        if self.loading.len() >= turn.config.limits.reads_pending_max {
            return self.fail(reading.waiter.caller, FailureKind::Overloaded, turn);
        }
        self.last_loading += 1;
        let number = self.last_loading;
        // What a scan has gathered of its blocks is in its run: the next blocks take their place.
        let is_scan = matches!(reading.waiter.query, Query::Scan { .. });
        let reading = if is_scan { Reading { pinned: Pinned::default(), ..reading } } else { reading };
        self.loading.insert(number, reading);
        turn.out.loads.push(BlockLoad { shard: self.shard, waiter: BlocksFor::Read(number), handles });
    }

    fn begin_transfer(&mut self, to: Option<NodeId>, caller: Caller, turn: &mut Turn<'_>) {
        if self.raft.role() == Role::Leader && to == Some(turn.config.node()) {
            let body = Body::Transferred { leader: turn.config.node() };
            let answered = self.answered(self.state.revision(), body, turn);
            return self.reply(caller, Ok(answered), turn);
        }
        if self.raft.role() != Role::Leader {
            return self.fail(caller, FailureKind::NotProposed, turn);
        }
        let until = turn.now + turn.config.times.election() * 2;
        match self.raft.transfer(to) {
            Ok(_) => self.transfers.push(TransferWaiter { caller, term: self.raft.term(), until }),
            Err(_) => self.fail(caller, FailureKind::TransferFailed, turn),
        }
    }

    /// Answers the transfers that have come about, and those that have taken too long.
    pub(crate) fn expire_transfers(&mut self, turn: &mut Turn<'_>) {
        let leader = self.raft.leader();
        for waiter in std::mem::take(&mut self.transfers) {
            let moved =
                leader.filter(|leader| *leader != turn.config.node() && self.raft.term() > waiter.term);
            if let Some(leader) = moved {
                let body = Body::Transferred { leader };
                let answered = self.answered(self.state.revision(), body, turn);
                self.reply(waiter.caller, Ok(answered), turn);
            } else if turn.now >= waiter.until {
                self.fail(waiter.caller, FailureKind::TransferFailed, turn);
            } else {
                self.transfers.push(waiter);
            }
        }
    }

    /// This replica no longer leads the term that it led. Changes that wait may yet be committed by the next
    /// leader: who may send again is told at once that the outcome is unknown; who may not waits until the
    /// index of his entry is applied, with his entry or another.
    pub(crate) fn deposed(&mut self, turn: &mut Turn<'_>) {
        for waiter in std::mem::take(&mut self.reads_early) {
            self.fail(waiter.caller, FailureKind::NotProposed, turn);
        }
        for (index, waiter) in std::mem::take(&mut self.waiters) {
            if turn.config.is_planted(PlantedBug::ReplyFromDeposedLeader) {
                let answer = crate::kv::Answer::Append { succeeded: true, length: 0, version: 1 };
                let answered = self.answered(self.state.revision(), Body::Command(answer), turn);
                self.reply(waiter.caller, Ok(answered), turn);
            } else if waiter.caller.may_resend || waiter.caller.stream.is_some() {
                self.fail(waiter.caller, FailureKind::OutcomeUnknown, turn);
            } else {
                self.waiters.insert(index, waiter);
            }
        }
        for call in self.streams.close_all() {
            self.refuse_unproposed(&call, turn);
        }
    }

    /// Forgets the waiters whose callers have given up.
    pub(crate) fn forget_late_waiters(&mut self, turn: &Turn<'_>) {
        if self.raft.role() == Role::Leader {
            return;
        }
        let late = self.waiters.extract_if(.., |_, waiter| waiter.caller.deadline <= turn.now);
        for (key, order) in late.filter_map(|(_, waiter)| waiter.caller.stream).collect::<Vec<_>>() {
            self.streams.ended(key, order, true);
        }
    }

    pub(crate) fn fail(&mut self, caller: Caller, kind: FailureKind, turn: &mut Turn<'_>) {
        let failure = self.failure(kind);
        self.reply(caller, Err(failure), turn);
    }

    pub(crate) fn failure(&self, kind: FailureKind) -> Failure {
        Failure { kind, leader: self.raft.leader(), retry_after: None }
    }
}
