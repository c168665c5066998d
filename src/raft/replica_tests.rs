//! One replica against a peer that says anything, and what it gathers into one [`super::Ready`].

use bytes::Bytes;

use crate::ids::{Index, NodeId, Term};

use super::message::{AppendOutcome, Ballot, Body, Campaign, Entry, Message, Voice, Willingness};
use super::ready::{HardState, Installed, ReadState, RecoverError, Recovered};
use super::standing::Standing;
use super::{Config, Raft, Role};

const ME: NodeId = NodeId(1);

fn config() -> Config {
    Config::new(ME, vec![ME, NodeId(2), NodeId(3)])
}

fn fresh() -> Raft {
    Raft::new(config(), Recovered::default(), 0).expect("an empty log makes sense")
}

/// Takes what is ready, and says that it is written and applied.
fn settle(raft: &mut Raft) -> Vec<Message> {
    let mut sent = Vec::new();
    while raft.has_ready() {
        let ready = raft.ready();
        sent.extend(ready.messages);
        raft.applied(ready.commit);
        for fetch in ready.fetch {
            raft.fetched(fetch.to, Vec::new());
        }
        if let Some(persist) = ready.persist {
            raft.persisted(persist.completion());
            sent.extend(persist.then_send);
        }
    }
    sent
}

fn from(from: u32, term: u64, body: Body) -> Message {
    Message { from: NodeId(from), to: ME, term: Term(term), voice: Voice::Whole, body }
}

/// A leader of term 1 whose no-op is committed.
fn leader() -> Raft {
    let mut raft = fresh();
    raft.campaign();
    settle(&mut raft);
    raft.step(from(2, 0, Body::PreVoteReply { asked: Term(0), ballot: Ballot::Granted }));
    settle(&mut raft);
    raft.step(from(2, 1, Body::VoteReply { ballot: Ballot::Granted }));
    settle(&mut raft);
    for peer in [2, 3] {
        let outcome = AppendOutcome::Accepted { matched: Index(1) };
        raft.step(from(peer, 1, Body::AppendReply { outcome, willing: Willingness::Willing }));
    }
    settle(&mut raft);
    assert!(raft.leads_in(Term(1)) && raft.commit() == Index(1), "{raft:?}");
    raft
}

#[test]
fn proposals_of_one_ready_share_an_append_and_a_write() {
    let mut raft = leader();
    for data in ["a", "b", "c"] {
        assert!(raft.propose(Bytes::from_static(data.as_bytes())).is_ok());
    }
    let ready = raft.ready();
    assert_eq!(ready.messages.len(), 2, "one append a follower: {:?}", ready.messages);
    for message in &ready.messages {
        assert!(matches!(&message.body, Body::Append { entries, .. } if entries.len() == 3), "{message:?}");
    }
    assert_eq!(ready.persist.map(|persist| persist.entries.len()), Some(3));
}

#[test]
fn reads_of_one_ready_share_a_round() {
    let mut raft = leader();
    for token in [7, 8, 9] {
        assert_eq!(raft.read(token), Ok(()));
    }
    let ready = raft.ready();
    assert_eq!(ready.messages.len(), 2, "one heartbeat a follower: {:?}", ready.messages);
    let Body::Heartbeat { round, .. } = ready.messages[0].body else { panic!("not {:?}", ready.messages[0]) };
    let (verified, durable) = (Index(1), Index(1));
    raft.step(from(3, 1, Body::HeartbeatReply { round, verified, durable, willing: Willingness::Willing }));
    let answered: Vec<_> = [7, 8, 9].map(|token| ReadState { token, index: Index(1) }).into();
    assert_eq!(raft.ready().reads, answered);
}

#[test]
fn acknowledgements_of_one_ready_are_one() {
    let mut raft = fresh();
    for index in 1..=3 {
        let prev_term = Term(u64::from(index > 1));
        let entries = vec![Entry { index: Index(index), term: Term(1), data: Bytes::new() }];
        let prev_index = Index(index - 1);
        raft.step(from(2, 1, Body::Append { prev_index, prev_term, commit: Index(0), entries }));
    }
    let persist = raft.ready().persist.expect("entries are written");
    let outcome = AppendOutcome::Accepted { matched: Index(3) };
    let reply = Message {
        from: ME,
        to: NodeId(2),
        term: Term(1),
        voice: Voice::Whole,
        body: Body::AppendReply { outcome, willing: Willingness::Willing },
    };
    assert_eq!(persist.then_send, [reply]);
}

