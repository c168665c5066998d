//! The formats on disk and on links are what they were: what an earlier version wrote is read, and the same
//! contents make the same bytes. `UPDATE_FIXTURES=1` writes the fixtures anew, for a person who changes a
//! format.
//!
//! | fixture | holds |
//! |---|---|
//! | `directory-1` | a data directory: identity, manifest, segments with batches, a table |
//! | `directory-1.dump` | what `kvserver dump` says of it |
//! | `link-1` | the first bytes of a link both ways, and frames with a parcel of each kind |
//!
//! (`table-1`, a table by itself, is read by the tests of the state machine.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use distribkv::host::frame;
use distribkv::ids::{ClusterId, CoreId, DirectoryId, Index, NodeId, ShardId, Term};
use distribkv::inspect::{Selection, dump, verify};
use distribkv::kv::{self, Command, Limits, Query, State};
use distribkv::log::{Noted, RecoveredAt};
use distribkv::raft::{self, Entry, HardState, Standing, Voice};
use distribkv::route::call::{Consistency, Failure, FailureKind, Request};
use distribkv::route::parcel::{
    Call, CallId, Digest, DigestsTold, Parcel, Rebuild, Reply, TableAsk, TableName, TablePart,
};
use distribkv::shard::admission::{self, HELLO_BYTES, Hello, VERDICT_BYTES, Verdict};

mod directory;
#[allow(dead_code, reason = "other tests use the rest of it")]
mod kv_tables;
#[path = "sim/tests/log_mem/mod.rs"]
mod log_mem;

use directory::{Directory, SHARDS, commands, made, open_identity, open_lane, open_table};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_FIXTURES").is_some()
}

fn dumped(directory: &Directory) -> String {
    let mut text = String::new();
    let selection = Selection { values: true, ..Selection::default() };
    let told = dump(directory, selection, &mut |fact| {
        text.push_str(&format!("{fact}\n"));
        Ok(())
    });
    told.expect("the directory can be read");
    text
}

#[test]
fn a_directory_of_version_1_is_made_as_it_was() {
    let made = made(3);
    if is_update() {
        made.write(&fixture("directory-1"));
        std::fs::write(fixture("directory-1.dump"), dumped(&made)).expect("it can be written");
    }
    let kept = Directory::read(&fixture("directory-1"));
    assert_eq!(made.0.keys().collect::<Vec<_>>(), kept.0.keys().collect::<Vec<_>>());
    for (name, bytes) in &kept.0 {
        assert!(made.0[name] == *bytes, "{name} is made of other bytes than it was");
    }
    let dump = std::fs::read_to_string(fixture("directory-1.dump")).expect("the fixture is there");
    assert_eq!(dumped(&kept), dump);
    let report = verify(&kept).expect("the directory can be read");
    assert!(report.findings.is_empty() && report.code() == 0, "{report:?}");
}

#[test]
fn a_directory_of_version_1_is_opened() {
    let env = Directory::read(&fixture("directory-1")).env();
    let identity = open_identity(&env, 3).expect("it is intact");
    assert_eq!((identity.node, identity.lanes, identity.format, identity.starts), (NodeId(1), 1, 1, 2));
    let noted = |directory| Noted { directory: DirectoryId(directory), recovered_at: RecoveredAt::NEVER };
    let noted = BTreeMap::from([(NodeId(2), noted(102)), (NodeId(3), noted(103))]);
    assert_eq!((identity.entitled, identity.noted), (true, noted));

    let (lane, recovery) = open_lane(&env).expect("it is intact");
    assert_eq!((recovery.cut, recovery.manifest.agree()), (None, true));
    let [first, second] = SHARDS.map(|shard| recovery.shards[&shard].clone());
    let held = HardState { term: Term(2), vote: Some(NodeId(1)), commit: Index(5) };
    assert_eq!((first.hard_state, first.released), (held, Some((Index(2), Term(1)))));
    assert_eq!((second.released, second.last_index), (Some((Index(9), Term(2))), Index(9)));
    assert_eq!(second.standing, Some(Standing::Forgetful { episode: 7, told: Some(Term(2)) }));
    let reader = lane.clone();
    let entries = env.run(async move { reader.read(SHARDS[0], Index(3), Index(6), usize::MAX).await });
    let found: Vec<Command> = entries
        .expect("they are held")
        .into_iter()
        .map(|entry| Command::decode(entry.data).expect("it is a command"))
        .collect();
    assert_eq!(found, commands()[2..]);

    let named = recovery.tables[&SHARDS[0]];
    assert_eq!((named.index, named.term, recovery.tables.len()), (Index(4), Term(2), 2));
    let table = open_table(&env, SHARDS[0], named);
    let config = kv::Config::new(SHARDS[0], Limits::DEFAULT);
    let state = State::from_table(config, table.index, &table.sessions).expect("it is intact");
    assert_eq!(state.applied(), Index(4));
    assert_eq!(state.table().map(|table| table.meta().sums.keys), Some(3));
}

