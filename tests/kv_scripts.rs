//! Golden scripts of the state machine: what is asked of a shard, entry by entry, and what comes of it.
//!
//! A script speaks to one shard as an edge would: a command is checked by itself, then applied at the next
//! index. With a prefix (`a:`) it speaks to a replica of that name. The scripts of `tests/golden/kv` are the
//! contract in small; `UPDATE_GOLDENFILES=1 cargo test --test kv_scripts` writes what they say anew, for a
//! person to read the difference.
//!
//! ```text
//! limits value_bytes_max=8 …            before the first entry
//! put k v [previous] [if=revision] [id=session/sequence/acknowledged] · append k v … · delete k [previous] …
//! txn [if="key version = 1"] [then="put k v; get k"] [else="delete k previous"] [id=…]
//! open [ttl] · keepalive session acknowledged · close session · expire session last_active_index · noop
//! get k · scan [start=] [end=] [limit=] [bytes=] [keys] · read [if=] [then="k1 k2"] [else=]
//! sessions · stats · restart · digest a b
//! freeze term=N · merge                 a table, in memory; restart begins with it
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use distribkv::ids::{Index, Revision, Sequence, SessionId, ShardId, Term};
use distribkv::kv::{
    Answer, Applied, Command, Comparison, Condition, Config, KeyValue, Limits, Operation, OperationResult,
    Previous, Query, QueryAnswer, ReadTxn, Refusal, RequestId, ScanKeys, State, Target, Txn, Write,
};
use goldenscript::{Argument, Context, Runner};

use kv_tables::{File, base_of, base_of_query};

#[allow(dead_code, reason = "other tests use the rest of it")]
mod kv_tables;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// The shards of one script, each with the entries that it applied.
struct Shards {
    config: Config,
    replicas: BTreeMap<String, Replica>,
}

struct Replica {
    config: Config,
    state: State,
    log: Vec<Option<Command>>,
    table: Option<File>,
    tables: u64,
}

/// A script's command: its words, and its `key=value` pairs in order.
struct Arguments<'a> {
    words: Vec<&'a str>,
    pairs: Vec<(&'a str, &'a str)>,
}

impl Runner for Shards {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, context: &Context) -> Fallible<String> {
        let arguments = Arguments::of(command);
        match command.name.as_str() {
            "limits" => return self.limits(&arguments),
            "digest" => return self.digest(&arguments),
            _ => {}
        }
        let config = self.config;
        let name = context.prefix.clone().unwrap_or_default();
        let replica = self.replicas.entry(name).or_insert_with(|| Replica::new(config));
        match command.name.as_str() {
            "get" | "scan" | "read" => replica.query(command.name.as_str(), &arguments),
            "sessions" => Ok(replica.sessions()),
            "stats" => Ok(replica.stats()),
            "restart" => replica.restart(),
            "freeze" => replica.freeze(&arguments),
            "merge" => replica.merge(),
            "noop" => Ok(replica.noop()),
            name => replica.propose(command_of(name, &arguments)?),
        }
    }
}

impl Shards {
    fn new(config: Config) -> Self {
        Self { config, replicas: BTreeMap::new() }
    }

    fn limits(&mut self, arguments: &Arguments) -> Fallible<String> {
        let limits = &mut self.config.limits;
        for (name, value) in &arguments.pairs {
            match *name {
                "key_bytes_max" => limits.key_bytes_max = value.parse()?,
                "value_bytes_max" => limits.value_bytes_max = value.parse()?,
                "txn_operations_max" => limits.txn_operations_max = value.parse()?,
                "command_bytes_max" => limits.command_bytes_max = value.parse()?,
                "answer_bytes_max" => limits.answer_bytes_max = value.parse()?,
                "scan_keys_max" => limits.scan_keys_max = value.parse()?,
                "sessions_max" => limits.sessions_max = value.parse()?,
                "session_unacknowledged_max" => limits.session_unacknowledged_max = value.parse()?,
                "session_answer_bytes_max" => limits.session_answer_bytes_max = value.parse()?,
                "sessions_answer_bytes_max" => limits.sessions_answer_bytes_max = value.parse()?,
                name => return Err(format!("no limit is called {name}").into()),
            }
        }
        Ok(String::new())
    }