#[test]
fn an_answer_to_a_repeated_append_waits_for_the_first_ones_write() {
    let mut raft = fresh();
    let entries = vec![Entry { index: Index(1), term: Term(1), data: Bytes::new() }];
    let body = Body::Append { prev_index: Index(0), prev_term: Term(0), commit: Index(0), entries };
    raft.step(from(2, 1, body.clone()));
    let first = raft.ready().persist.expect("an entry is written");
    raft.step(from(2, 1, body.clone()));
    let ready = raft.ready();
    let second = ready.persist.expect("the answer waits");
    assert!(
        ready.messages.is_empty() && second.entries.is_empty() && second.hard_state.is_none(),
        "{second:?}"
    );
    assert_eq!((first.number, second.number, second.then_send.len()), (1, 2, 1));
    raft.persisted(second.completion());
    raft.step(from(2, 1, body));
    let ready = raft.ready();
    assert_eq!(
        (ready.messages.len(), ready.persist),
        (1, None),
        "nothing is under way: it is answered at once"
    );
}

#[test]
fn damage_is_told() {
    let new = |recovered| Raft::new(config(), recovered, 0).map(|raft| raft.commit());
    let hard_state = HardState { term: Term(3), vote: None, commit: Index(2) };
    let terms = vec![(Index(1), Term(1)), (Index(2), Term(3))];
    let sound = Recovered { hard_state, terms, last_index: Index(4), ..Recovered::default() };
    assert_eq!(new(sound.clone()), Ok(Index(2)));

    let disordered = vec![(Index(1), Term(3)), (Index(2), Term(3))];
    assert_eq!(new(Recovered { terms: disordered, ..sound.clone() }), Err(RecoverError::TermsDisordered));
    assert_eq!(new(Recovered { last_index: Index(1), ..sound.clone() }), Err(RecoverError::TermsDisordered));
    let lost = RecoverError::Gap { table: Index(0), first: Index(5) };
    assert_eq!(new(Recovered { terms: Vec::new(), ..sound.clone() }), Err(lost));
    let state = HardState { term: Term(2), ..hard_state };
    let behind = RecoverError::TermBehindLog { term: Term(2), last_term: Term(3) };
    assert_eq!(new(Recovered { hard_state: state, ..sound.clone() }), Err(behind));
    let state = HardState { commit: Index(5), ..hard_state };
    let beyond = RecoverError::CommitBeyondLog { commit: Index(5), last_index: Index(4) };
    assert_eq!(new(Recovered { hard_state: state, ..sound.clone() }), Err(beyond));
    let state = HardState { vote: Some(NodeId(9)), ..hard_state };
    assert_eq!(new(Recovered { hard_state: state, ..sound }), Err(RecoverError::VoteUnknown(NodeId(9))));
}

#[test]
fn a_log_that_begins_late_is_committed_to_its_beginning() {
    let hard_state = HardState { term: Term(3), vote: None, commit: Index(2) };
    let (table, terms) = ((Index(7), Term(3)), vec![(Index(8), Term(3))]);
    let sound = Recovered { hard_state, table, terms, last_index: Index(9), ..Recovered::default() };
    let raft = Raft::new(config(), sound.clone(), 0).expect("it makes sense");
    assert_eq!((raft.commit(), raft.applied_index(), raft.log_start()), (Index(7), Index(7), Index(7)));
    assert!(raft.has_ready(), "the commit index is told");

    let new = |recovered| Raft::new(config(), recovered, 0).map(|raft| raft.last_index());
    let alone = Recovered { terms: Vec::new(), last_index: Index(7), ..sound.clone() };
    assert_eq!(new(alone), Ok(Index(7)));
    let gap = Recovered { terms: vec![(Index(9), Term(3))], ..sound.clone() };
    assert_eq!(new(gap), Err(RecoverError::Gap { table: Index(7), first: Index(9) }));
    let newer = Recovered { table: (Index(7), Term(4)), terms: vec![(Index(8), Term(4))], ..sound };
    let behind = RecoverError::TermBehindLog { term: Term(3), last_term: Term(4) };
    assert_eq!(new(newer), Err(behind));
}

