//! What the clients asked, what they were told, and in which order.
//!
//! A client invokes an operation and, later or never, learns its outcome. The order of these events is the
//! real-time order that linearizability speaks of: in one thread it is exact, so each event simply takes the
//! next number.
//!
//! Invariants:
//! - An operation ends at most once, after it was invoked. One that never ends is of unknown outcome.
//! - [`Outcome::NotExecuted`] is a promise of the system: such an operation must never have an effect.
//!
//! It deliberately records operations of one key each: a transaction over several keys has no place here, nor
//! has a read that asked for less than linearizability.

use std::collections::BTreeMap;
use std::fmt;

/// Operations that one history may hold.
const OPERATIONS_MAX: usize = 1 << 22;

/// What an operation asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Reads the key.
    Get,
    /// Sets the value, where the condition holds.
    Put {
        /// The value.
        value: Vec<u8>,
        /// When.
        condition: Condition,
    },
    /// Appends to the value, where the condition holds; a missing key counts as empty.
    Append {
        /// What is appended.
        value: Vec<u8>,
        /// When.
        condition: Condition,
    },
    /// Removes the key, where the condition holds.
    Delete {
        /// When.
        condition: Condition,
    },
}

/// When a change is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// If this revision changed the key last; 0: if there is no such key.
    ModRevision(u64),
    /// If the key is at this version; 0: if there is no such key.
    Version(u64),
    /// If the key has this value.
    Value(Vec<u8>),
}

/// A key as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its value.
    pub value: Vec<u8>,
    /// 1 at its creation, one more with each change.
    pub version: u64,
    /// The revision that changed it last.
    pub mod_revision: u64,
}

/// What an answer says of the key as it was before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Previous {
    /// Nothing: it was not asked for.
    #[default]
    Untold,
    /// There was no such key.
    Missing,
    /// It was this.
    Was(Seen),
}

/// What an operation was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a Get: the key, `None` where there is none.
    Got(Option<Seen>),
    /// To a Put or an Append: it was done.
    Changed {
        /// The revision that it made.
        revision: u64,
        /// The key's version now.
        version: u64,
        /// The value's length now, where the answer tells it.
        length: Option<u64>,
        /// The key as it was.
        previous: Previous,
    },
    /// To a Delete: it was done.
    Deleted {
        /// The revision that it made, or the shard's where there was nothing to remove.
        revision: u64,
        /// Whether there was such a key.
        existed: bool,
        /// The key as it was.
        previous: Previous,
    },
    /// To any change: the condition did not hold.
    Refused {
        /// The key as it was.
        previous: Previous,
    },
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect between its invocation and its end.
    Answered(Answer),
    /// It certainly never takes effect.
    NotExecuted,
    /// It took effect at some time after its invocation, or will, or never does.
    Unknown,
}

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client(pub u32);

/// An operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(pub usize);

/// One operation of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its place in the history.
    pub id: OperationId,
    /// Who asked.
    pub client: Client,
    /// Of which key.
    pub key: Vec<u8>,
    /// What.
    pub call: Call,
    /// How it ended.
    pub outcome: Outcome,
    /// The number of its first event.
    pub invoked: u64,
    /// The number of its last event, `None` where it never ended.
    pub ended: Option<u64>,
    /// World time of both, in microseconds, for people to read.
    pub at_us: (u64, Option<u64>),
}

/// All operations of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    events: u64,
}

impl History {
    /// Notes that a client asks something, at a world time in microseconds.
    pub fn invoke(&mut self, client: Client, key: &[u8], call: Call, at_us: u64) -> OperationId {
        assert!(self.operations.len() < OPERATIONS_MAX, "a history of more than {OPERATIONS_MAX} operations");
        let id = OperationId(self.operations.len());
        self.events += 1;
        self.operations.push(Operation {
            id,
            client,
            key: key.to_vec(),
            call,
            outcome: Outcome::Unknown,
            invoked: self.events,
            ended: None,
            at_us: (at_us, None),
        });
        id
    }