    fn digest(&self, arguments: &Arguments) -> Fallible<String> {
        let digest = |at| -> Fallible<u64> {
            let name: &str = arguments.word(at)?;
            Ok(self.replicas.get(name).ok_or("no such replica")?.state.digest())
        };
        Ok(if digest(0)? == digest(1)? { "the same digest" } else { "another digest" }.into())
    }
}

impl Replica {
    fn new(config: Config) -> Self {
        Self { config, state: State::new(config), log: Vec::new(), table: None, tables: 0 }
    }

    /// Checks as an edge does, and applies what passes through its bytes, as a log does.
    fn propose(&mut self, command: Command) -> Fallible<String> {
        if let Err(refusal) = command.check(&self.config.limits) {
            return Ok(format!("not proposed: {refusal}"));
        }
        let mut encoded = Vec::new();
        command.encode(&mut encoded);
        let command = Command::decode(encoded.into())?;
        let index = self.state.applied().next();
        let base = base_of(&self.state, self.table.as_ref(), &command);
        let outcome = self.state.apply(index, &command, &base);
        self.log.push(Some(command));
        Ok(format!("[{index}] {}", show_outcome(&outcome)))
    }

    fn noop(&mut self) -> String {
        let index = self.state.applied().next();
        self.state.apply_noop(index);
        self.log.push(None);
        format!("[{index}] no-op")
    }

    fn query(&self, name: &str, arguments: &Arguments) -> Fallible<String> {
        let query = query_of(name, arguments)?;
        if let Err(refusal) = query.check(&self.config.limits) {
            return Ok(format!("not asked: {refusal}"));
        }
        let base = base_of_query(&self.state, self.table.as_ref(), &query);
        Ok(match self.state.query(&query, &base) {
            Ok((revision, answer)) => format!("revision {revision}: {}", show_query_answer(&answer)),
            Err(refusal) => format!("refused: {refusal}"),
        })
    }

    fn sessions(&self) -> String {
        let sessions = self.state.sessions();
        let lines: Vec<String> = sessions
            .map(|(session, ttl_ms, last)| {
                format!("session {session}: ttl {ttl_ms} ms, last active at [{last}]")
            })
            .collect();
        if lines.is_empty() { "no sessions".into() } else { lines.join("\n") }
    }

    fn stats(&self) -> String {
        let state = &self.state;
        let (applied, revision) = (state.applied(), state.revision());
        format!("applied [{applied}], revision {revision}, {} keys, {} bytes", state.keys(), state.bytes())
    }

    fn freeze(&mut self, arguments: &Arguments) -> Fallible<String> {
        if let Some(frozen) = self.state.frozen() {
            return Ok(format!("frozen already, at [{}]", frozen.meta().applied));
        }
        let term = arguments.one("term").unwrap_or("1").parse()?;
        let frozen = self.state.freeze(Term(term), Bytes::from_static(b"1 2 3"));
        let meta = frozen.meta();
        let (applied, revision, sums) = (meta.applied, meta.revision, meta.sums);
        Ok(format!("frozen at [{applied}], revision {revision}, {} keys, {} bytes", sums.keys, sums.bytes))
    }

    /// Makes a table of what is frozen, its number as its salt.
    fn merge(&mut self) -> Fallible<String> {
        self.tables += 1;
        let file = match File::merge(&mut self.state, self.table.as_ref(), self.tables) {
            Ok(file) => file,
            Err(error) => return Ok(format!("no table: {error}")),
        };
        let length = file.length();
        self.table = Some(file);
        let blocks = self.state.table().map_or(0, |table| table.blocks());
        Ok(format!("a table of {length} bytes, {blocks} blocks"))
    }

    /// Builds the state anew from the table, if there is one, and the log after it, as a node that starts
    /// again does.
    fn restart(&mut self) -> Fallible<String> {
        let before = self.state.digest();
        self.state = match &self.table {
            Some(table) => table.state(self.config)?,
            None => State::new(self.config),
        };
        let applied = usize::try_from(self.state.applied().0)?;
        for command in self.log.get(applied..).unwrap_or_default() {
            let index = self.state.applied().next();
            match command {
                Some(command) => {
                    let base = base_of(&self.state, self.table.as_ref(), command);
                    drop(self.state.apply(index, command, &base));
                }
                None => self.state.apply_noop(index),
            }
        }
        #[cfg(debug_assertions)]
        self.state.restarted();
        Ok(if self.state.digest() == before { "the same digest" } else { "another digest" }.into())
    }
}

