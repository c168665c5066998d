//! The layers against a state that has but one: freezes, merges, installs and restarts at any moment change
//! no answer, no count and no digest.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use proptest::prelude::*;

use super::table::{
    Block, BlockHandle, EntryRef, Footer, TableError, TableId, TableIndex, TableMeta, TableWriter,
};
use super::*;
use crate::ids::{Index, Revision, Sequence, SessionId, ShardId, Term};

/// A table's file, in memory.
#[derive(Clone)]
struct File(Bytes);

impl File {
    fn part(&self, offset: u64, length: u64) -> Bytes {
        self.0.slice(offset as usize..(offset + length) as usize)
    }

    fn index(&self) -> Result<TableIndex, TableError> {
        let length = self.0.len() as u64;
        let footer = Footer::decode(&self.part(Footer::offset(length), 4096), length)?;
        let [index, filter] =
            [footer.index, footer.filter].map(|section| self.part(section.offset, section.padded_length()));
        TableIndex::open(footer, &index, &filter)
    }

    fn block(&self, handle: BlockHandle) -> Block {
        let bytes = self.part(handle.offset, u64::from(handle.length));
        Block::decode(handle, bytes).expect("it was just written")
    }

    fn state(&self, config: Config) -> Result<State, TableError> {
        let index = self.index()?;
        let sessions = index.footer().sessions;
        State::from_table(config, index, &self.part(sessions.offset, sessions.padded_length()))
    }
}

/// Only the blocks that were asked for last.
#[derive(Default)]
struct LastAsked(Vec<Block>);

impl BlockSource for LastAsked {
    fn block(&mut self, handle: &BlockHandle) -> Option<Block> {
        self.0.iter().find(|block| block.handle() == *handle).cloned()
    }
}

/// A shard as its driver has it, and beside it the same state in memory alone.
struct Shard {
    config: Config,
    state: State,
    table: Option<File>,
    merge: Option<(Merge, Vec<u8>)>,
    log: Vec<Command>,
    tables: u64,
    loads: usize,
    plain: State,
}

impl Shard {
    fn new() -> Self {
        Self::with(Config::new(ShardId(7), Limits::DEFAULT))
    }

    fn with(config: Config) -> Self {
        let plain = State::new(Config::new(config.shard, config.limits));
        Self {
            config,
            state: State::new(config),
            table: None,
            merge: None,
            log: Vec::new(),
            tables: 0,
            loads: 0,
            plain,
        }
    }

    fn settle(&mut self, mut ask: impl FnMut(&State, &mut LastAsked) -> Resolved) -> Base {
        let mut source = LastAsked::default();
        loop {
            match ask(&self.state, &mut source) {
                Resolved::Done(base) => return base,
                Resolved::Missing(handles) => {
                    let file = self.table.as_ref().expect("only a table has blocks");
                    assert!(!handles.is_empty() && handles.is_sorted_by(|one, other| one < other));
                    self.loads += handles.len();
                    source.0 = handles.into_iter().map(|handle| file.block(handle)).collect();
                }
            }
        }
    }

    fn apply_layered(&mut self, command: &Command) -> Result<Applied, Refusal> {
        // As the driver does it; half of what could be overwritten at once goes the long way all the same.
        let index = self.state.applied().next();
        if index.0.is_multiple_of(2)
            && let Some(applied) = self.state.overwrite(index, command)
        {
            return Ok(applied);
        }
        let base = self.settle(|state, source| state.resolve(command, source));
        self.state.apply(index, command, &base)
    }

    /// Applies a command to both. Whether they agree on what came of it.
    fn apply(&mut self, command: Command) -> bool {
        let layered = self.apply_layered(&command);
        let plain = self.plain.apply(self.plain.applied().next(), &command, &Base::default());
        self.log.push(command);
        layered == plain
    }

    fn query_layered(&mut self, query: &Query) -> Result<(Revision, QueryAnswer), Refusal> {
        let mut run = ScanRun::default();
        let base = self.settle(|state, source| state.resolve_query(query, &mut run, source));
        self.state.query(query, &base)
    }

    fn freeze(&mut self) {
        if self.state.frozen().is_none() {
            let frozen = self.state.freeze(Term(3), Bytes::from_static(b"members"));
            assert_eq!(self.state.memtable_bytes(), 0);
            assert_eq!(self.state.frozen_bytes(), frozen.memory_bytes());
        }
    }

