//! Links of nodes on in-memory pipes, and the desk that judges them: who is welcome, who has to go, and that
//! nobody waits for ever.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use distribkv::config::{Cluster, Node, Settings};
use distribkv::env::Env;
use distribkv::env::signal::Signal;
use distribkv::host::link::{HANDSHAKES_MAX, LinkEnd, LinkNews, Links, keep_outgoing, serve_incoming};
use distribkv::host::node::{self, Planted};
use distribkv::ids::{CoreId, DirectoryId, NodeId};
use distribkv::shard::admission::{Admission, Desk, Hello, LinkPlace, Rejection, Verdict};
use sim::disk::DiskConfig;
use sim::env::{Machine, SimEnv};
use sim::executor::{Group, World, WorldConfig};
use tokio::io::{AsyncWriteExt as _, DuplexStream};

const LONG: Duration = Duration::from_secs(60);
const ELECTION: Duration = Duration::from_millis(1000);
/// What a pipe holds.
const PIPE_BYTES: usize = 1 << 16;

/// How the receiving end of a link ended, once it has.
type Ended = Rc<RefCell<Option<Result<(), LinkEnd>>>>;

/// One node of three, as far as links know it.
struct Scene {
    world: World,
    group: Group,
    env: SimEnv,
    links: Links<SimEnv>,
    desk: Desk<SimEnv>,
    own: Hello,
}

impl Scene {
    fn of(id: u32) -> Self {
        let world = World::new(WorldConfig::seeded(u64::from(id)));
        let machine = Machine::new(&world.handle(), NodeId(id), DiskConfig::default());
        machine.disk().prepare_dir(&PathBuf::from("/data"));
        let group = machine.boot();
        let env = machine.env(CoreId(0));
        let settings = Settings {
            cluster: Cluster {
                peers: vec!["a:1".into(), "b:1".into(), "c:1".into()],
                shards: 1,
                ..Cluster::default()
            },
            node: Node { id, data_dir: Some("/data/dir".into()), ..Node::default() },
        };
        let opening = env.clone();
        let opened = world.run(group, LONG, async move {
            let (store, identity) =
                node::open_identity(&opening, &settings, 1, None).await.expect("a new one");
            let place = (CoreId(0), 1);
            let permits = node::permits(&settings, 1);
            let planted = Planted::default();
            let core = node::open_core(&opening, &settings, &identity, place, &permits, &planted).await;
            (Hello::of(&identity), Desk::new(store, Hello::of(&identity)), core.expect("a new one").0)
        });
        let (own, desk, runner) = opened.expect("opening a new node takes no time");
        desk.lanes_are_open();
        let (running, links) = (desk.clone(), Links::new(env.clone(), runner, ELECTION));
        env.spawn(async move {
            let _ = running.run().await;
        });
        Self { world, group, env, links, desk, own }
    }

    /// What another node says of itself.
    fn hello_of(&self, node: u32, core: u32, incarnation: u64) -> Hello {
        let directory = DirectoryId(u64::from(node) * 100);
        Hello { node: NodeId(node), core: CoreId(core), directory, incarnation, ..self.own }
    }

    fn run<T: 'static>(&self, work: impl Future<Output = T> + 'static) -> T {
        self.world.run(self.group, LONG, work).expect("it ends in time")
    }

    fn admit(&self, hello: Hello, core: u32, number: u64) -> Admission {
        let place = LinkPlace { core: CoreId(core), number };
        self.run(self.desk.admit(hello, place)).expect("the desk answers")
    }

    /// Starts the receiving end of a link; the other end, and how it ended once it did.
    fn serve(
        &self,
        judge: impl AsyncFn(Hello) -> Option<Verdict> + 'static,
        closed: Signal,
    ) -> (DuplexStream, Ended) {
        let (theirs, ours) = tokio::io::duplex(PIPE_BYTES);
        let (links, ended) = (self.links.clone(), Ended::default());
        let told = Rc::clone(&ended);
        self.env.spawn(async move {
            let end = serve_incoming(&links, ours, judge, &closed).await;
            *told.borrow_mut() = Some(end);
        });
        (theirs, ended)
    }
}

fn is_timed_out(end: &Option<Result<(), LinkEnd>>) -> bool {
    matches!(end, Some(Err(LinkEnd::Io(error))) if error.kind() == std::io::ErrorKind::TimedOut)
}

async fn never(_: Hello) -> Option<Verdict> {
    std::future::pending().await
}

async fn say(mut stream: DuplexStream, hello: Hello) -> DuplexStream {
    stream.write_all(b"DKVLINK1").await.expect("it is held in the pipe");
    stream.write_all(&hello.encode()).await.expect("it is held in the pipe");
    stream
}

#[test]
fn the_desk_closes_the_older_link_of_a_core_wherever_it_is_held() {
    let scene = Scene::of(1);
    let place = |core, number| LinkPlace { core: CoreId(core), number };
    assert_eq!(scene.admit(scene.hello_of(2, 0, 7), 0, 1).closes, []);
    assert_eq!(scene.admit(scene.hello_of(2, 1, 7), 1, 1).closes, []);
    let second = scene.admit(scene.hello_of(2, 0, 7), 1, 2);
    assert_eq!((second.verdict, second.closes), (Verdict::Welcome(scene.own), vec![place(0, 1)]));
    let restarted = scene.admit(scene.hello_of(2, 1, 8), 0, 2);
    assert_eq!(restarted.closes, [place(1, 2), place(1, 1)]);
    let late = scene.admit(scene.hello_of(2, 0, 7), 0, 3);
    let Verdict::Rejected(refusal) = late.verdict else { panic!("an older start is welcome: {late:?}") };
    assert_eq!(refusal.rejection, Rejection::Incarnation { newest: 8, theirs: 7 });
    assert_eq!(late.closes, [], "who is refused closes nobody's link");
}

