//! A node's identity where it is kept: refused where it is another's or makes no sense, and never half noted
//! on a disk that fails.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use distribkv::env::Env as _;
use distribkv::ids::{ClusterId, CoreId, DirectoryId, NodeId};
use distribkv::log::identity::NODES_MAX;
use distribkv::log::{FreshIdentity, Identity, IdentityStore, NoteError, OpenError};
use sim::disk::{Crash, DiskConfig, Fault, Kind};
use sim::env::{Machine, SimEnv};
use sim::executor::{World, WorldConfig};

const DIR: &str = "/data/node-2";

const FRESH: FreshIdentity =
    FreshIdentity { node: NodeId(2), cluster: ClusterId(77), nodes: 3, shards: 8, lanes: 2, cluster_hash: 5 };

type Opened = Result<(IdentityStore<SimEnv>, Identity), OpenError>;

async fn open(env: &SimEnv, fresh: FreshIdentity) -> Opened {
    IdentityStore::open_or_create(env.clone(), Path::new(DIR), fresh).await
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
            let noted = store.note(node, DirectoryId(9)).await;
            assert!(matches!(noted, Err(NoteError::NoSuchNode)), "node {node}: {noted:?}");
        }
        assert!(store.note(NodeId(3), DirectoryId(9)).await.is_ok());
        assert!(store.note(NodeId(3), DirectoryId(9)).await.is_ok(), "the same again");
    });
    live(&machine, &world, |env| async move {
        let (mut store, identity) = open(&env, FRESH).await.expect("it is the same node");
        assert_eq!(identity.noted.get(&NodeId(3)), Some(&DirectoryId(9)));
        let another = store.note(NodeId(3), DirectoryId(10)).await;
        let known = matches!(another, Err(NoteError::AnotherKnown { known: DirectoryId(9) }));
        assert!(known && store.identity().noted.len() == 1, "{another:?}");
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
        let noted = store.note(NodeId(3), DirectoryId(9)).await.is_ok();
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
        assert!(directory == Some(DirectoryId(9)) || (!noted && directory.is_none()), "{directory:?}");
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
