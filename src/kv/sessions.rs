//! Sessions: what makes a client's retries exactly-once. All of it is decided when an entry is applied.
//!
//! ```text
//!   sequence     1 … acknowledged │ acknowledged + 1 … acknowledged + max       │ beyond
//!   stored       (pruned)         │ answered with it; another request: reused   │ (never)
//!   not stored   forgotten        │ applied and stored, in any order of arrival │ too many unacknowledged
//! ```
//!
//! What is stored is the first outcome of a request: its answer with its revision, or a refusal that the
//! state decided (an Append past the limit). A resend must get that refusal again: its client was told that
//! the request was not executed, and a copy of it that was late on the way must not be executed afterwards. A
//! refusal by the window is not stored; it only says "not yet".
//!
//! An entry that names a live session touches it, whatever comes of the request: it shows that its client is
//! alive.
//!
//! Invariants:
//! - `acknowledged` only grows, and no answer at or below it is stored.
//! - A session stores at most `session_unacknowledged_max` answers, and none is added once it has
//!   `session_answer_bytes_max` bytes of them (all sessions together: `sessions_answer_bytes_max`).
//! - `digest` and `answer_bytes` are those of the sessions, after every operation.
//!
//! A freeze takes the sessions as they are ([`Sessions::frozen`]) without a copy: each is shared until an
//! entry touches it again, and copied then, once.
//!
//! It deliberately reads no clock: a leader times sessions by what [`Sessions::iter`] shows, and proposes.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::answer::{Answer, Applied, Refusal};
use super::check;
use super::codec::wire::Sink;
use super::codec::{Body, DecodeError, SessionAnswer, SessionImage, outcome_len, put_outcome, take_sessions};
use super::command::{RequestId, Write, session_id};
use super::digest::{self, Hasher, Kind};
use super::planted::planted;
use super::state::Config;
use crate::ids::{Index, Sequence, SessionId};

/// What a stored answer counts beyond its own bytes.
const STORED_OVERHEAD_BYTES: usize = 64;

/// What came of a request: what its resends get too.
pub(super) type Outcome = Result<Applied, Refusal>;

/// The sessions of a shard.
pub(super) struct Sessions {
    config: Config,
    table: BTreeMap<SessionId, Rc<Session>>,
    answer_bytes: usize,
    digest: u64,
}

/// The sessions as they were at one index.
pub(super) type FrozenSessions = Vec<(SessionId, Rc<Session>)>;

/// A session.
#[derive(Clone)]
pub(super) struct Session {
    ttl_ms: u64,
    last_active: Index,
    acknowledged: Sequence,
    answers: BTreeMap<Sequence, StoredAnswer>,
    answer_bytes: usize,
    /// The part of the digest that is the session's own, without its answers.
    digest: u64,
}

#[derive(Clone)]
struct StoredAnswer {
    request_hash: u64,
    outcome: Outcome,
    bytes: usize,
    digest: u64,
}

/// What is to be done with a request.
pub(super) enum Admission {
    /// Apply it and [`store`](Sessions::store) the outcome.
    Fresh,
    /// It was applied before: this came of it.
    Stored(Outcome),
    /// Do not apply it.
    Refused(Refusal),
}

impl Sessions {
    /// No sessions.
    pub(super) fn new(config: Config) -> Self {
        Self { config, table: BTreeMap::new(), answer_bytes: 0, digest: 0 }
    }

    /// The sessions that were written by [`Session::image`]s.
    pub(super) fn decode(config: Config, bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut sessions = Self::new(config);
        take_sessions(bytes.clone(), |image| sessions.restore(image))?;
        Ok(sessions)
    }

    /// The sessions as they are, shared until they change.
    pub(super) fn frozen(&self) -> FrozenSessions {
        self.table.iter().map(|(id, session)| (*id, Rc::clone(session))).collect()
    }

