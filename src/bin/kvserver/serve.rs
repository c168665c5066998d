//! Runs one node: an executor a core, each with its runner, its links and its edge, until a signal or a
//! failure.
//!
//! ```text
//! signals       the first: before every core is up, exit code 0 at once; then core 0 is told to drain
//! main thread   settings ─ lock ─ bind ─ executors ─────────────── wait for the first end ─── exit code
//! core 0        identity ─┬─ lanes ─ mesh ─ links ─ edge ── serve ── drain ── seal
//! core 1..      ──────────┴─ lanes ─ mesh ─ links ─ edge ── serve ── drain ── seal
//! ```
//!
//! Ending at once while cores still open their lanes loses nothing: what was acknowledged is durable, and
//! recovery begins again from the same files.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use distribkv::config::{LogFormat, Settings};
use distribkv::edge::accept::{BindError, Listeners, bind};
use distribkv::edge::io::TcpIo;
use distribkv::edge::{Edge, EdgeLimits, EdgeOptions, Services};
use distribkv::env::executor::{CorePlacement, CoreThread, ExecutorOptions, start_executor};
use distribkv::env::glommio::GlommioEnv;
use distribkv::env::os::signal::{self, Bell};
use distribkv::env::os::{net as os_net, process};
use distribkv::env::{Env, Instant};
use distribkv::host::exit::Exit;
use distribkv::host::link::{self, Links};
use distribkv::host::mesh::{Mesh, MeshEnds, Question, Reception, mesh};
use distribkv::host::node::{self, Planted};
use distribkv::host::peers::Peers;
use distribkv::ids::{CoreId, NodeId};
use distribkv::kv;
use distribkv::log::{Identity, IdentityStore, RecoveredAt};
use distribkv::shard::admission::{Desk, Hello, Standing};
use distribkv::shard::{NodePermits, Runner};
use futures_lite::future::or;
use glommio::net::TcpStream;

use crate::heap;
use crate::placement::placements;
use crate::ready;
use crate::recover;
use crate::store::{NodeFacts, NodeStore};
use crate::tune::{self, gather};

/// How long leadership may take to move when the node goes away.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);
/// How long clients may take to finish their streams then.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What a process that uses a data directory holds a lock on, in it.
pub const LOCK_FILE: &str = "LOCK";

/// How a core, and with it the process, ended.
type Ending = Result<(), (i32, String)>;

/// What the cores of a node share from its start on.
struct Shared {
    settings: Settings,
    /// The profile that they began with, by name.
    profile: String,
    cores: u32,
    /// When the node's directory was said to be lost, where this start says so.
    recovery: Option<RecoveredAt>,
    planted: Planted,
    /// What the cores may do at the same time.
    permits: NodePermits,
    ended: mpsc::Sender<Ending>,
    /// Cores that are not up yet: until there is none, a signal ends the process at once.
    starting: Arc<AtomicUsize>,
}