impl<'a> Arguments<'a> {
    fn of(command: &'a goldenscript::Command) -> Self {
        let (mut words, mut pairs) = (Vec::new(), Vec::new());
        for argument in &command.args {
            match argument {
                Argument::Positional(word) => words.push(word.as_str()),
                Argument::KeyValue(key, value) => pairs.push((key.as_str(), value.as_str())),
                other => panic!("no argument is like {other}"),
            }
        }
        Self { words, pairs }
    }

    fn word(&self, at: usize) -> Fallible<&'a str> {
        self.words.get(at).copied().ok_or_else(|| format!("word {at} is missing").into())
    }

    fn bytes(&self, at: usize) -> Fallible<Bytes> {
        Ok(Bytes::copy_from_slice(self.word(at)?.as_bytes()))
    }

    fn number(&self, at: usize) -> Fallible<u64> {
        Ok(self.word(at)?.parse()?)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn one(&self, name: &str) -> Option<&'a str> {
        self.all(name).last()
    }

    fn previous(&self) -> Previous {
        if self.words.contains(&"previous") { Previous::Return } else { Previous::Omit }
    }

    fn if_mod_revision(&self) -> Fallible<Option<Revision>> {
        Ok(self.one("if").map(str::parse).transpose()?.map(Revision))
    }

    fn conditions(&self) -> Fallible<Vec<Condition>> {
        self.all("if").map(condition_of).collect()
    }

    fn id(&self) -> Fallible<Option<RequestId>> {
        let Some(id) = self.one("id") else { return Ok(None) };
        let numbers: Vec<u64> = id.split('/').map(str::parse).collect::<Result<_, _>>()?;
        let [session, sequence, acknowledged] = numbers[..] else {
            return Err("id=session/sequence/acknowledged".into());
        };
        let (session, sequence, acknowledged) =
            (SessionId(session), Sequence(sequence), Sequence(acknowledged));
        Ok(Some(RequestId { session, sequence, acknowledged }))
    }
}

fn command_of(name: &str, arguments: &Arguments) -> Fallible<Command> {
    let session = |at| arguments.number(at).map(SessionId);
    let write = match name {
        "put" => Write::Put {
            key: arguments.bytes(0)?,
            value: arguments.bytes(1)?,
            if_mod_revision: arguments.if_mod_revision()?,
            return_previous: arguments.previous(),
        },
        "append" => Write::Append {
            key: arguments.bytes(0)?,
            value: arguments.bytes(1)?,
            if_mod_revision: arguments.if_mod_revision()?,
        },
        "delete" => Write::Delete {
            key: arguments.bytes(0)?,
            if_mod_revision: arguments.if_mod_revision()?,
            return_previous: arguments.previous(),
        },
        "txn" => Write::Txn(Txn {
            conditions: arguments.conditions()?,
            then: operations_of(arguments.one("then"))?,
            otherwise: operations_of(arguments.one("else"))?,
        }),
        "open" => return Ok(Command::OpenSession { ttl_ms: arguments.number(0).unwrap_or(0) }),
        "keepalive" => {
            let acknowledged = Sequence(arguments.number(1)?);
            return Ok(Command::KeepAlive { session: session(0)?, acknowledged });
        }
        "close" => return Ok(Command::CloseSession { session: session(0)? }),
        "expire" => {
            let last_active_index = Index(arguments.number(1)?);
            return Ok(Command::Expire { session: session(0)?, last_active_index });
        }
        name => return Err(format!("no command is called {name}").into()),
    };
    Ok(Command::Write { id: arguments.id()?, write })
}

fn query_of(name: &str, arguments: &Arguments) -> Fallible<Query> {
    let bytes = |name: &str| Bytes::copy_from_slice(arguments.one(name).unwrap_or("").as_bytes());
    let keys_of = |name: &str| -> Vec<Bytes> {
        let words = arguments.one(name).unwrap_or("").split_whitespace();
        words.map(|key| Bytes::copy_from_slice(key.as_bytes())).collect()
    };
    Ok(match name {
        "get" => Query::Get { key: arguments.bytes(0)? },
        "scan" => Query::Scan {
            start: bytes("start"),
            end: bytes("end"),
            limit: arguments.one("limit").unwrap_or("0").parse()?,
            bytes_max: arguments.one("bytes").unwrap_or("1000000").parse()?,
            keys: if arguments.words.contains(&"keys") { ScanKeys::KeysOnly } else { ScanKeys::Whole },
        },
        "read" => Query::Txn(ReadTxn {
            conditions: arguments.conditions()?,
            then: keys_of("then"),
            otherwise: keys_of("else"),
        }),
        name => return Err(format!("no query is called {name}").into()),
    })
}

