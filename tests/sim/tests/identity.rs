//! A node's identity where it is kept: refused where it is another's or makes no sense, and never half noted
//! on a disk that fails.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use distribkv::env::Env as _;
use distribkv::ids::{ClusterId, CoreId, DirectoryId, NodeId};
use distribkv::log::identity::NODES_MAX;
use distribkv::log::{FreshIdentity, Identity, IdentityStore, NoteError, Noted, OpenError, RecoveredAt};
use sim::disk::{Crash, DiskConfig, Fault, Kind};
use sim::env::{Machine, SimEnv};
use sim::executor::{World, WorldConfig};

const DIR: &str = "/data/node-2";

const FRESH: FreshIdentity = FreshIdentity {
    node: NodeId(2),
    cluster: ClusterId(77),
    nodes: 3,
    shards: 8,
    lanes: 2,
    cluster_hash: 5,
    recovery: None,
};

type Opened = Result<(IdentityStore<SimEnv>, Identity), OpenError>;

async fn open(env: &SimEnv, fresh: FreshIdentity) -> Opened {
    IdentityStore::open_or_create(env.clone(), Path::new(DIR), fresh).await
}

/// A directory that was made with its node.
fn first(directory: u64) -> Noted {
    recovered(directory, 0)
}

/// One that was put in the place of a lost one.
fn recovered(directory: u64, at: u64) -> Noted {
    Noted { directory: DirectoryId(directory), recovered_at: RecoveredAt(at) }
}

/// One life of a process.
fn live<F: Future<Output = ()> + 'static>(machine: &Machine, world: &World, life: impl FnOnce(SimEnv) -> F) {
    let group = machine.boot();
    let ended = world.run(group, Duration::from_secs(5), life(machine.env(CoreId(0))));
    assert!(ended.is_ok(), "{ended:?}");
    machine.crash(Crash::Power);
}

fn machine() -> (World, Machine) {
    let world = World::new(WorldConfig::seeded(1));
    let machine = Machine::new(&world, NodeId(2), DiskConfig::default());
    machine.disk().prepare_dir(Path::new("/data"));
    (world, machine)
}

