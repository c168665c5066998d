//! What happened, in one line each.

use distribkv::ids::{NodeId, Term};
use distribkv::raft::{
    AppendOutcome, Ballot, Body, Campaign, Entry, Message, Persist, ProposeError, ReadError, Role, Standing,
    TransferError, Voice, Willingness,
};

/// `3@2 "x"`: index, term and data.
pub fn entry(entry: &Entry) -> String {
    let Entry { index, term, data } = entry;
    if data.is_empty() {
        return format!("{index}@{term}");
    }
    format!("{index}@{term} {:?}", String::from_utf8_lossy(data))
}

/// `1@1 2@1`: entries without data.
pub fn entries(entries: &[Entry]) -> String {
    let names: Vec<_> = entries.iter().map(|entry| format!("{}@{}", entry.index, entry.term)).collect();
    names.join(" ")
}

/// The name of a message's kind.
pub fn kind(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "PreVote",
        Body::PreVoteReply { .. } => "PreVoteReply",
        Body::Vote { .. } => "Vote",
        Body::VoteReply { .. } => "VoteReply",
        Body::Append { .. } => "Append",
        Body::AppendReply { .. } => "AppendReply",
        Body::Heartbeat { .. } => "Heartbeat",
        Body::HeartbeatReply { .. } => "HeartbeatReply",
        Body::TimeoutNow => "TimeoutNow",
        Body::Outdated => "Outdated",
        Body::Snapshot { .. } => "Snapshot",
        Body::TermAsk { .. } => "TermAsk",
        Body::TermTold { .. } => "TermTold",
    }
}

pub fn message(message: &Message) -> String {
    let Message { from, to, term, voice, body } = message;
    let head = format!("n{from}->n{to} {} term={term}", kind(body));
    let rest = details(body);
    let line = if rest.is_empty() { head } else { format!("{head} {rest}") };
    line + voice_suffix(*voice)
}

fn details(body: &Body) -> String {
    match body {
        Body::PreVote { last_index, last_term } => format!("last={last_index}@{last_term}"),
        Body::PreVoteReply { asked, ballot } => format!("asked={asked} {}", ballot_name(*ballot)),
        Body::Vote { last_index, last_term, cause } => {
            let forced = if *cause == Campaign::Transfer { " transfer" } else { "" };
            format!("last={last_index}@{last_term}{forced}")
        }
        Body::VoteReply { ballot } => ballot_name(*ballot).to_owned(),
        Body::Append { prev_index, prev_term, commit, entries: sent } => {
            format!("prev={prev_index}@{prev_term} commit={commit} [{}]", entries(sent))
        }
        Body::AppendReply { outcome, willing } => outcome_details(*outcome) + willing_suffix(*willing),
        Body::Heartbeat { commit, commit_term, round } => {
            format!("commit={commit}@{commit_term} round={round}")
        }
        Body::HeartbeatReply { round, verified, durable, willing } => {
            format!("round={round} verified={verified} durable={durable}") + willing_suffix(*willing)
        }
        Body::TimeoutNow | Body::Outdated => String::new(),
        Body::Snapshot { index, term } => format!("table={index}@{term}"),
        Body::TermAsk { request } | Body::TermTold { request } => format!("request={request}"),
    }
}

fn voice_suffix(voice: Voice) -> &'static str {
    match voice {
        Voice::Whole => "",
        Voice::Damaged => " (damaged)",
        Voice::Healing => " (healing)",
        Voice::Forgetful => " (forgetful)",
    }
}

/// What a replica still knows of its past.
pub fn standing(standing: Standing) -> String {
    match standing {
        Standing::Whole => "whole".to_owned(),
        Standing::Damaged { last_index, last_term } => {
            format!("damaged, its log ended with {last_index}@{last_term}")
        }
        Standing::Forgetful { episode, told: None } => format!("forgetful since {episode}"),
        Standing::Forgetful { episode, told: Some(told) } => {
            format!("forgetful since {episode}, told {told}")
        }
    }
}

fn outcome_details(outcome: AppendOutcome) -> String {
    match outcome {
        AppendOutcome::Accepted { matched } => format!("accepted={matched}"),
        AppendOutcome::Rejected { prev_index, conflict_index, conflict_term, conflict_first } => {
            format!("rejected={prev_index} conflict={conflict_index}@{conflict_term} from={conflict_first}")
        }
    }
}

fn ballot_name(ballot: Ballot) -> &'static str {
    match ballot {
        Ballot::Granted => "granted",
        Ballot::Refused => "refused",
    }
}

fn willing_suffix(willing: Willingness) -> &'static str {
    match willing {
        Willingness::Willing => "",
        Willingness::Draining => " draining",
        Willingness::Short => " short",
        Willingness::Full => " full",
    }
}

pub fn persist(id: NodeId, persist: &Persist) -> String {
    let mut line = format!("n{id} writes #{}", persist.number);
    if let Some(state) = persist.hard_state {
        let vote = state.vote.map_or("-".to_owned(), |vote| format!("n{vote}"));
        line += &format!(" term={} vote={vote} commit={}", state.term, state.commit);
    }
    if let Some(now) = persist.standing {
        line += &format!(" {}", standing(now));
    }
    if let Some((index, term)) = persist.restart {
        line += &format!(" begins after {index}@{term}");
    }
    if !persist.entries.is_empty() {
        line += &format!(" [{}]", entries(&persist.entries));
    }
    line
}

pub fn role((role, term, leader): (Role, Term, Option<NodeId>), id: NodeId) -> String {
    match (role, leader) {
        (Role::Follower, Some(leader)) => format!("follows n{leader} in term {term}"),
        (Role::Follower, None) => format!("follows nobody in term {term}"),
        (Role::PreCandidate, _) => format!("asks for pre-votes in term {term}"),
        (Role::Candidate, _) => format!("asks for votes in term {term}"),
        (Role::Leader, leader) => {
            assert_eq!(leader, Some(id), "a leader knows itself");
            format!("leads term {term}")
        }
    }
}

fn ask(leader: Option<NodeId>) -> String {
    leader.map_or("no leader is known".to_owned(), |leader| format!("n{leader} leads"))
}

pub fn propose_error(error: &ProposeError) -> String {
    match error {
        ProposeError::NotLeader { leader } => ask(*leader),
        ProposeError::Transferring => "leadership is being handed over".to_owned(),
        ProposeError::Full => "too much is under way".to_owned(),
    }
}

pub fn read_error(error: &ReadError) -> String {
    match error {
        ReadError::NotLeader { leader } => ask(*leader),
        ReadError::NotYet => "nothing of this term is committed".to_owned(),
        ReadError::Full => "too many reads are under way".to_owned(),
    }
}

pub fn transfer_error(error: &TransferError) -> String {
    match error {
        TransferError::NotLeader { leader } => ask(*leader),
        TransferError::Transferring { to } => format!("leadership goes to n{to} already"),
        TransferError::NoTarget => "nobody there to take it".to_owned(),
    }
}
