//! [`distribkv::env::Env`] on the simulated executor and disk.
//!
//! A [`Machine`] is what outlives a node's process: its disk. Booting it starts a life, and each core of that
//! life gets a [`SimEnv`].
//!
//! Invariants:
//! - An environment belongs to one life: after its end, tasks are not spawned, sleeps do not end, operations
//!   of files do not return and change nothing.
//! - Random numbers depend on the seed, the node, the life and the core alone.
//!
//! It deliberately does not tell cores apart in the executor: all cores of a node run, pause and crash
//! together.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use distribkv::env::{BLOCK_BYTES, Env, File, Instant, OpenMode};
use distribkv::ids::{CoreId, NodeId};

use crate::disk::{Crash, Disk, DiskConfig, OpenFile};
use crate::executor::{Group, WorldHandle};
use crate::random::{Choices, Random, mix};

/// What a node runs on: its disk survives every crash.
#[derive(Clone)]
pub struct Machine {
    world: WorldHandle,
    node: NodeId,
    disk: Disk,
}

impl Machine {
    /// A machine with an empty disk, switched off. Crashes leave what the seed draws.
    #[must_use]
    pub fn new(world: &WorldHandle, node: NodeId, config: DiskConfig) -> Self {
        let choices = Choices::random(world.random(0x6372_6173_0000_0000 | u64::from(node.0)));
        Self::with_choices(world, node, config, choices)
    }

    /// A machine whose crashes leave what `choices` say.
    #[must_use]
    pub fn with_choices(world: &WorldHandle, node: NodeId, config: DiskConfig, choices: Choices) -> Self {
        Self { world: world.clone(), node, disk: Disk::new(world, node, config, choices) }
    }

    /// Starts the node's process: a new life without tasks.
    pub fn boot(&self) -> Group {
        self.world.start(self.node)
    }

    /// The environment of a core in the life that goes on; the node must be running.
    #[must_use]
    pub fn env(&self, core: CoreId) -> SimEnv {
        let Some(group) = self.world.group_of(self.node) else {
            panic!("node {} has no environment while it is not running", self.node);
        };
        let label = mix(mix(mix(u64::from(self.node.0)) ^ group.incarnation) ^ u64::from(core.0));
        let random = Rc::new(RefCell::new(self.world.random(label | 1 << 63)));
        SimEnv { world: self.world.clone(), disk: self.disk.clone(), group, core, random }
    }

    /// Stops the node at once, in this way.
    pub fn crash(&self, crash: Crash) {
        self.disk.crash(crash);
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The disk, for faults and for looking at it.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

/// The environment of one core in one life of a node.
#[derive(Clone)]
pub struct SimEnv {
    world: WorldHandle,
    disk: Disk,
    group: Group,
    core: CoreId,
    random: Rc<RefCell<Random>>,
}

impl SimEnv {
    /// The life that this environment belongs to.
    #[must_use]
    pub fn group(&self) -> Group {
        self.group
    }

    /// The core.
    #[must_use]
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// The world around.
    #[must_use]
    pub fn world(&self) -> &WorldHandle {
        &self.world
    }
}

impl Env for SimEnv {
    type Buf = SimBuf;
    type File = SimFile;

    fn now(&self) -> Instant {
        self.world.read_clock(self.group.node)
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().draw()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        self.world.sleep(self.group, duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.world.spawn(self.group, task);
    }

    fn buf(&self, len: usize) -> SimBuf {
        assert!(len.is_multiple_of(BLOCK_BYTES), "a buffer of {len} bytes is not of whole blocks");
        SimBuf(vec![0; len].into_boxed_slice())
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        self.disk.open(self.group, path, mode).await.map(SimFile)
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(self.group, dir).await
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(self.group, dir).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(self.group, from, to).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(self.group, path).await
    }

    async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(self.group, dir).await
    }

    /// At once, and of no chance: a look changes no run.
    async fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.disk.free_bytes())
    }
}

/// Memory for writes. It need not be aligned: nothing here hands it to a kernel.
pub struct SimBuf(Box<[u8]>);

impl AsRef<[u8]> for SimBuf {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for SimBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// An open file of a simulated disk.
pub struct SimFile(OpenFile);

impl File for SimFile {
    type Buf = SimBuf;

    async fn write_at(&self, buf: Rc<SimBuf>, pos: u64) -> io::Result<()> {
        let block = BLOCK_BYTES as u64;
        assert!(pos.is_multiple_of(block), "a write at {pos} is not at a block");
        assert!(buf.0.len().is_multiple_of(BLOCK_BYTES), "a write of {} bytes", buf.0.len());
        // A copy, as a kernel takes one: what becomes of the buffer later does not change what is in flight.
        self.0.write(pos, Rc::from(&buf.0[..])).await
    }