// ---- links ----

fn hello() -> Hello {
    Hello {
        format: 1,
        node: NodeId(2),
        core: CoreId(1),
        nodes: 3,
        cluster: ClusterId(77),
        directory: DirectoryId(102),
        settings: 0x5e77,
        incarnation: 4,
        recovered_at: RecoveredAt(9),
        standing: admission::Standing::Entitled,
    }
}

fn parcels() -> Vec<Parcel> {
    let id = CallId { node: NodeId(2), incarnation: 4, core: CoreId(1), number: 9 };
    let entries = vec![Entry { index: Index(6), term: Term(3), data: Bytes::from_static(b"\x01data") }];
    let body = raft::Body::Append { prev_index: Index(5), prev_term: Term(2), commit: Index(4), entries };
    let message = raft::Message { from: NodeId(2), to: NodeId(1), term: Term(3), voice: Voice::Whole, body };
    let query = Query::Get { key: Bytes::from_static(b"k") };
    let named =
        TableName { generation: 0x5a17, index: Index(4), term: Term(2), bytes: 8192, footer_checksum: 11 };
    let (shard, core) = (ShardId(1), CoreId(1));
    let request = Request::Query { query, consistency: Consistency::Linearizable };
    vec![
        Parcel::Raft { shard, message },
        Parcel::Call(Call {
            id,
            shard,
            term: Some(Term(3)),
            remaining: Duration::from_millis(250),
            order: None,
            request,
        }),
        Parcel::Reply(Reply { id, outcome: Err(Failure::of(FailureKind::NoLeader)) }),
        Parcel::TableAsk(TableAsk {
            shard,
            node: NodeId(2),
            core,
            number: 1,
            generation: 0x5a17,
            index_min: Index(3),
            offset: 0,
        }),
        Parcel::Digests(DigestsTold {
            shard,
            node: NodeId(2),
            digests: vec![Digest { index: Index(3), digest: 4 }],
        }),
        Parcel::Rebuild(Rebuild { shard, from: NodeId(2), index: Index(3), digest: 4 }),
        Parcel::TablePart(TablePart {
            shard,
            core,
            number: 1,
            named,
            offset: 4096,
            data: Bytes::from_static(&[7; 4096]),
        }),
    ]
}

#[test]
fn a_link_of_version_1_is_read_and_written() {
    let mut written = frame::MAGIC.to_vec();
    written.extend_from_slice(&hello().encode());
    written.extend_from_slice(&Verdict::Welcome(hello()).encode());
    frame::encode(&mut std::iter::empty(), &mut written);
    frame::encode(&mut parcels().into_iter(), &mut written);
    if is_update() {
        std::fs::write(fixture("link-1"), &written).expect("it can be written");
    }
    let kept = std::fs::read(fixture("link-1")).expect("the fixture is there");
    assert!(kept == written, "the same parcels make other bytes than they did");
    let mut rest = BytesMut::from(&kept[..]);
    assert_eq!(rest.split_to(8), &b"DKVLINK1"[..]);
    let said: [u8; HELLO_BYTES] = rest.split_to(HELLO_BYTES)[..].try_into().expect("it is as long");
    assert_eq!(Hello::decode(&said), hello());
    let said: [u8; VERDICT_BYTES] = rest.split_to(VERDICT_BYTES)[..].try_into().expect("it is as long");
    assert_eq!(Verdict::decode(&said), Some(Verdict::Welcome(hello())));
    assert_eq!(frame::decode(&mut rest), Ok(Some(Vec::new())), "a sign of life");
    assert_eq!(frame::decode(&mut rest), Ok(Some(parcels())));
    assert!(rest.is_empty());
}