    /// The sessions: id, ttl in milliseconds, and the entry that touched it last.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, u64, Index)> + '_ {
        self.table.iter().map(|(id, session)| (*id, session.ttl_ms, session.last_active))
    }

    /// The wrapping sum of the hashes of all sessions and their answers.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Begins the session that is named after the entry at `index`.
    pub(super) fn open(&mut self, index: Index, ttl_ms: u64) -> Result<Answer, Refusal> {
        let limits = &self.config.limits;
        check::check_ttl(limits, ttl_ms)?;
        if self.table.len() >= limits.sessions_max {
            return Err(Refusal::TooManySessions);
        }
        let ttl_ms = if ttl_ms == 0 { limits.session_ttl_ms_default } else { ttl_ms };
        let id = session_id(self.config.shard, index);
        let mut session = Session {
            ttl_ms,
            last_active: index,
            acknowledged: Sequence(0),
            answers: BTreeMap::new(),
            answer_bytes: 0,
            digest: 0,
        };
        self.digest = self.digest.wrapping_add(session.rehash(id));
        let before = self.table.insert(id, Rc::new(session));
        assert!(before.is_none(), "session {id} was opened twice");
        assert!(self.table.len() <= limits.sessions_max, "{} sessions are open", self.table.len());
        Ok(Answer::SessionOpened { session: id, ttl_ms })
    }

    /// The entry at `index` says that the session's client is alive, and which answers it has.
    pub(super) fn keep_alive(
        &mut self,
        index: Index,
        id: SessionId,
        acknowledged: Sequence,
    ) -> Result<Answer, Refusal> {
        self.touch(index, id, acknowledged)?;
        let ttl_ms = self.table.get(&id).map_or(0, |session| session.ttl_ms);
        Ok(Answer::KeptAlive { ttl_ms })
    }

    /// Ends a session at its client's wish.
    pub(super) fn close(&mut self, id: SessionId) -> Result<Answer, Refusal> {
        self.remove(id)?;
        Ok(Answer::SessionClosed)
    }

    /// Ends a session that nothing touched after the entry at `last_active`.
    pub(super) fn expire(&mut self, id: SessionId, last_active: Index) -> Result<Answer, Refusal> {
        let session = self.table.get(&id).ok_or(Refusal::SessionExpired)?;
        if session.last_active != last_active && !planted!(self.config, ExpiryByClock) {
            return Ok(Answer::NotExpired);
        }
        self.remove(id)?;
        Ok(Answer::Expired)
    }

    /// Ends all of them at once: a planted bug, see [`State::restarted`](super::State::restarted).
    #[cfg(debug_assertions)]
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.config);
    }

    /// What is to be done with a request in the entry at `index`.
    pub(super) fn admit(&mut self, index: Index, id: RequestId, request_hash: u64) -> Admission {
        let stored = self.stored(id);
        if let Err(refusal) = self.touch(index, id.session, id.acknowledged) {
            return Admission::Refused(refusal);
        }
        match stored {
            Some((hash, outcome)) if hash == request_hash || planted!(self.config, HashIgnored) => {
                Admission::Stored(outcome)
            }
            Some(_) if planted!(self.config, SequenceReusedApplied) => Admission::Fresh,
            Some(_) => Admission::Refused(Refusal::SequenceReused),
            None => self.window(id).map_or(Admission::Fresh, Admission::Refused),
        }
    }

    /// Keeps what came of a [`Admission::Fresh`] request for its resends.
    pub(super) fn store(&mut self, id: RequestId, request_hash: u64, outcome: &Outcome) {
        if planted!(self.config, AnswerNotStored)
            || (planted!(self.config, RefusalNotStored) && outcome.is_err())
        {
            return;
        }
        let Some(session) = self.table.get_mut(&id.session).map(Rc::make_mut) else {
            panic!("session {} admitted a request and is gone", id.session);
        };
        let answer = SessionAnswer { sequence: id.sequence, request_hash, outcome: outcome.clone() };
        let stored = StoredAnswer::new(id.session, answer);
        session.answer_bytes += stored.bytes;
        self.answer_bytes += stored.bytes;
        self.digest = self.digest.wrapping_add(stored.digest);
        if let Some(before) = session.answers.insert(id.sequence, stored) {
            let is_planted = planted!(self.config, SequenceReusedApplied);
            assert!(is_planted, "session {} stored sequence {} twice", id.session, id.sequence);
            session.answer_bytes -= before.bytes;
            self.answer_bytes -= before.bytes;
            self.digest = self.digest.wrapping_sub(before.digest);
        }
        let (count, count_max) =
            (session.answers.len() as u64, self.config.limits.session_unacknowledged_max);
        let is_planted = planted!(self.config, WindowIgnored) || planted!(self.config, ForgottenReapplied);
        assert!(count <= count_max || is_planted, "session {} stores {count} answers", id.session);
    }

    /// Puts back a session that was written.
    fn restore(&mut self, image: SessionImage) {
        let SessionImage { id, ttl_ms, last_active, acknowledged, answers } = image;
        let answers: BTreeMap<Sequence, StoredAnswer> =
            answers.into_iter().map(|answer| (answer.sequence, StoredAnswer::new(id, answer))).collect();
        let answer_bytes = answers.values().map(|stored| stored.bytes).sum();
        let mut session = Session { ttl_ms, last_active, acknowledged, answers, answer_bytes, digest: 0 };
        self.digest = self.digest.wrapping_add(session.rehash(id));
        for stored in session.answers.values() {
            self.digest = self.digest.wrapping_add(stored.digest);
        }
        self.answer_bytes += answer_bytes;
        self.table.insert(id, Rc::new(session));
    }

    /// The stored outcome of the request and its hash, with its revision as it was.
    fn stored(&self, id: RequestId) -> Option<(u64, Outcome)> {
        let stored = self.table.get(&id.session)?.answers.get(&id.sequence)?;
        Some((stored.request_hash, stored.outcome.clone()))
    }

    /// Why a request that is not stored may not be applied, if so.
    fn window(&self, id: RequestId) -> Option<Refusal> {
        let limits = &self.config.limits;
        let session = self.table.get(&id.session)?;
        if id.sequence <= session.acknowledged {
            return (!planted!(self.config, ForgottenReapplied)).then_some(Refusal::SequenceForgotten);
        }
        let ahead = id.sequence.0 - session.acknowledged.0;
        let is_beyond = ahead > limits.session_unacknowledged_max && !planted!(self.config, WindowIgnored);
        if is_beyond || session.answer_bytes >= limits.session_answer_bytes_max {
            return Some(Refusal::TooManyUnacknowledged);
        }
        (self.answer_bytes >= limits.sessions_answer_bytes_max).then_some(Refusal::TooManyAnswers)
    }

    /// Notes that the entry at `index` named the session, and lets go of the answers that its client has.
    fn touch(&mut self, index: Index, id: SessionId, acknowledged: Sequence) -> Result<(), Refusal> {
        let session = Rc::make_mut(self.table.get_mut(&id).ok_or(Refusal::SessionExpired)?);
        assert!(index > session.last_active, "entry {index} touches {id} after {}", session.last_active);
        session.last_active = index;
        let shrinks = planted!(self.config, AcknowledgedShrinks);
        session.acknowledged = if shrinks { acknowledged } else { session.acknowledged.max(acknowledged) };
        while let Some(first) = session.answers.first_entry() {
            if *first.key() > session.acknowledged {
                break;
            }
            let stored = first.remove();
            session.answer_bytes -= stored.bytes;
            self.answer_bytes -= stored.bytes;
            self.digest = self.digest.wrapping_sub(stored.digest);
        }
        let is_empty = session.answers.is_empty();
        assert!(!is_empty || session.answer_bytes == 0, "no answers have {} bytes", session.answer_bytes);
        self.digest = self.digest.wrapping_add(session.rehash(id));
        Ok(())
    }

    fn remove(&mut self, id: SessionId) -> Result<(), Refusal> {
        let session = self.table.remove(&id).ok_or(Refusal::SessionExpired)?;
        self.answer_bytes -= session.answer_bytes;
        self.digest = self.digest.wrapping_sub(session.digest);
        for stored in session.answers.values() {
            self.digest = self.digest.wrapping_sub(stored.digest);
        }
        let (bytes, digest) = (self.answer_bytes, self.digest);
        let is_empty = self.table.is_empty();
        assert!(!is_empty || (bytes == 0 && digest == 0), "no sessions: {bytes} bytes, digest {digest}");
        Ok(())
    }
}