fn refusal(opened: Opened) -> String {
    match opened {
        Ok((_, identity)) => panic!("it opened: {identity:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_directory_is_of_one_node_of_one_cluster() {
    let (world, machine) = machine();
    live(&machine, &world, |env| async move {
        let (store, identity) = open(&env, FRESH).await.expect("the directory is new");
        assert_eq!((identity.starts, identity.entitled), (1, false));
        assert!(store.report().is_missing() && store.path().starts_with(DIR));
    });
    live(&machine, &world, |env| async move {
        let others = [
            (FreshIdentity { node: NodeId(3), ..FRESH }, "belongs to node 2, not to node 3"),
            (FreshIdentity { nodes: 5, ..FRESH }, "made with 3 nodes, not 5"),
            (FreshIdentity { shards: 16, ..FRESH }, "made with 8 shards, not 16"),
            (FreshIdentity { cluster: ClusterId(78), ..FRESH }, "belongs to cluster"),
        ];
        for (asked, said) in others {
            let refusal = refusal(open(&env, asked).await);
            assert!(refusal.contains(said), "{refusal}");
        }
        // What may change from start to start: the settings, and how many lanes a new one would get.
        let changed = FreshIdentity { lanes: 4, cluster_hash: 6, ..FRESH };
        let (store, identity) = open(&env, changed).await.expect("it is the same node");
        assert_eq!((identity.lanes, identity.cluster_hash, identity.starts), (2, 6, 2));
        assert!(store.report().agree());
    });
}

#[test]
fn an_identity_that_is_lost_is_not_made_again_beside_lanes() {
    let (world, machine) = machine();
    machine.disk().prepare_dir(&Path::new(DIR).join("lane-0"));
    live(&machine, &world, |env| async move {
        let refusal = refusal(open(&env, FRESH).await);
        assert!(refusal.contains("identity-a") && refusal.contains("both copies are gone"), "{refusal}");
    });
}

#[test]
fn a_directory_is_noted_once_and_for_a_node_that_there_is() {
    let (world, machine) = machine();
    live(&machine, &world, |env| async move {
        let (mut store, _) = open(&env, FRESH).await.expect("the directory is new");
        for node in [NodeId(0), NodeId(4), NodeId(NODES_MAX)] {
            let noted = store.note(node, first(9)).await;
            assert!(matches!(noted, Err(NoteError::NoSuchNode)), "node {node}: {noted:?}");
        }
        assert!(store.note(NodeId(3), first(9)).await.is_ok());
        assert!(store.note(NodeId(3), first(9)).await.is_ok(), "the same again");
    });
    live(&machine, &world, |env| async move {
        let (mut store, identity) = open(&env, FRESH).await.expect("it is the same node");
        assert_eq!(identity.noted.get(&NodeId(3)), Some(&first(9)));
        let another = store.note(NodeId(3), first(10)).await;
        let known = matches!(another, Err(NoteError::AnotherKnown { known }) if known == first(9));
        assert!(known && store.identity().noted.len() == 1, "{another:?}");
    });
}

/// What others note of a node that is recovered once and again, and what comes too late.
#[test]
fn a_recovered_directory_takes_the_place_of_an_older_one_and_of_no_newer() {
    let (world, machine) = machine();
    live(&machine, &world, |env| async move {
        let (mut store, _) = open(&env, FRESH).await.expect("the directory is new");
        for (noted, becomes) in [
            (first(9), first(9)),
            (recovered(10, 500), recovered(10, 500)),
            (first(9), recovered(10, 500)),
            (recovered(11, 700), recovered(11, 700)),
            (recovered(10, 500), recovered(11, 700)),
            (recovered(12, 700), recovered(11, 700)),
            (recovered(11, 800), recovered(11, 800)),
            (recovered(11, 700), recovered(11, 800)),
        ] {
            let is_noted = store.note(NodeId(3), noted).await.is_ok();
            assert_eq!(is_noted, noted.directory == becomes.directory, "{noted:?}");
            assert_eq!(store.identity().noted.get(&NodeId(3)), Some(&becomes), "after {noted:?}");
        }
    });
    live(&machine, &world, |env| async move {
        let (_, identity) = open(&env, FRESH).await.expect("it is the same node");
        assert_eq!(identity.noted.get(&NodeId(3)), Some(&recovered(11, 800)), "it is durable");
    });
}

fn recovering(at: u64) -> FreshIdentity {
    FreshIdentity { recovery: Some(RecoveredAt(at)), ..FRESH }
}

/// The word that a directory is lost makes a recovered one of a new one and of one that may not vote yet, for
/// ever; of one that may vote it makes nothing.
#[test]
fn only_what_never_voted_is_recovered() {
    let (world, machine) = machine();
    live(&machine, &world, |env| async move {
        let (_, identity) = open(&env, FRESH).await.expect("the directory is new");
        assert!(!identity.is_recovered());
    });
    live(&machine, &world, |env| async move {
        let (_, identity) = open(&env, recovering(500)).await.expect("it was refused, and is recovered");
        assert_eq!((identity.recovered_at, identity.starts), (RecoveredAt(500), 501));
    });
    live(&machine, &world, |env| async move {
        let (_, identity) = open(&env, FRESH).await.expect("it knows by itself");
        assert_eq!((identity.recovered_at, identity.starts), (RecoveredAt(500), 502));
    });
    live(&machine, &world, |env| async move {
        let (mut store, identity) = open(&env, recovering(900)).await.expect("it may not vote yet");
        assert_eq!((identity.recovered_at, identity.starts), (RecoveredAt(900), 901), "the later one counts");
        store.entitle().await.expect("the disk works");
    });
    live(&machine, &world, |env| async move {
        let (_, identity) = open(&env, recovering(1000)).await.expect("nothing is to be done");
        assert_eq!((identity.recovered_at, identity.starts), (RecoveredAt(900), 902));
        assert!(identity.entitled, "it is not made to forget");
    });
}

#[test]
fn a_directory_that_is_not_lost_is_not_recovered() {
    let (world, machine) = machine();
    live(&machine, &world, |env| async move {
        let (mut store, _) = open(&env, FRESH).await.expect("the directory is new");
        store.entitle().await.expect("the disk works");
    });
    live(&machine, &world, |env| async move {
        let refusal = refusal(open(&env, recovering(500)).await);
        assert!(refusal.contains("this one is not") && refusal.contains("without --recover"), "{refusal}");
        let (_, identity) = open(&env, FRESH).await.expect("nothing was changed");
        assert_eq!((identity.is_recovered(), identity.entitled, identity.starts), (false, true, 2));
    });
}

/// Notes and entitles on a disk where one operation fails. What was said done is there afterwards; what was
/// not may be. Says whether anything failed.
fn one_failure(kind: Kind, after: u64) -> bool {
    let (world, machine) = machine();
    live(&machine, &world, |env| async move {
        drop(open(&env, FRESH).await.expect("the directory is new"));
    });
    machine.disk().fail(Fault::Once { kind, after });
    let done = std::rc::Rc::new(std::cell::Cell::new((false, false, false)));
    let told = std::rc::Rc::clone(&done);
    live(&machine, &world, |env| async move {
        let Ok((mut store, _)) = open(&env, FRESH).await else { return };
        let noted = store.note(NodeId(3), first(9)).await.is_ok();
        assert_eq!(store.identity().noted.contains_key(&NodeId(3)), noted, "as it was said");
        let entitled = store.entitle().await.is_ok();
        assert_eq!(store.identity().entitled, entitled, "as it was said");
        told.set((true, noted, entitled));
        env.sleep(Duration::from_millis(1)).await;
    });
    machine.disk().heal();
    let (opened, noted, entitled) = done.get();
    live(&machine, &world, move |env| async move {
        let (store, identity) = open(&env, FRESH).await.expect("the disk works again");
        assert!(!store.report().is_damaged(), "{:?}", store.report());
        let directory = identity.noted.get(&NodeId(3)).copied();
        assert!(directory == Some(first(9)) || (!noted && directory.is_none()), "{directory:?}");
        assert!(identity.entitled || !entitled, "it was said that others had noted it");
    });
    !(opened && noted && entitled)
}

#[test]
fn what_was_said_to_be_noted_is_noted_whatever_fails() {
    for kind in [Kind::Open, Kind::Write, Kind::Sync, Kind::Names, Kind::SyncDir, Kind::Close] {
        let failed = (0..16).filter(|after| one_failure(kind, *after)).count();
        assert!(failed >= 3, "only {failed} failures of {kind:?}");
    }
}