/// `key version = 1`, `key value < x`
fn condition_of(text: &str) -> Fallible<Condition> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [key, of, comparison, target] = words[..] else { return Err(format!("no condition: {text}").into()) };
    let comparison = match comparison {
        "=" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        ">" => Comparison::Greater,
        comparison => return Err(format!("no comparison is {comparison}").into()),
    };
    let target = match of {
        "version" => Target::Version(target.parse()?),
        "create" => Target::CreateRevision(Revision(target.parse()?)),
        "mod" => Target::ModRevision(Revision(target.parse()?)),
        "value" => Target::Value(Bytes::copy_from_slice(target.as_bytes())),
        of => return Err(format!("no key has a {of}").into()),
    };
    Ok(Condition { key: Bytes::copy_from_slice(key.as_bytes()), comparison, target })
}

/// `put a x previous; get b`
fn operations_of(text: Option<&str>) -> Fallible<Vec<Operation>> {
    let texts = text.unwrap_or("").split(';').map(str::trim).filter(|text| !text.is_empty());
    texts.map(operation_of).collect()
}

fn operation_of(text: &str) -> Fallible<Operation> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let arguments = Arguments { words: words[1..].to_vec(), pairs: Vec::new() };
    let (key, return_previous) = (arguments.bytes(0)?, arguments.previous());
    Ok(match words[0] {
        "get" => Operation::Get { key },
        "put" => Operation::Put { key, value: arguments.bytes(1)?, return_previous },
        "append" => Operation::Append { key, value: arguments.bytes(1)? },
        "delete" => Operation::Delete { key, return_previous },
        name => return Err(format!("no operation is called {name}").into()),
    })
}

fn show_outcome(outcome: &Result<Applied, Refusal>) -> String {
    match outcome {
        Ok(Applied { revision, answer }) => format!("revision {revision}: {}", show_answer(answer)),
        Err(refusal) => format!("refused: {refusal}"),
    }
}

fn show_answer(answer: &Answer) -> String {
    let verdict = |succeeded: &bool| if *succeeded { "" } else { " failed" };
    match answer {
        Answer::Put { succeeded, previous, version } => {
            format!("put{}, version {version}{}", verdict(succeeded), show_previous(previous.as_ref()))
        }
        Answer::Append { succeeded, length, version } => {
            format!("append{}, length {length}, version {version}", verdict(succeeded))
        }
        Answer::Delete { succeeded, existed, previous } => {
            let existed = if *existed { "existed" } else { "did not exist" };
            format!("delete{}, {existed}{}", verdict(succeeded), show_previous(previous.as_ref()))
        }
        Answer::Txn { succeeded, results } => {
            let results: Vec<String> = results.iter().map(show_result).collect();
            format!("txn {} [{}]", if *succeeded { "then" } else { "else" }, results.join("; "))
        }
        Answer::SessionOpened { session, ttl_ms } => format!("session {session} opened, ttl {ttl_ms} ms"),
        Answer::KeptAlive { ttl_ms } => format!("kept alive, ttl {ttl_ms} ms"),
        Answer::SessionClosed => "session closed".into(),
        Answer::Expired => "session expired".into(),
        Answer::NotExpired => "session not expired".into(),
    }
}

fn show_result(result: &OperationResult) -> String {
    match result {
        OperationResult::Get(kv) => format!("get {}", show_found(kv.as_ref())),
        OperationResult::Put { previous, version } => {
            format!("put, version {version}{}", show_previous(previous.as_ref()))
        }
        OperationResult::Append { length, version } => format!("append, length {length}, version {version}"),
        OperationResult::Delete { existed, previous } => {
            let existed = if *existed { "existed" } else { "did not exist" };
            format!("delete, {existed}{}", show_previous(previous.as_ref()))
        }
    }
}