/// Runs a node with these settings, which began with the profile of that name, and whose directory was lost
/// where `recovery` says when that was said; what the process ends with.
pub fn run(
    settings: Settings,
    profile: String,
    recovery: Option<RecoveredAt>,
    planted: Planted,
) -> Result<(), Exit> {
    let starting = Arc::new(AtomicUsize::new(1));
    let kept = |source| Exit::Io { what: "ignoring SIGXFSZ".into(), source };
    process::ignore_file_size_signal().map_err(kept)?;
    let asked_to_stop = watch_signals(&starting)?;
    let placements = placements(&settings)?;
    let dir = settings.data_dir();
    let _lock = lock(&settings)?;
    let cores = u32::try_from(placements.len()).expect("validated to be few");
    let listeners = listen(&settings, placements.len())?;
    let addresses = listeners.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let agreement = settings.cluster.agreement();
    tracing::info!(node = settings.node.id, cores, dir = %dir.display(), %addresses, %agreement, "starting");
    tune::warn_at_start(&settings);
    heap::make_ready(&settings);
    let (ended, endings) = mpsc::channel();
    starting.store(placements.len(), Ordering::SeqCst);
    let permits = node::permits(&settings, cores);
    let shared = Arc::new(Shared { settings, profile, cores, recovery, planted, permits, ended, starting });
    let threads = start_cores(&shared, placements, listeners, asked_to_stop)?;
    // The first end decides: a failure of one core is the node's.
    for _ in 0..threads.len() {
        match endings.recv() {
            Ok(Ok(())) => {}
            Ok(Err((code, text))) => return Err(Exit::Said { code, text }),
            Err(_) => return Err(Exit::Said { code: 1, text: "a core ended without a word".into() }),
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Watches the signals that ask to stop: the bell rings with the first one that comes while all cores are up.
fn watch_signals(starting: &Arc<AtomicUsize>) -> Result<Bell, Exit> {
    let failed = |source| Exit::Io { what: "watching signals".into(), source };
    let (ringer, bell) = signal::bell().map_err(failed)?;
    let starting = Arc::clone(starting);
    signal::watch(move |signal| {
        if starting.load(Ordering::SeqCst) > 0 {
            tracing::info!(signal, "stopped before it served");
            std::process::exit(0);
        }
        tracing::info!(signal, "stopping");
        ringer.ring();
    })
    .map_err(failed)?;
    Ok(bell)
}

/// Takes the data directory for this process alone. The lock goes with the file.
pub fn lock(settings: &Settings) -> Result<File, Exit> {
    let dir = settings.data_dir();
    let failed = |source| Exit::Io { what: format!("data directory {}", dir.display()), source };
    std::fs::create_dir_all(&dir).map_err(failed)?;
    let file = File::create(dir.join(LOCK_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Exit::DirectoryInUse(dir)),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn listen(settings: &Settings, cores: usize) -> Result<Listeners, Exit> {
    let address = settings.listen();
    let (host, port) = address.rsplit_once(':').expect("validated to be host:port");
    let port = port.parse().expect("validated to be host:port");
    bind(host.trim_matches(['[', ']']), port, cores).map_err(|error| match error {
        BindError::InUse(address) => Exit::AddressInUse(address.to_string()),
        BindError::Resolve { source, .. } | BindError::Io { source, .. } => {
            Exit::Io { what: format!("listening on {address}"), source }
        }
    })
}

/// What core 0 tells the others once the identity is open.
type IdentityChannel = mpsc::Receiver<Identity>;

fn start_cores(
    shared: &Arc<Shared>,
    placements: Vec<CorePlacement>,
    listeners: Listeners,
    asked_to_stop: Bell,
) -> Result<Vec<CoreThread<()>>, Exit> {
    let executors = placements.len();
    let spin = spin(&shared.settings, gather::cpu_quota_milli());
    let (tellers, mut listens): (Vec<_>, Vec<IdentityChannel>) =
        (1..executors).map(|_| mpsc::channel()).unzip();
    listens.reverse();
    let mut first = Some((tellers, asked_to_stop));
    let mut threads = Vec::new();
    let starts = placements.into_iter().zip(listeners.cores).zip(mesh(shared.cores));
    for (core, ((placement, listeners), ends)) in (0u32..).map(CoreId).zip(starts) {
        let options = ExecutorOptions {
            spin,
            ..ExecutorOptions::new(&format!("kv-core-{core}"), placement, executors)
        };
        let shared = Arc::clone(shared);
        let part = match first.take() {
            Some((tellers, asked_to_stop)) => Part::First(tellers, asked_to_stop),
            None => Part::Other(listens.pop().expect("one for each core but the first")),
        };
        let started = start_executor(options, move || run_core(shared, core, part, listeners, ends));
        threads.push(started.map_err(Exit::Executor)?);
    }
    Ok(threads)
}

/// How long executors look for something to do before they sleep. Under a quota of CPU they do not: what they
/// use it up for is missing where there is something to do.
fn spin(settings: &Settings, cpu_quota_milli: Option<u64>) -> Duration {
    let spin = Duration::from_micros(settings.node.spin_us);
    if spin.is_zero() || cpu_quota_milli.is_none() {
        return spin;
    }
    tracing::info!("executors sleep as soon as they have nothing to do: there is a quota of CPU (spin_us)");
    Duration::ZERO
}

/// A core's part in starting the node.
enum Part {
    /// Core 0 opens the identity and tells the others; it hears the signals.
    First(Vec<mpsc::Sender<Identity>>, Bell),
    /// The others are told.
    Other(IdentityChannel),
}

async fn run_core(
    shared: Arc<Shared>,
    core: CoreId,
    part: Part,
    listeners: Vec<TcpListener>,
    ends: MeshEnds,
) {
    let ending = match serve_core(&shared, core, part, listeners, ends).await {
        Ok(()) => Ok(()),
        Err(exit) => Err((exit.code(), exit.to_string())),
    };
    // Where nobody listens any more the process is ending already.
    let _ = shared.ended.send(ending);
}

async fn serve_core(
    shared: &Arc<Shared>,
    core: CoreId,
    part: Part,
    listeners: Vec<TcpListener>,
    ends: MeshEnds,
) -> Result<(), Exit> {
    let env = GlommioEnv::new().map_err(|source| Exit::Io { what: "starting an executor".into(), source })?;
    let started_at = env.now();
    let is_read = Rc::new(Cell::new(false));
    if core == CoreId(0) {
        env.spawn(ready::say_reading(env.clone(), shared.settings.clone(), Rc::clone(&is_read)));
    }
    let (first, identity) = match part {
        Part::First(tellers, asked_to_stop) => {
            let opened = node::open_identity(&env, &shared.settings, shared.cores, shared.recovery);
            let (store, identity) = opened.await?;
            recover::tell(shared.recovery, &identity);
            // A core that has ended has said why.
            tellers.iter().for_each(|teller| drop(teller.send(identity.clone())));
            (Some((store, asked_to_stop)), identity)
        }
        Part::Other(told) => {
            let gone = |_| Exit::Said { code: 1, text: "core 0 ended while it started".into() };
            (None, told.recv().map_err(gone)?)
        }
    };
    let (runner, found) = node::open_core(
        &env,
        &shared.settings,
        &identity,
        (core, shared.cores),
        &shared.permits,
        &shared.planted,
    )
    .await?;
    found.tell(core);
    is_read.set(true);
    for lost in &found.lost {
        let (shard, end, standing) = (lost.shard, lost.end.0, lost.standing);
        tracing::error!(%shard, %end, ?standing, "a part of the shard's log is lost: its peers have it");
    }
    let first = first.map(|(store, asked_to_stop)| (open_reception(shared, &env, store), asked_to_stop));
    let reception = first.as_ref().map(|(reception, _)| reception.clone());
    let mesh = Mesh::connect(env.clone(), ends, runner.clone(), reception).await;
    let (replaying, telling, clock) = (runner.clone(), mesh.clone(), env.clone());
    env.spawn(async move {
        let began = clock.now();
        node::caught_up(&clock, &replaying, &found.committed).await;
        found.tell_replayed(core, clock.now().since(began));
        telling.caught_up();
    });
    let core = Core { shared: Arc::clone(shared), env, runner, mesh, identity, core, started_at };
    core.serve(first, listeners).await
}

fn open_reception(
    shared: &Arc<Shared>,
    env: &GlommioEnv,
    store: IdentityStore<GlommioEnv>,
) -> Reception<GlommioEnv> {
    let own = Hello::of(store.identity());
    let desk = Desk::new(store, own);
    let peers = Rc::new(RefCell::new(Peers::new(shared.settings.cluster.clone())));
    let (shared, running) = (Arc::clone(shared), desk.clone());
    env.spawn(async move {
        let exit = Exit::of_desk(running.run().await, &shared.settings.cluster);
        // Where nobody listens any more the process is ending already.
        let _ = shared.ended.send(Err((exit.code(), recover::said(&exit))));
    });
    Reception { desk, peers }
}

/// One core, serving.
struct Core {
    shared: Arc<Shared>,
    env: GlommioEnv,
    runner: Runner<GlommioEnv>,
    mesh: Mesh<GlommioEnv>,
    identity: Identity,
    core: CoreId,
    started_at: Instant,
}

impl Core {
    /// Serves until the node ends. Core 0 has the desk, and hears when the node is to stop.
    async fn serve(
        self,
        first: Option<(Reception<GlommioEnv>, Bell)>,
        listeners: Vec<TcpListener>,
    ) -> Result<(), Exit> {
        let edge = self.start_edge();
        let on_peer = self.on_peer();
        for listener in listeners {
            let (edge, peers) = (edge.clone(), on_peer.clone());
            self.env.spawn(async move { edge.accept(listener, peers).await });
        }
        self.start_links();
        if let Some((reception, asked_to_stop)) = first {
            self.start_node(&reception, asked_to_stop);
        }
        let (mesh, runner, env) = (self.mesh.clone(), self.runner.clone(), self.env.clone());
        self.env.spawn(async move {
            mesh.draining().wait().await;
            if !mesh.is_entitled() {
                // A node that may not vote yet serves nobody: its clients need not wait for their deadlines.
                runner.refuse_calls();
            }
            let began = env.now();
            while !runner.is_drained() && env.now().since(began) < HAND_OVER_MAX {
                env.sleep(Duration::from_millis(5)).await;
            }
            edge.drain(DRAIN_MAX).await;
            runner.refuse_calls();
            mesh.drained();
        });
        self.shared.starting.fetch_sub(1, Ordering::SeqCst);
        self.runner.run().await.map_err(Exit::from)
    }

    fn start_edge(&self) -> Edge<GlommioEnv, NodeStore<GlommioEnv>> {
        let facts = NodeFacts {
            cluster: self.identity.cluster,
            node: self.identity.node,
            shards: self.identity.shards,
            profile: self.shared.profile.clone(),
            addresses: self.shared.settings.cluster.peers.clone(),
            started_at: self.started_at,
        };
        let store = NodeStore::new(self.env.clone(), self.runner.clone(), facts);
        let options = EdgeOptions {
            limits: EdgeLimits::DEFAULT,
            kv_limits: kv::Limits::DEFAULT,
            services: Services::All,
        };
        Edge::new(self.env.clone(), store, options)
    }

    fn links(&self) -> Links<GlommioEnv> {
        let election = Duration::from_millis(self.shared.settings.cluster.election_timeout_ms);
        Links::new(self.env.clone(), self.runner.clone(), election)
    }

    /// Keeps a link to every other node.
    fn start_links(&self) {
        for (to, address) in (1u32..).map(NodeId).zip(self.shared.settings.cluster.peers.clone()) {
            if to == self.identity.node {
                continue;
            }
            let (links, waiting) = (self.links(), self.mesh.link_signal(to));
            let (asking, telling) = (self.mesh.clone(), self.mesh.clone());
            let (said, mesh) = (Hello { core: self.core, ..Hello::of(&self.identity) }, self.mesh.clone());
            let hello = move || {
                let standing = if mesh.is_entitled() { Standing::Entitled } else { said.standing };
                Hello { standing, ..said }
            };
            let welcomed = async move |by| asking.ask(Question::Welcomed(by)).await;
            let news = move |news| telling.heard(to, news);
            let patience = links.election * 3;
            let connect = async move || connect(&address, patience).await;
            self.env.spawn(link::keep_outgoing(links, (to, hello), waiting, connect, welcomed, news));
        }
    }

    /// What is done with a connection that does not begin as a client's does.
    fn on_peer(&self) -> impl Fn(TcpStream, Bytes) + Clone + 'static + use<> {
        let (links, mesh) = (self.links(), self.mesh.clone());
        move |stream, first| {
            let (links, mesh) = (links.clone(), mesh.clone());
            let env = links.env.clone();
            env.spawn(async move {
                let incoming = mesh.incoming();
                let judge = async |hello| mesh.ask(Question::Admit(hello, incoming.place)).await;
                let stream = TcpIo::new(stream, first);
                let served = link::serve_incoming(&links, stream, judge, &incoming.closed).await;
                if let Err(end) = served {
                    tracing::debug!(?end, "incoming link ended");
                }
            });
        }
    }

    /// What core 0 does for the whole node: entitlement, the line that says that it serves, signals, the end.
    fn start_node(&self, reception: &Reception<GlommioEnv>, asked_to_stop: Bell) {
        let (mesh, entitled) = (self.mesh.clone(), reception.desk.entitled());
        self.env.spawn(async move {
            entitled.wait().await;
            mesh.entitle_all();
        });
        let (mesh, env, desk) = (self.mesh.clone(), self.env.clone(), reception.desk.clone());
        self.env.spawn(async move {
            while mesh.behind() > 0 {
                env.sleep(Duration::from_millis(5)).await;
            }
            desk.lanes_are_open();
        });
        let parts = (self.runner.clone(), self.mesh.clone());
        let settings = self.shared.settings.clone();
        self.env.spawn(ready::say_ready(self.env.clone(), parts, reception.clone(), settings));
        let (mesh, env) = (self.mesh.clone(), self.env.clone());
        self.env.spawn(async move {
            if let Err(error) = asked_to_stop.rung().await {
                tracing::error!(%error, "stopping: signals would not be heard any more");
            }
            mesh.drain_all();
            let limit = HAND_OVER_MAX + DRAIN_MAX + Duration::from_secs(1);
            or(mesh.all_drained().wait(), env.sleep(limit)).await;
            mesh.stop_all();
        });
    }
}

async fn connect(address: &str, patience: Duration) -> std::io::Result<TcpIo> {
    let name = address.to_owned();
    let resolved = glommio::executor().spawn_blocking(move || name.to_socket_addrs()).await?;
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, format!("{address} has no address"));
    for address in resolved {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(std::io::Error::from)?;
                // A peer that has vanished without a word is noticed, and not when the kernel gives up.
                os_net::set_user_timeout(stream.as_raw_fd(), patience)?;
                return Ok(TcpIo::new(stream, Bytes::new()));
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Sets up logging to standard error.
pub fn start_logging(settings: &Settings) -> Result<(), Exit> {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.node.log_level)
        .map_err(|error| Exit::Usage(format!("--log-level {:?}: {error}", settings.node.log_level)))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.node.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Ends this process with the one that started it, where that was asked for.
pub fn follow_parent(parent: Option<u32>) -> Result<(), Exit> {
    let Some(parent) = parent else { return Ok(()) };
    process::die_with_parent(parent)
        .map_err(|source| Exit::Io { what: "following the parent process".into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executors_do_not_look_for_work_under_a_quota() {
        let settings =
            Settings::of_layers(&[("test".into(), "[node]\nspin_us = 300".into())]).expect("sound");
        assert_eq!(spin(&settings, None), Duration::from_micros(300));
        assert_eq!(spin(&settings, Some(1500)), Duration::ZERO);
    }
}