    /// Goes some steps on with a merge, which is begun or begun again where none is at work.
    fn merge(&mut self, steps: usize) {
        let Some(frozen) = self.state.frozen().cloned() else { return };
        let table = self.state.table().cloned();
        let (mut merge, mut file) = self.merge.take().unwrap_or_else(|| {
            self.tables += 1;
            (Merge::new(frozen, table, self.tables), Vec::new())
        });
        for _ in 0..steps {
            match merge.step(500).expect("the entries are those that were frozen") {
                MergeStep::Again => {}
                MergeStep::Block(handle) => {
                    let from = self.table.as_ref().expect("only a table has blocks");
                    merge.feed(from.block(handle));
                }
                MergeStep::Output => {
                    while let Some(chunk) = merge.take_output() {
                        assert_eq!(chunk.offset, file.len() as u64);
                        file.extend_from_slice(chunk.bytes);
                    }
                }
                MergeStep::Done => {
                    assert_eq!(merge.footer().map(|footer| footer.file_length), Some(file.len() as u64));
                    return self.install(merge, file);
                }
            }
        }
        self.merge = Some((merge, file));
    }

    fn install(&mut self, merge: Merge, file: Vec<u8>) {
        drop(merge);
        let file = File(file.into());
        let retired = self.state.install_table(file.index().expect("it was just written"));
        assert_eq!(self.state.frozen_bytes(), 0);
        let mut retired = retired;
        while retired.drop_some(3) {}
        self.table = Some(file);
    }

    /// Starts again from the last table and the log after it.
    fn restart(&mut self) -> Result<(), TableError> {
        let restarted = match &self.table {
            Some(file) => file.state(self.config)?,
            None => State::new(self.config),
        };
        let mut retired = std::mem::replace(&mut self.state, restarted).retire();
        self.merge = None;
        while retired.drop_some(7) {}
        let log = std::mem::take(&mut self.log);
        for command in log.iter().skip(self.state.applied().0 as usize) {
            let _ = self.apply_layered(command);
        }
        self.log = log;
        Ok(())
    }

    fn disagreement(&self) -> Option<String> {
        let of = |state: &State| {
            let sessions: Vec<_> = state.sessions().collect();
            (state.applied(), state.revision(), state.keys(), state.bytes(), state.digest(), sessions)
        };
        let (layered, plain) = (of(&self.state), of(&self.plain));
        (layered != plain).then(|| format!("{layered:?} is not {plain:?}"))
    }

    /// All keys of a scan, page by page, each of which has to get on.
    fn pages(
        &mut self,
        start: &Bytes,
        end: &Bytes,
        limit: u32,
        bytes_max: u32,
        keys: ScanKeys,
    ) -> Vec<KeyValue> {
        let mut all = Vec::new();
        let mut from = start.clone();
        loop {
            let (start, end) = (from.clone(), end.clone());
            let query = Query::Scan { start, end, limit, bytes_max, keys };
            let Ok((_, QueryAnswer::Scan { kvs, more })) = self.query_layered(&query) else {
                panic!("a Scan is answered as one");
            };
            assert!(limit == 0 || kvs.len() <= limit as usize);
            all.extend(kvs);
            let Some(next) = more else { return all };
            assert!(next > from, "{next:?} is not beyond {from:?}");
            from = next;
        }
    }

    /// The keys of all layers backward.
    fn backward(&mut self) -> Vec<(Vec<u8>, u64)> {
        let query = whole_scan();
        let mut run = ScanRun::default();
        let base = self.settle(|state, source| state.resolve_query(&query, &mut run, source));
        let walk = self.state.store.reading(&base).walk(Bound::Unbounded, Bound::Unbounded).rev();
        walk.filter_map(|(key, held)| held.map(|held| (key.to_vec(), held.version))).collect()
    }
}

fn whole_scan() -> Query {
    let (limit, bytes_max, keys) = (0, u32::MAX, ScanKeys::Whole);
    Query::Scan { start: Bytes::new(), end: Bytes::new(), limit, bytes_max, keys }
}

/// What happens to a shard.
#[derive(Clone, Debug)]
enum Event {
    Apply(Command),
    Freeze,
    Merge(usize),
    Abandon,
    Restart,
    Query(Query),
    Scan(Bytes, Bytes, u32, u32, ScanKeys),
}