    async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        self.0.read(pos, len).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.0.sync().await
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len).await
    }

    async fn len(&self) -> io::Result<u64> {
        self.0.len().await
    }

    async fn close(self) -> io::Result<()> {
        self.0.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{Stop, World, WorldConfig};
    use crate::network::{LinkConfig, Network, NetworkConfig, Place};
    use crate::random::Chance;

    const CORE: CoreId = CoreId(0);

    #[test]
    fn an_ended_life_touches_nothing() {
        let world = World::new(WorldConfig::seeded(1));
        let machine = Machine::new(&world, NodeId(1), DiskConfig::default());
        machine.boot();
        let old = machine.env(CORE);
        machine.crash(Crash::Process);
        let next = machine.boot();
        let before = machine.disk().operations();
        let task = async move {
            old.spawn(async { panic!("spawned by the dead") });
            let opened = old.open(Path::new("/a"), OpenMode::Create).await;
            assert!(opened.is_err(), "an operation of the dead returned");
        };
        assert_eq!(world.run(next, Duration::from_secs(1), task), Err(Stop::Quiescent));
        assert_eq!(machine.disk().operations(), before);
    }

    #[test]
    fn every_life_and_core_draws_its_own_numbers() {
        let draws = |seed| {
            let world = World::new(WorldConfig::seeded(seed));
            let machine = Machine::new(&world, NodeId(1), DiskConfig::default());
            machine.boot();
            let first = [machine.env(CORE).random(), machine.env(CoreId(1)).random()];
            machine.crash(Crash::Process);
            machine.boot();
            [first[0], first[1], machine.env(CORE).random()]
        };
        let [one, other, next] = draws(4);
        assert!(one != other && one != next && other != next, "{one} {other} {next}");
        assert_eq!(draws(4), [one, other, next]);
        assert_ne!(draws(5), [one, other, next]);
    }

    /// A node that writes down what it hears and passes it on.
    async fn relay(env: SimEnv, network: Network<u64>, next: Place) -> io::Result<()> {
        let here = Place { node: env.group().node, core: CORE };
        let inbox = network.attach(here);
        let name = format!("/log{}", env.group().incarnation);
        let file = env.open(Path::new(&name), OpenMode::CreateDurable).await?;
        for block in 0.. {
            let packet = inbox.receive().await;
            let mut buf = env.buf(BLOCK_BYTES);
            buf.as_mut()[..8].copy_from_slice(&packet.payload.to_le_bytes());
            file.write_at(Rc::new(buf), block * BLOCK_BYTES as u64).await?;
            env.sleep(Duration::from_micros(env.random() % 500)).await;
            network.send(here, next, packet.payload + 1);
        }
        Ok(())
    }

    /// Three nodes pass numbers round, over a bad network, and one crashes now and then.
    fn ring(seed: u64) -> (u64, u64, Vec<(String, Vec<u8>)>) {
        let config = WorldConfig { clock_read_us: 1, timer_late_us_max: 50, ..WorldConfig::seeded(seed) };
        let world = World::new(config);
        let bad = LinkConfig {
            loss: Chance::per_mille(50),
            replay: Chance::per_mille(100),
            ..LinkConfig::reliable(50, 500)
        };
        let network = Network::new(&world, NetworkConfig { link: bad, ..NetworkConfig::reliable(0, 0) });
        let machines = [1, 2, 3].map(|node| Machine::new(&world, NodeId(node), DiskConfig::default()));
        let start = |machine: &Machine| {
            let group = machine.boot();
            let next = Place { node: NodeId(group.node.0 % 3 + 1), core: CORE };
            let task = relay(machine.env(CORE), network.clone(), next);
            world.spawn(group, async move {
                let ended = task.await;
                assert!(ended.is_ok(), "{ended:?}");
            });
        };
        machines.iter().for_each(start);
        let mut random = world.random(99);
        for round in 0..20 {
            let [from, to] = [1, 2].map(|node| Place { node: NodeId(node), core: CORE });
            network.send(from, to, round * 1000);
            world.run_for(Duration::from_millis(5));
            let crashed = &machines[random.index(3)];
            crashed.crash(if random.below(2) == 0 { Crash::Process } else { Crash::Power });
            world.run_for(Duration::from_millis(1));
            start(crashed);
        }
        (world.trace().hash(), network.counts().landed, machines[0].disk().files(Path::new("/")))
    }

    #[test]
    fn one_seed_is_one_run_bit_for_bit() {
        let runs: Vec<_> = (0..10).map(ring).collect();
        for (seed, run) in (0..10).zip(&runs) {
            assert!(ring(seed) == *run, "seed {seed} ran in two ways");
            assert!(run.1 > 50, "seed {seed}: {} packets landed", run.1);
        }
        let hashes: std::collections::BTreeSet<u64> = runs.iter().map(|run| run.0).collect();
        assert_eq!(hashes.len(), 10, "seeds differ");
    }
}