fn show_query_answer(answer: &QueryAnswer) -> String {
    match answer {
        QueryAnswer::Get(kv) => show_found(kv.as_ref()),
        QueryAnswer::Scan { kvs, more } => {
            let mut lines = vec![format!("{} keys", kvs.len())];
            lines.extend(kvs.iter().map(|kv| format!("  {}", show_kv(kv))));
            lines.extend(more.iter().map(|key| format!("  more from {}", show_bytes(key))));
            lines.join("\n")
        }
        QueryAnswer::Txn { succeeded, results } => {
            let results: Vec<String> = results.iter().map(|kv| show_found(kv.as_ref())).collect();
            format!("txn {} [{}]", if *succeeded { "then" } else { "else" }, results.join("; "))
        }
    }
}

fn show_previous(previous: Option<&KeyValue>) -> String {
    previous.map_or(String::new(), |kv| format!(", previous {}", show_kv(kv)))
}

fn show_found(kv: Option<&KeyValue>) -> String {
    kv.map_or("none".into(), show_kv)
}

fn show_kv(kv: &KeyValue) -> String {
    let (key, value) = (show_bytes(&kv.key), show_bytes(&kv.value));
    let (create, modified) = (kv.create_revision, kv.mod_revision);
    format!("{key}={value} (create {create}, mod {modified}, version {})", kv.version)
}

fn show_bytes(bytes: &Bytes) -> String {
    bytes.escape_ascii().to_string()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kv")
}

fn config() -> Config {
    Config::new(ShardId(0), Limits::DEFAULT)
}

/// A test for each script, and one that no script is without a test.
macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() -> std::io::Result<()> {
                goldenscript::run(&mut Shards::new(config()), directory().join(stringify!($name)))
            }
        )*

        #[test]
        fn every_script_has_a_test() -> std::io::Result<()> {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(directory())? {
                found.push(entry?.file_name().to_string_lossy().into_owned());
            }
            found.sort();
            assert_eq!(found, [$(stringify!($name)),*]);
            Ok(())
        }
    };
}

scripts! {
    append,
    compare_and_swap,
    delete,
    digest,
    limits,
    noop,
    put,
    read_txn,
    restart,
    scan,
    session_answer_bytes,
    session_end,
    session_expiry,
    session_forgotten,
    session_refusal_stored,
    session_resend,
    session_reused,
    session_window,
    table,
    table_restart,
    table_scan,
    tombstone,
    txn,
    txn_limits,
}

/// Each planted bug must change what one script says: a script that cannot fail is a defect.
#[cfg(debug_assertions)]
mod planted {
    use distribkv::kv::PlantedBug;

    use super::*;

    /// The script that finds a bug.
    fn found_by(bug: PlantedBug) -> &'static str {
        match bug {
            PlantedBug::SessionsLostOnRestart => "restart",
            PlantedBug::AnswerNotStored
            | PlantedBug::AppendNotIdempotent
            | PlantedBug::ResendRevisionFresh => "session_resend",
            PlantedBug::RefusalNotStored => "session_refusal_stored",
            PlantedBug::ForgottenReapplied | PlantedBug::AcknowledgedShrinks => "session_forgotten",
            PlantedBug::HashIgnored | PlantedBug::SequenceReusedApplied => "session_reused",
            PlantedBug::WindowIgnored => "session_window",
            PlantedBug::ExpiryByClock => "session_expiry",
            PlantedBug::ComparisonIgnored => "compare_and_swap",
            PlantedBug::RevisionAlwaysSteps => "delete",
            PlantedBug::TxnNotAtomic => "txn_limits",
            PlantedBug::DigestKeepsDeleted => "digest",
            PlantedBug::SessionsMissingFromTable | PlantedBug::AppliedIndexApartFromState => "table_restart",
            PlantedBug::TombstoneDroppedEarly => "tombstone",
        }
    }

    #[test]
    fn each_bug_is_found_by_its_script() -> std::io::Result<()> {
        for bug in PlantedBug::ALL {
            let script = std::fs::read_to_string(directory().join(found_by(bug)))?;
            let planted = Config { planted: Some(bug), ..config() };
            let said = goldenscript::generate(&mut Shards::new(planted), &script)?;
            assert_ne!(said, script, "{} does not find {bug:?}", found_by(bug));
        }
        Ok(())
    }
}