fn key() -> impl Strategy<Value = Bytes> {
    let short = (0..30_u32).prop_map(|number| Bytes::from(format!("k{number:02}")));
    let long = (0..6_u32).prop_map(|number| Bytes::from(format!("k{number}{}", "-".repeat(100))));
    prop_oneof![4 => short, 1 => long, 1 => strategies::key()]
}

fn value() -> impl Strategy<Value = Bytes> {
    let length = prop_oneof![6 => 0..40_usize, 3 => Just(5000), 1 => Just(20_000)];
    (any::<u8>(), length).prop_map(|(byte, length)| Bytes::from(vec![byte; length]))
}

fn write() -> impl Strategy<Value = Write> {
    let previous = || prop_oneof![Just(Previous::Omit), Just(Previous::Return)];
    prop_oneof![
        4 => (key(), value(), previous()).prop_map(|(key, value, return_previous)| Write::Put {
            key, value, if_mod_revision: None, return_previous
        }),
        2 => (key(), value()).prop_map(|(key, value)| Write::Append { key, value, if_mod_revision: None }),
        4 => (key(), previous()).prop_map(|(key, return_previous)| Write::Delete {
            key, if_mod_revision: None, return_previous
        }),
        2 => strategies::write(),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let id = (1..6_u64, 1..6_u64, 0..4_u64).prop_map(|(session, sequence, acknowledged)| RequestId {
        session: SessionId(7 << 48 | session),
        sequence: Sequence(sequence),
        acknowledged: Sequence(acknowledged.min(sequence - 1)),
    });
    prop_oneof![
        6 => write().prop_map(|write| Command::Write { id: None, write }),
        2 => (id, write()).prop_map(|(id, write)| Command::Write { id: Some(id), write }),
        1 => Just(Command::OpenSession { ttl_ms: 0 }),
        1 => strategies::command(),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let bound = || prop_oneof![1 => Just(Bytes::new()), 2 => key()];
    let parts = prop_oneof![Just(ScanKeys::KeysOnly), Just(ScanKeys::Whole)];
    prop_oneof![
        12 => command().prop_map(Event::Apply),
        2 => Just(Event::Freeze),
        3 => (1..40_usize).prop_map(Event::Merge),
        1 => Just(Event::Abandon),
        1 => Just(Event::Restart),
        2 => key().prop_map(|key| Event::Query(Query::Get { key })),
        1 => strategies::query().prop_map(Event::Query),
        2 => (bound(), bound(), 0..5_u32, prop_oneof![Just(u32::MAX), 0..9000_u32], parts)
            .prop_map(|(start, end, limit, bytes, keys)| Event::Scan(start, end, limit, bytes, keys)),
    ]
}

fn happen(shard: &mut Shard, event: Event) -> Result<(), TestCaseError> {
    match event {
        Event::Apply(command) => prop_assert!(shard.apply(command), "another answer"),
        Event::Freeze => shard.freeze(),
        Event::Merge(steps) => shard.merge(steps),
        Event::Abandon => shard.merge = None,
        Event::Restart => shard.restart().expect("nothing is damaged"),
        Event::Query(Query::Scan { start, end, limit, bytes_max, keys }) => {
            let pages = shard.pages(&start, &end, limit, bytes_max, keys);
            prop_assert_eq!(pages, plain_scan(shard, start, end, keys));
        }
        Event::Query(query) => {
            let layered = shard.query_layered(&query);
            prop_assert_eq!(layered, shard.plain.query(&query, &Base::default()));
        }
        Event::Scan(start, end, limit, bytes_max, keys) => {
            let pages = shard.pages(&start, &end, limit, bytes_max, keys);
            prop_assert_eq!(pages, plain_scan(shard, start, end, keys));
        }
    }
    Ok(())
}

fn plain_scan(shard: &Shard, start: Bytes, end: Bytes, keys: ScanKeys) -> Vec<KeyValue> {
    let query = Query::Scan { start, end, limit: 0, bytes_max: u32::MAX, keys };
    match shard.plain.query(&query, &Base::default()) {
        Ok((_, QueryAnswer::Scan { kvs, more: None })) => kvs,
        other => panic!("a few keys fit into a page: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_change_nothing(events in prop::collection::vec(event(), 0..150)) {
        let mut shard = Shard::new();
        for event in events {
            happen(&mut shard, event)?;
            prop_assert_eq!(shard.disagreement(), None);
        }
        let all = plain_scan(&shard, Bytes::new(), Bytes::new(), ScanKeys::Whole);
        let bytes: usize = all.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        prop_assert_eq!((shard.state.keys(), shard.state.bytes()), (all.len() as u64, bytes as u64));
        let backward: Vec<_> = all.iter().rev().map(|kv| (kv.key.to_vec(), kv.version)).collect();
        prop_assert_eq!(shard.backward(), backward);
        shard.restart().expect("nothing is damaged");
        prop_assert_eq!(shard.disagreement(), None);
    }

    /// Whatever bytes are taken for sessions.
    #[test]
    fn no_sessions_make_a_decoder_panic(
        bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200),
    ) {
        let config = Config::new(ShardId(7), Limits::DEFAULT);
        let _ = sessions::Sessions::decode(config, &bytes.into());
    }
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
    let (key, value) = (key.into(), value.into());
    let write = Write::Put { key, value, if_mod_revision: None, return_previous: Previous::Omit };
    Command::Write { id: None, write }
}

fn delete(key: impl Into<Bytes>) -> Command {
    let write = Write::Delete { key: key.into(), if_mod_revision: None, return_previous: Previous::Omit };
    Command::Write { id: None, write }
}

fn numbered(number: u32) -> String {
    format!("key {number:06}")
}

/// A shard with a table of keys.
fn shard_of(keys: u32) -> Shard {
    let mut shard = Shard::new();
    (0..keys).for_each(|number| assert!(shard.apply(put(numbered(number), vec![0; 100]))));
    shard.freeze();
    while shard.table.is_none() {
        shard.merge(100);
    }
    shard
}

#[test]
fn a_scan_gets_on_where_everything_was_deleted() {
    let keys = 30_000;
    let mut shard = shard_of(keys);
    (1..keys).for_each(|number| assert!(shard.apply(delete(numbered(number)))));
    assert!(shard.apply(put("zz", "last")));
    let (mut pages, mut from, mut found) = (0, Bytes::new(), Vec::new());
    loop {
        let query = Query::Scan {
            start: from,
            end: Bytes::new(),
            limit: 0,
            bytes_max: u32::MAX,
            keys: ScanKeys::Whole,
        };
        let Ok((_, QueryAnswer::Scan { kvs, more })) = shard.query_layered(&query) else {
            panic!("a Scan is answered as one");
        };
        pages += 1;
        found.extend(kvs.into_iter().map(|kv| kv.key));
        let Some(more) = more else { break };
        from = more;
    }
    assert_eq!(found, [Bytes::from(numbered(0)), Bytes::from_static(b"zz")]);
    let expected = keys as usize / RUN_PASSED_MAX + 1;
    assert_eq!(pages, expected, "each page passes a bounded number of keys");
}

#[test]
fn what_memory_or_the_filter_decides_needs_no_block() {
    let mut shard = shard_of(5000);
    assert!(shard.apply(put(numbered(17), "new")));
    shard.freeze();
    shard.loads = 0;
    assert!(shard.apply(put(numbered(17), "newer")));
    let query = Query::Get { key: Bytes::from(numbered(17)) };
    assert!(shard.query_layered(&query).is_ok());
    assert_eq!(shard.loads, 0, "a memtable has the key");
    assert!((10_000..11_000).all(|number| shard.apply(put(numbered(number), "fresh"))));
    assert!(shard.loads < 40, "{} blocks were loaded for 1000 keys that the filter denies", shard.loads);
    shard.loads = 0;
    let query = Query::Get { key: Bytes::from(numbered(18)) };
    assert!(shard.query_layered(&query).is_ok());
    assert_eq!(shard.loads, 1, "one block has the key");
}

/// A run that was begun before entries were applied, a state frozen and another table installed, makes the
/// page of after.
#[test]
fn a_scan_sees_what_happened_while_it_was_loading() {
    let mut shard = shard_of(3000);
    let query = whole_scan();
    let mut run = ScanRun::default();
    let mut source = LastAsked::default();
    let mut asked = 0;
    let base = loop {
        match shard.state.resolve_query(&query, &mut run, &mut source) {
            Resolved::Done(base) => break base,
            Resolved::Missing(handles) => {
                let file = shard.table.clone().expect("it has one");
                source.0 = handles.into_iter().map(|handle| file.block(handle)).collect();
            }
        }
        assert!(shard.apply(delete(numbered(asked))));
        assert!(shard.apply(put(numbered(asked + 1), "changed")));
        assert!(shard.apply(delete(numbered(2999 - asked))));
        asked += 2;
        match asked {
            2 => shard.freeze(),
            6 => shard.merge(10_000),
            _ => {}
        }
    };
    assert!(asked > 10, "the new table begins the run anew, and it was asked {asked} times");
    assert_eq!(shard.tables, 2);
    assert!(shard.state.frozen().is_none(), "it was installed");
    let Ok((_, QueryAnswer::Scan { kvs, more: None })) = shard.state.query(&query, &base) else {
        panic!("all of them fit into a page");
    };
    assert_eq!(kvs, plain_scan(&shard, Bytes::new(), Bytes::new(), ScanKeys::Whole));
}

#[test]
#[should_panic(expected = "is used at")]
fn a_base_is_of_one_moment() {
    let mut shard = shard_of(10);
    let command = put(numbered(1), "x");
    let base = shard.settle(|state, source| state.resolve(&command, source));
    assert!(shard.apply(put(numbered(2), "y")));
    let _ = shard.state.apply(shard.state.applied().next(), &command, &base);
}

#[test]
fn a_session_that_is_touched_after_a_freeze_is_frozen_as_it_was() {
    let mut shard = Shard::new();
    assert!(shard.apply(Command::OpenSession { ttl_ms: 0 }));
    let session = SessionId(7 << 48 | 1);
    let request = |sequence| {
        let id = RequestId { session, sequence: Sequence(sequence), acknowledged: Sequence(0) };
        let write = Write::Append { key: "k".into(), value: "v".into(), if_mod_revision: None };
        Command::Write { id: Some(id), write }
    };
    assert!(shard.apply(request(1)));
    shard.freeze();
    let digest = shard.state.digest();
    assert!(shard.apply(request(2)));
    shard.merge(1000);
    let state = shard.table.as_ref().expect("it was merged").state(shard.config).expect("it is intact");
    assert_eq!((state.digest(), state.applied()), (digest, Index(2)));
    assert_eq!(state.sessions().collect::<Vec<_>>(), [(session, 60_000, Index(2))]);
}

/// A table whose footer tells of another state than its entries and sessions is not taken.
#[test]
fn a_table_that_contradicts_itself_is_refused() {
    let meta = |digest, sums| TableMeta {
        applied: Index(1),
        applied_term: Term(1),
        revision: Revision(1),
        sums,
        digest,
        membership: Bytes::new(),
    };
    let written = |shard, digest| {
        let mut writer = TableWriter::new(TableId { shard, salt: 5 }, 0);
        let mut sessions = Vec::new();
        codec::put_sessions_header(0, &mut sessions);
        writer.push_session(&sessions);
        writer.finish(meta(digest, Sums::default()));
        let mut file = Vec::new();
        while let Some(chunk) = writer.take_output() {
            file.extend_from_slice(chunk.bytes);
        }
        File(file.into())
    };
    let config = Config::new(ShardId(7), Limits::DEFAULT);
    let right = digest::of_revision(Revision(1));
    assert!(written(ShardId(7), right).state(config).is_ok());
    for file in [written(ShardId(7), right ^ 1), written(ShardId(8), right)] {
        let error = file.state(config).map(|_| ()).expect_err("it is of another state");
        assert_eq!(error.part, table::Part::Footer, "{error}");
    }
}

#[test]
fn a_merge_that_loses_an_entry_makes_no_table() {
    let mut shard = shard_of(300);
    assert!(shard.apply(put("more", "x")));
    shard.freeze();
    let frozen = shard.state.frozen().expect("it was just frozen").clone();
    // The table below is left out.
    let mut merge = Merge::new(frozen, None, 99);
    let ended = loop {
        match merge.step(1 << 20) {
            Ok(MergeStep::Again) => {}
            other => break other,
        }
    };
    let error = ended.expect_err("300 keys are missing");
    assert_eq!((error.wanted.keys, error.found.keys), (301, 1));
}

#[test]
fn memory_is_counted() {
    let mut shard = Shard::new();
    for round in 0..3 {
        for number in 0..1000 {
            assert!(shard.apply(put(numbered(number), vec![round; 256])));
        }
        let bytes = shard.state.memtable_bytes();
        assert!((300_000..500_000).contains(&bytes), "{bytes} bytes for 1000 keys of 256");
    }
    assert!((0..1000).all(|number| shard.apply(delete(numbered(number)))));
    assert_eq!(shard.state.memtable_bytes(), 0, "no layer below has them");
}

#[cfg(debug_assertions)]
mod planted {
    use super::*;

    fn with(bug: PlantedBug) -> Shard {
        Shard::with(Config { planted: Some(bug), ..Config::new(ShardId(7), Limits::DEFAULT) })
    }

    /// A put, a request of a session, a delete over a table, and a restart.
    fn life(bug: PlantedBug) -> Option<String> {
        let mut shard = with(bug);
        assert!(shard.apply(put("a", "1")) && shard.apply(Command::OpenSession { ttl_ms: 0 }));
        shard.freeze();
        assert!(shard.apply(put("b", "2")));
        shard.merge(1000);
        assert!(shard.table.is_some(), "it was merged");
        shard.apply(delete("a"));
        let query = Query::Get { key: "a".into() };
        let found = shard.query_layered(&query);
        if found != shard.plain.query(&query, &Base::default()) {
            return Some(format!("{found:?} is found"));
        }
        shard.restart().expect("nothing is damaged");
        shard.disagreement()
    }

    #[test]
    fn each_bug_of_tables_is_found() {
        let bugs = [
            PlantedBug::SessionsMissingFromTable,
            PlantedBug::AppliedIndexApartFromState,
            PlantedBug::TombstoneDroppedEarly,
        ];
        for bug in bugs {
            assert!(life(bug).is_some(), "{bug:?} is not found");
        }
        assert_eq!(life(PlantedBug::HashIgnored), None, "a bug of another part changes nothing here");
    }
}

/// The entries of all blocks of a file, in order.
fn entries(file: &File) -> BTreeMap<Vec<u8>, (Vec<u8>, u64)> {
    let index = file.index().expect("it is intact");
    let blocks: Vec<Block> = (0..index.blocks()).map(|at| file.block(index.handle(at))).collect();
    let of = |entry: EntryRef<'_>| (entry.key.to_vec(), (entry.value.to_vec(), entry.version));
    blocks.iter().flat_map(|block| block.iter().map(of)).collect()
}

/// The format is what it was: a table that an earlier version wrote is read, and the same state makes the
/// same bytes. `UPDATE_FIXTURES=1` writes the file anew, for a person who changes the format.
#[test]
fn the_fixture_is_read_and_written() {
    let mut shard = Shard::new();
    assert!(shard.apply(Command::OpenSession { ttl_ms: 5000 }));
    let id = RequestId { session: SessionId(7 << 48 | 1), sequence: Sequence(1), acknowledged: Sequence(0) };
    let write = Write::Append { key: "log".into(), value: "appended".into(), if_mod_revision: None };
    assert!(shard.apply(Command::Write { id: Some(id), write }));
    assert!(shard.apply(put("a", "1")) && shard.apply(put("a", "2")) && shard.apply(put("b", "")));
    assert!(shard.apply(put("gone", "x")) && shard.apply(delete("gone")));
    shard.freeze();
    shard.merge(1000);
    let written = shard.table.clone().expect("it was merged");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/table-1");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, &written.0).expect("the fixture can be written");
    }
    let fixture = File(std::fs::read(&path).expect("the fixture is there").into());
    let kept = |value: &str, version| (value.as_bytes().to_vec(), version);
    let expected = [("a", kept("2", 2)), ("b", kept("", 1)), ("log", kept("appended", 1))];
    assert_eq!(entries(&fixture), expected.map(|(key, kept)| (key.as_bytes().to_vec(), kept)).into());
    let state = fixture.state(shard.config).expect("it is intact");
    assert_eq!((state.applied(), state.revision()), (Index(7), Revision(7)));
    assert_eq!(state.digest(), shard.plain.digest());
    let meta = fixture.index().expect("it is intact").meta().clone();
    assert_eq!((meta.applied_term, &meta.membership[..]), (Term(3), &b"members"[..]));
    assert_eq!(written.0, fixture.0, "the same state makes the same bytes");
}