    /// Notes how an operation ended, at a world time in microseconds.
    pub fn end(&mut self, id: OperationId, outcome: Outcome, at_us: u64) {
        self.events += 1;
        let operation = &mut self.operations[id.0];
        assert!(operation.ended.is_none(), "{operation} ends again");
        operation.ended = Some(self.events);
        operation.outcome = outcome;
        operation.at_us.1 = Some(at_us);
    }

    /// All operations, in the order of their invocation.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations of each key, in the order of their invocation.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<&[u8], Vec<&Operation>> {
        let mut by_key: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            by_key.entry(&operation.key).or_default().push(operation);
        }
        by_key
    }
}

/// A value to append that is told apart from all others, and from its neighbours: it ends with the only `;`
/// in it.
#[must_use]
pub fn token(client: Client, number: u64) -> Vec<u8> {
    format!("{}.{number};", client.0).into_bytes()
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} client {} [{}", self.id.0, self.client.0, self.at_us.0)?;
        match self.at_us.1 {
            Some(ended) => write!(f, "..{ended} us] ")?,
            None => write!(f, ".. us] ")?,
        }
        write!(f, "{} {} -> {}", self.call, Text(&self.key), self.outcome)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => write!(f, "get"),
            Self::Put { value, condition } => write!(f, "put {}{condition}", Text(value)),
            Self::Append { value, condition } => write!(f, "append {}{condition}", Text(value)),
            Self::Delete { condition } => write!(f, "delete{condition}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => Ok(()),
            Self::ModRevision(revision) => write!(f, " if mod revision {revision}"),
            Self::Version(version) => write!(f, " if version {version}"),
            Self::Value(value) => write!(f, " if value {}", Text(value)),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (version {}, revision {})", Text(&self.value), self.version, self.mod_revision)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(answer) => answer.fmt(f),
            Self::NotExecuted => write!(f, "not executed"),
            Self::Unknown => write!(f, "unknown"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Got(None) => write!(f, "no such key"),
            Self::Got(Some(seen)) => seen.fmt(f),
            Self::Changed { revision, version, length, previous } => {
                write!(f, "version {version}, revision {revision}")?;
                if let Some(length) = length {
                    write!(f, ", {length} bytes")?;
                }
                previous.fmt(f)
            }
            Self::Deleted { revision, existed: true, previous } => {
                write!(f, "deleted, revision {revision}{previous}")
            }
            Self::Deleted { existed: false, .. } => write!(f, "nothing to delete"),
            Self::Refused { previous } => write!(f, "refused{previous}"),
        }
    }
}

impl fmt::Display for Previous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untold => Ok(()),
            Self::Missing => write!(f, ", before: no such key"),
            Self::Was(seen) => write!(f, ", before: {seen}"),
        }
    }
}

/// Bytes for people: text where it is short and printable.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BYTES_SHOWN_MAX: usize = 80;
        if self.0.len() <= BYTES_SHOWN_MAX {
            return write!(f, "\"{}\"", self.0.escape_ascii());
        }
        let (head, tail) = (&self.0[..BYTES_SHOWN_MAX / 2], &self.0[self.0.len() - BYTES_SHOWN_MAX / 2..]);
        write!(f, "\"{}...{}\" ({} bytes)", head.escape_ascii(), tail.escape_ascii(), self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_reads_as_a_sentence() {
        let mut history = History::default();
        let condition = Condition::Version(2);
        let id = history.invoke(Client(3), b"k", Call::Put { value: b"v\0".to_vec(), condition }, 10);
        assert_eq!(
            history.operations()[0].to_string(),
            "#0 client 3 [10.. us] put \"v\\x00\" if version 2 \"k\" -> unknown"
        );
        let seen = Seen { value: vec![b'a'; 100], version: 1, mod_revision: 7 };
        let refused = Answer::Refused { previous: Previous::Was(seen) };
        history.end(id, Outcome::Answered(refused), 20);
        let text = history.operations()[0].to_string();
        assert!(text.contains("[10..20 us]") && text.contains("(100 bytes)"), "{text}");
    }

    #[test]
    #[should_panic(expected = "ends again")]
    fn an_operation_ends_once() {
        let mut history = History::default();
        let id = history.invoke(Client(1), b"k", Call::Get, 0);
        history.end(id, Outcome::NotExecuted, 1);
        history.end(id, Outcome::Unknown, 2);
    }
}