/// The process ended between the table and the record of the log's new beginning.
#[test]
fn a_log_that_does_not_lead_up_to_the_table_begins_anew() {
    let hard_state = HardState { term: Term(5), vote: None, commit: Index(2) };
    let table = (Index(7), Term(4));
    for last_index in [Index(0), Index(4), Index(9)] {
        let terms = vec![(Index(1), Term(1)), (Index(3), Term(3))];
        let terms = if last_index.0 == 0 { Vec::new() } else { terms };
        let hard_state = HardState { commit: hard_state.commit.min(last_index), ..hard_state };
        let recovered = Recovered { hard_state, table, terms, last_index, ..Recovered::default() };
        let mut raft = Raft::new(config(), recovered, 0).expect("it makes sense");
        assert_eq!((raft.last_index(), raft.commit()), (Index(7), Index(7)));
        let persist = raft.ready().persist.expect("the beginning is written");
        assert_eq!((persist.restart, persist.entries.len()), (Some(table), 0));
        assert_eq!(persist.hard_state.map(|state| state.commit), Some(Index(7)));
    }
    let hard_state = HardState { commit: Index(8), ..hard_state };
    let terms = vec![(Index(1), Term(3))];
    let last_index = Index(9);
    let contradicts = Recovered { hard_state, table, terms, last_index, ..Recovered::default() };
    let said = Raft::new(config(), contradicts, 0).map(drop);
    assert_eq!(said, Err(RecoverError::TableContradicted { index: Index(7) }));
}

#[test]
fn one_voter_alone_has_nowhere_to_recover_from() {
    let alone = Config::new(ME, vec![ME]);
    let damaged = Standing::Damaged { last_index: Index(3), last_term: Term(1) };
    for standing in [damaged, Standing::Forgetful { episode: 7, told: None }] {
        let recovered = Recovered { standing, ..Recovered::default() };
        assert_eq!(Raft::new(alone.clone(), recovered, 0).map(drop), Err(RecoverError::Alone));
    }
}

/// The table that was had ends before the one that was offered: the offer that comes again is taken again.
#[test]
fn a_table_that_falls_short_of_its_offer_does_not_end_the_offers() {
    let mut raft = fresh();
    let offer = || from(2, 3, Body::Snapshot { index: Index(9), term: Term(2) });
    raft.step(offer());
    let offered = |raft: &mut Raft| {
        let mut offers = Vec::new();
        while raft.has_ready() {
            let ready = raft.ready();
            offers.extend(ready.offer.map(|offer| offer.index));
            if let Some(persist) = ready.persist {
                raft.persisted(persist.completion());
            }
        }
        offers
    };
    assert_eq!(offered(&mut raft), [Index(9)]);
    assert_eq!(raft.installed(Index(5), Term(2)), Installed::Restarted);
    raft.applied(Index(5));
    assert_eq!(offered(&mut raft), []);
    raft.step(offer());
    assert_eq!(offered(&mut raft), [Index(9)]);
}

#[test]
fn strangers_are_not_heard() {
    let mut raft = fresh();
    let vote = |last_index| Body::Vote { last_index, last_term: Term(0), cause: Campaign::Transfer };
    raft.step(from(9, 5, vote(Index(9))));
    raft.step(from(1, 5, vote(Index(9))));
    raft.step(Message { to: NodeId(3), ..from(2, 5, vote(Index(9))) });
    raft.step(from(2, 1 << 62, vote(Index(9))));
    assert_eq!(raft, fresh());
}

/// A source of nonsense, of which much is nearly right.
struct Liar(u64);

impl Liar {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn number(&mut self) -> u64 {
        match self.next() % 20 {
            0 => u64::MAX,
            1 => u64::MAX - 1,
            other => other % 8,
        }
    }

    fn index(&mut self) -> Index {
        Index(self.number())
    }

    fn term(&mut self) -> Term {
        Term(self.number())
    }

    fn voice(&mut self) -> Voice {
        let others = [Voice::Damaged, Voice::Healing, Voice::Forgetful];
        let other = usize::try_from(self.next() % 12).ok().and_then(|at| others.get(at));
        other.copied().unwrap_or_default()
    }

    fn standing(&mut self) -> Standing {
        match self.next() % 6 {
            0 => Standing::Damaged { last_index: self.index(), last_term: Term(0) },
            1 => Standing::Forgetful { episode: self.number(), told: None },
            _ => Standing::Whole,
        }
    }

    fn ballot(&mut self) -> Ballot {
        if self.next().is_multiple_of(3) { Ballot::Refused } else { Ballot::Granted }
    }

