//! A gRPC server that answers health checks alone: on the same executor and edge as the store's own server.

#[path = "test_tools/mod.rs"]
mod test_tools;

use std::future::{Future, ready};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use distribkv::edge::accept::{self, BindError, Listeners};
use distribkv::edge::changes::Changes;
use distribkv::edge::store::{BackupSource, Identity, PipelineOrder, Routing, Serving, Status, Store};
use distribkv::edge::{Edge, EdgeLimits, EdgeOptions, SERVICES, Services};
use distribkv::env::executor::{CorePlacement, ExecutorOptions, start_executor};
use distribkv::env::glommio::GlommioEnv;
use distribkv::env::os::signal::{self, Bell};
use distribkv::env::stages::Stages;
use distribkv::env::{Env, Instant};
use distribkv::ids::{ClusterId, NodeId, ShardId};
use distribkv::kv;
use distribkv::route::call::{Answered, Failure, FailureKind, Request};
use distribkv::shard::TableFailure;
use test_tools::{Log, long_flags};

const LOG: Log = Log { name: "test-server" };

/// How long calls in progress may take when the server stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// A server that answers gRPC health checks.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The port to listen on, on every address of this machine.
    #[arg(long, default_value_t = 50051)]
    port: u16,
    /// The server's name among others.
    #[arg(long, default_value = "1")]
    id: String,
}

fn main() -> ExitCode {
    let args = Args::parse_from(long_flags(std::env::args_os()));
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("grpc-test-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let (ringer, asked_to_stop) = signal::bell()?;
    signal::watch(move |_signal| ringer.ring())?;
    let listeners = bind(args.port)?;
    let port = listeners.addresses.first().map_or(args.port, std::net::SocketAddr::port);
    let name = format!("health-{}", args.id);
    let options = ExecutorOptions::new(&name, CorePlacement::Anywhere, 1);
    let core = start_executor(options, move || serve(listeners, port, asked_to_stop))?;
    core.join().ok_or("the executor's thread panicked")??;
    Ok(())
}

/// Every address of the machine; IPv4's alone where there is no IPv6.
fn bind(port: u16) -> Result<Listeners, BindError> {
    match accept::bind("::", port, 1) {
        Err(BindError::Io { .. } | BindError::Resolve { .. }) => accept::bind("0.0.0.0", port, 1),
        bound => bound,
    }
}

/// Serves until a signal asks to stop, then drains.
async fn serve(listeners: Listeners, port: u16, asked_to_stop: Bell) -> std::io::Result<()> {
    let env = GlommioEnv::new()?;
    let store = HealthStore::default();
    let options = EdgeOptions {
        limits: EdgeLimits::DEFAULT,
        kv_limits: kv::Limits::DEFAULT,
        services: Services::HealthAlone,
    };
    let edge = Edge::new(env.clone(), store.clone(), options);
    for listener in listeners.cores.into_iter().flatten() {
        let edge = edge.clone();
        env.spawn(async move { edge.accept(listener, |stream, _first| drop(stream)).await });
    }
    LOG.line(format_args!("Health check server listening on port {port}"));
    asked_to_stop.rung().await?;
    LOG.line("Shutting down server...");
    store.stop();
    edge.drain(DRAIN_PATIENCE).await;
    LOG.line("Server stopped gracefully");
    Ok(())
}

/// A store that holds nothing but its health.
#[derive(Clone, Default)]
struct HealthStore {
    changes: Changes,
    is_stopping: Rc<std::cell::Cell<bool>>,
    stages: Stages,
}

impl HealthStore {
    fn stop(&self) {
        self.is_stopping.set(true);
        self.changes.step();
    }
}

impl Store for HealthStore {
    type Pipeline = NoOrder;
    type Backup = NoBackup;

    async fn call(&self, _: ShardId, _: Request, _: Instant) -> Result<Answered, Failure> {
        Err(Failure::of(FailureKind::NoLeader))
    }

    fn pipeline(&self) -> NoOrder {
        NoOrder
    }

    fn identity(&self) -> Identity {
        Identity { cluster: ClusterId(0), node: NodeId(0), shards: 1 }
    }

    fn routing(&self) -> Routing {
        Routing::default()
    }

    async fn status(&self) -> Status {
        Status::default()
    }

    fn stages(&self) -> &Stages {
        &self.stages
    }

    fn backup(&self) -> NoBackup {
        NoBackup
    }

    async fn snapshot(&self, shards: Vec<ShardId>, _: Instant) -> Result<(), TableFailure> {
        shards.first().map_or(Ok(()), |shard| Err(TableFailure::Behind { shard: *shard }))
    }

    fn health(&self, service: &str) -> Option<Serving> {
        let is_known = service.is_empty() || Services::HealthAlone.has(service);
        is_known.then(|| if self.is_stopping.get() { Serving::No } else { Serving::Yes })
    }

    fn health_names(&self) -> Vec<String> {
        let services = SERVICES.into_iter().filter(|name| Services::HealthAlone.has(name));
        std::iter::once("").chain(services).map(str::to_owned).collect()
    }

    fn health_version(&self) -> u64 {
        self.changes.version()
    }

    async fn health_changed(&self, seen: u64) -> u64 {
        self.changes.changed(seen).await
    }
}

/// The backup that this server does not make.
struct NoBackup;

impl BackupSource for NoBackup {
    async fn next(&mut self) -> Result<Option<Bytes>, TableFailure> {
        Err(TableFailure::Behind { shard: ShardId(0) })
    }
}

/// The order of Pipelines that this server does not have.
struct NoOrder;

impl PipelineOrder for NoOrder {
    fn submit(
        &self,
        _: ShardId,
        _: Request,
        _: Instant,
    ) -> impl Future<Output = Result<Answered, Failure>> + 'static {
        ready(Err(Failure::of(FailureKind::NoLeader)))
    }
}