impl Session {
    /// The session as it is written.
    pub(super) fn image(&self, id: SessionId) -> SessionImage {
        let answers = self.answers.iter().map(|(sequence, stored)| SessionAnswer {
            sequence: *sequence,
            request_hash: stored.request_hash,
            outcome: stored.outcome.clone(),
        });
        SessionImage {
            id,
            ttl_ms: self.ttl_ms,
            last_active: self.last_active,
            acknowledged: self.acknowledged,
            answers: answers.collect(),
        }
    }

    /// Hashes the session's own part anew. How the digest changes.
    fn rehash(&mut self, id: SessionId) -> u64 {
        let digest = digest::of_session(id, self.ttl_ms, self.last_active, self.acknowledged);
        let before = std::mem::replace(&mut self.digest, digest);
        self.digest.wrapping_sub(before)
    }
}

impl StoredAnswer {
    fn new(session: SessionId, answer: SessionAnswer) -> Self {
        let SessionAnswer { sequence, request_hash, outcome } = answer;
        let mut hasher = Hasher::new(Kind::StoredAnswer);
        hasher.u64(session.0);
        hasher.u64(sequence.0);
        hasher.u64(request_hash);
        put_outcome(&outcome, &mut hasher);
        let bytes = outcome_len(&outcome) + STORED_OVERHEAD_BYTES;
        Self { request_hash, outcome, bytes, digest: hasher.digest() }
    }
}

impl Write {
    /// What a resend is compared by: everything but the request's identity.
    pub(super) fn request_hash(&self) -> u64 {
        let mut hasher = Hasher::new(Kind::Request);
        self.put(&mut hasher);
        hasher.digest()
    }
}