#[test]
fn a_node_that_welcomes_this_one_with_another_directory_does_not_count() {
    let scene = Scene::of(1);
    let noted = scene.hello_of(2, 0, 1);
    assert!(matches!(scene.admit(noted, 0, 1).verdict, Verdict::Welcome(_)));
    let other = Hello { directory: DirectoryId(999), ..noted };
    let verdict = scene.run(scene.desk.welcomed(other)).expect("the desk answers");
    let Verdict::Rejected(refusal) = verdict else { panic!("another directory is taken for the noted one") };
    let found = Rejection::Directory { noted: noted.directory, theirs: DirectoryId(999) };
    assert_eq!(refusal.rejection, found);
    scene.run(scene.desk.welcomed(scene.hello_of(3, 0, 1))).expect("the desk answers");
    assert!(!scene.desk.is_entitled(), "one of two others counts");
    scene.run(scene.desk.welcomed(noted)).expect("the desk answers");
    let entitled = scene.desk.entitled();
    scene.run(async move { entitled.wait().await });
}

#[test]
fn a_link_to_a_node_with_another_directory_is_not_used_and_said() {
    let (scene, heard) = (Scene::of(1), Rc::new(RefCell::new(Vec::new())));
    let other = Hello { directory: DirectoryId(999), ..scene.hello_of(2, 0, 1) };
    scene.admit(scene.hello_of(2, 0, 1), 0, 1);
    let (links, desk) = (scene.links.clone(), scene.desk.clone());
    let serving = scene.links.clone();
    let connect = async move || {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let serving = serving.clone();
        let env = serving.env.clone();
        env.spawn(async move {
            let judge = async |_| Some(Verdict::Welcome(other));
            let _ = serve_incoming(&serving, theirs, judge, &Signal::default()).await;
        });
        Ok(ours)
    };
    let welcomed = async move |by| desk.welcomed(by).await;
    let news = Rc::clone(&heard);
    let told = move |heard| news.borrow_mut().push(heard);
    let own = scene.own;
    scene.env.spawn(keep_outgoing(
        links,
        (NodeId(2), move || own),
        Signal::default(),
        connect,
        welcomed,
        told,
    ));
    scene.world.run_for(Duration::from_secs(2));
    let found = Rejection::Directory { noted: DirectoryId(200), theirs: DirectoryId(999) };
    assert!(heard.borrow().len() > 1, "it tries again");
    assert!(heard.borrow().iter().all(|news| *news == LinkNews::Refuses(found)), "{heard:?}");
}

#[test]
fn a_hello_that_nobody_judges_ends_in_time() {
    let scene = Scene::of(1);
    let (stream, ended) = scene.serve(never, Signal::default());
    let _stream = scene.run(say(stream, scene.hello_of(2, 0, 1)));
    scene.world.run_for(ELECTION);
    assert!(ended.borrow().is_none(), "a slow desk has some time");
    scene.world.run_for(ELECTION * 3);
    assert!(is_timed_out(&ended.borrow()), "{:?}", ended.borrow());
}

#[test]
fn so_many_handshakes_at_once_and_no_more() {
    let scene = Scene::of(1);
    let asked = Rc::new(Cell::new(0));
    let counting = {
        let asked = Rc::clone(&asked);
        async move |hello| {
            asked.set(asked.get() + 1);
            never(hello).await
        }
    };
    let start = || scene.serve(counting.clone(), Signal::default());
    let served: Vec<_> = (0..HANDSHAKES_MAX + 20).map(|_| start()).collect();
    let mut streams = Vec::new();
    let mut ends = Vec::new();
    for (stream, ended) in served {
        // One that was turned away reads nothing.
        streams.push(scene.run(async move {
            let mut stream = stream;
            let _ = stream.write_all(b"DKVLINK1").await;
            stream
        }));
        ends.push(ended);
    }
    scene.world.run_for(Duration::from_millis(1));
    let over = ends.iter().filter(|ended| ended.borrow().is_some()).count();
    assert_eq!(over, 20, "those beyond the limit are closed at once");
    scene.world.run_for(ELECTION * 4);
    assert!(ends.iter().all(|ended| ended.borrow().is_some()), "the others in time");
    let (stream, ended) = scene.serve(counting.clone(), Signal::default());
    let _stream = scene.run(say(stream, scene.hello_of(2, 0, 1)));
    scene.world.run_for(Duration::from_millis(1));
    assert!(ended.borrow().is_none(), "there is room again");
    assert_eq!(asked.get(), 1);
}

#[test]
fn a_link_that_is_closed_for_a_newer_one_ends() {
    let scene = Scene::of(1);
    let (closed, own) = (Signal::default(), scene.own);
    let (stream, ended) = scene.serve(async move |_| Some(Verdict::Welcome(own)), closed.clone());
    let _stream = scene.run(say(stream, scene.hello_of(2, 0, 1)));
    scene.world.run_for(Duration::from_millis(10));
    assert!(ended.borrow().is_none(), "it is open: {:?}", ended.borrow());
    closed.raise();
    scene.world.run_for(Duration::from_millis(10));
    assert!(matches!(*ended.borrow(), Some(Ok(()))), "{:?}", ended.borrow());
}