    fn entries(&mut self, prev: Index) -> Vec<Entry> {
        let term = self.next() % 6;
        let entry = |offset: u64| Entry {
            index: Index(prev.0.wrapping_add(offset)),
            term: Term(term + offset / 2),
            data: Bytes::new(),
        };
        (1..=self.next() % 4).map(entry).collect()
    }

    fn outcome(&mut self) -> AppendOutcome {
        if self.next().is_multiple_of(2) {
            return AppendOutcome::Accepted { matched: self.index() };
        }
        AppendOutcome::Rejected {
            prev_index: self.index(),
            conflict_index: self.index(),
            conflict_term: self.term(),
            conflict_first: self.index(),
        }
    }

    /// What brings a candidate further.
    fn help(&self, raft: &Raft) -> Body {
        match raft.role() {
            Role::Candidate => Body::VoteReply { ballot: Ballot::Granted },
            Role::Follower | Role::PreCandidate | Role::Leader => {
                Body::PreVoteReply { asked: raft.term(), ballot: Ballot::Granted }
            }
        }
    }

    fn body(&mut self) -> Body {
        let willing = Willingness::Willing;
        match self.next() % 14 {
            0 => Body::PreVote { last_index: self.index(), last_term: self.term() },
            1 => Body::PreVoteReply { asked: self.term(), ballot: self.ballot() },
            2 => Body::Vote { last_index: self.index(), last_term: self.term(), cause: Campaign::Transfer },
            3 => Body::VoteReply { ballot: self.ballot() },
            4 | 5 => {
                let prev_index = self.index();
                let entries = self.entries(prev_index);
                Body::Append { prev_index, prev_term: self.term(), commit: self.index(), entries }
            }
            6 => Body::AppendReply { outcome: self.outcome(), willing },
            7 => Body::Heartbeat { commit: self.index(), commit_term: self.term(), round: self.number() },
            8 => {
                let (round, verified, durable) = (self.number(), self.index(), self.index());
                Body::HeartbeatReply { round, verified, durable, willing }
            }
            9 => Body::TimeoutNow,
            10 => Body::Snapshot { index: self.index(), term: self.term() },
            11 => Body::TermAsk { request: self.number() },
            12 => Body::TermTold { request: self.number() },
            _ => Body::Outdated,
        }
    }
}

/// Takes a table of any kind, if one is wanted. What is in it was checked, so that its term is one that was.
fn liar_installs(liar: &mut Liar, raft: &mut Raft) {
    let index = Index(liar.number());
    let term = Term(liar.number().clamp(1, raft.term().0.max(1)));
    if index.0 < 8 && raft.wants_table(index, term) && liar.next().is_multiple_of(30) {
        assert_ne!(raft.installed(index, term), Installed::Stale);
    }
}

/// What a peer says may be wrong in every way: the replica never panics, and what it says itself can be
/// encoded.
#[test]
fn no_message_panics() {
    let mut roles = [0u32; 4];
    for seed in 1..400 {
        let mut liar = Liar(seed * 0x9e37_79b9);
        let recovered = Recovered { standing: liar.standing(), ..Recovered::default() };
        let mut raft = Raft::new(config(), recovered, 0).expect("an empty log makes sense");
        for _ in 0..300 {
            match liar.next() % 18 {
                0 => raft.tick(0),
                1 => raft.campaign(),
                2 => drop(raft.propose(Bytes::from_static(b"x"))),
                3 => drop(raft.read(1)),
                4 => drop(raft.transfer(None)),
                16 => raft.compact(raft.applied_index().min(raft.persisted_index())),
                17 => raft.install_failed(),
                5 => raft.step(from(3, raft.term().0, liar.help(&raft))),
                _ => {
                    let term = raft.term().0 + u64::from(liar.next().is_multiple_of(40));
                    let peer = 2 + u32::from(liar.next().is_multiple_of(2));
                    let term = term - term.min(u64::from(liar.next().is_multiple_of(9)));
                    let (body, voice) = (liar.body(), liar.voice());
                    raft.step(Message { voice, ..from(peer, term, body) });
                }
            }
            liar_installs(&mut liar, &mut raft);
            for message in settle(&mut raft) {
                message.encode(&mut Vec::new());
            }
            roles[raft.role() as usize] += 1;
        }
    }
    assert!(roles.iter().all(|&count| count > 1000), "every role was lied to: {roles:?}");
}
