//! Tests of the executor: order, time, clocks, pauses and crashes.

use std::future::pending;

use distribkv::env::signal::{Signal, answer};

use super::*;

const NODE: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn fifo() -> World {
    World::new(WorldConfig { order: Order::Fifo, ..WorldConfig::seeded(1) })
}

/// A list that tasks write to, and a function that makes writers.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn say(&self, what: &str) {
        self.0.borrow_mut().push(what.to_string());
    }

    fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}

/// Says something when it is dropped, as a guard in a task would.
struct OnDrop(Log, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.say(self.1);
    }
}

#[test]
fn time_leaps_to_the_next_timer() {
    let world = fifo();
    let group = world.start(NODE);
    let log = Log::default();
    for (name, wait) in [("late", 30), ("early", 10), ("middle", 20)] {
        let (world, log) = (world.handle(), log.clone());
        world.clone().spawn(group, async move {
            world.sleep(group, millis(wait)).await;
            log.say(&format!("{name} {}", world.time().0));
        });
    }
    assert_eq!(world.run_for(millis(25)), Stop::TimedOut);
    assert_eq!(world.time(), WorldTime(25_000));
    assert_eq!(world.run_for(millis(25)), Stop::Quiescent);
    assert_eq!(log.all(), ["early 10000", "middle 20000", "late 30000"]);
}

fn order_of(config: WorldConfig) -> (Vec<String>, u64) {
    let world = World::new(config);
    let group = world.start(NODE);
    let log = Log::default();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let (handle, log) = (world.handle(), log.clone());
        world.spawn(group, async move {
            handle.sleep(group, millis(1)).await;
            log.say(name);
        });
    }
    assert_eq!(world.run_for(millis(5)), Stop::Quiescent);
    (log.all(), world.trace().hash())
}

#[test]
fn the_seed_decides_the_order() {
    let fifo = order_of(WorldConfig { order: Order::Fifo, ..WorldConfig::seeded(9) });
    assert_eq!(fifo.0, ["a", "b", "c", "d", "e", "f"]);
    for seed in 0..20 {
        assert_eq!(order_of(WorldConfig::seeded(seed)), order_of(WorldConfig::seeded(seed)), "seed {seed}");
    }
    let orders: std::collections::BTreeSet<_> = (0..20).map(|s| order_of(WorldConfig::seeded(s)).0).collect();
    assert!(orders.len() > 10, "20 seeds give {} orders", orders.len());
}

#[test]
fn a_crash_drops_every_task_of_the_life_and_no_other() {
    let world = fifo();
    let (group, other) = (world.start(NODE), world.start(OTHER));
    let log = Log::default();
    for (group, name) in [(group, "first"), (group, "second"), (other, "other")] {
        let guard = OnDrop(log.clone(), name);
        world.spawn(group, async move {
            let _guard = guard;
            pending::<()>().await;
        });
    }
    // From inside a task of another group.
    let handle = world.handle();
    world.spawn(other, async move {
        handle.sleep(other, millis(1)).await;
        handle.crash(NODE);
    });
    assert_eq!(world.run_for(millis(5)), Stop::Quiescent);
    assert_eq!(log.all(), ["first", "second"]);
    assert!(!world.is_alive(group) && world.is_alive(other));
    drop(world);
    assert_eq!(log.all(), ["first", "second", "other"]);
}

#[test]
fn a_task_that_crashes_its_own_node_goes_no_further_than_its_poll() {
    let world = fifo();
    let group = world.start(NODE);
    let log = Log::default();
    let (handle, said) = (world.handle(), log.clone());
    world.spawn(group, async move {
        let _guard = OnDrop(said.clone(), "dropped");
        handle.crash(NODE);
        said.say("rest of the poll");
        // Nothing that is begun in an ended life ever runs.
        handle.spawn(group, async { panic!("spawned by the dead") });
        handle.sleep(group, Duration::ZERO).await;
        said.say("the next poll");
    });
    assert_eq!(world.run_for(millis(5)), Stop::Quiescent);
    assert_eq!(log.all(), ["rest of the poll", "dropped"]);
    let again = world.start(NODE);
    assert_eq!((again.incarnation, world.is_alive(group)), (2, false));
}

#[test]
fn a_destructor_may_use_the_world() {
    struct Meddler(WorldHandle, Group, Signal);
    impl Drop for Meddler {
        fn drop(&mut self) {
            let (world, group) = (self.0.clone(), self.1);
            let waiting = world.sleep(group, millis(1));
            world.clone().spawn(group, async move {
                waiting.await;
                world.crash(OTHER);
            });
            self.2.raise();
        }
    }
    let world = fifo();
    let (group, other) = (world.start(NODE), world.start(OTHER));
    let signal = Signal::default();
    let meddler = Meddler(world.handle(), group, signal.clone());
    world.spawn(group, async move {
        let _meddler = meddler;
        pending::<()>().await;
    });
    world.run_for(millis(1));
    world.crash(NODE);
    assert_eq!(world.run(other, millis(5), async move { signal.wait().await }), Ok(()));
    assert!(world.is_alive(other), "a task of an ended life ran");
}

#[test]
fn a_paused_node_does_its_timers_late() {
    let world = fifo();
    let (group, other) = (world.start(NODE), world.start(OTHER));
    let log = Log::default();
    for (group, name) in [(group, "paused"), (other, "moving")] {
        let (handle, log) = (world.handle(), log.clone());
        world.spawn(group, async move {
            handle.sleep(group, millis(10)).await;
            log.say(&format!("{name} {}", handle.time().0));
        });
    }
    world.run_for(millis(5));
    world.pause(NODE);
    world.run_for(millis(25));
    world.resume(NODE);
    world.run_for(millis(5));
    assert_eq!(log.all(), ["moving 10000", "paused 30000"]);
}

#[test]
fn clocks_drift_and_jump_and_never_go_back() {
    let world = fifo();
    let (fast, slow) = (world.start(NODE), world.start(OTHER));
    world.set_drift(NODE, 100_000);
    world.set_drift(OTHER, -100_000);
    let log = Log::default();
    for (group, name) in [(fast, "fast"), (slow, "slow")] {
        let (handle, log) = (world.handle(), log.clone());
        world.spawn(group, async move {
            let before = handle.read_clock(group.node);
            handle.sleep(group, millis(99)).await;
            let slept = handle.read_clock(group.node).since(before);
            assert!(slept >= millis(99), "{name} slept {slept:?} of its own time");
            log.say(&format!("{name} {}", handle.time().0));
        });
    }
    world.run_for(millis(50));
    let before = world.clock(OTHER);
    world.jump(OTHER, millis(54));
    assert_eq!(world.clock(OTHER).since(before), millis(54));
    world.run_for(millis(200));
    // 99 ms at 1.1 of the speed; and 45 + 54 ms at 0.9 of it.
    assert_eq!(log.all(), ["slow 50000", "fast 90000"]);
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    let world = fifo();
    let group = world.start(NODE);
    drop(world.sleep(group, millis(1000)));
    assert_eq!(world.step(), Step::Quiescent);
    assert_eq!(world.time(), WorldTime(0));
}

#[test]
fn a_livelock_is_found() {
    let world = World::new(WorldConfig { steps_at_once_max: 1000, ..WorldConfig::seeded(1) });
    let group = world.start(NODE);
    let signal = Signal::default();
    world.spawn(group, async move {
        loop {
            signal.raise();
            signal.wait().await;
            let mut yielded = false;
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    });
    assert_eq!(world.run_for(millis(1)), Stop::Livelock);
}

#[test]
fn run_tells_why_it_did_not_end() {
    let world = fifo();
    let group = world.start(NODE);
    let (sender, receiver) = answer();
    world.after(millis(3), move || sender.send(7));
    assert_eq!(world.run(group, millis(5), receiver), Ok(Some(7)));
    assert_eq!(world.run(group, millis(5), pending::<()>()), Err(Stop::Quiescent));
    let sleep = world.sleep(group, millis(50));
    assert_eq!(world.run(group, millis(5), sleep), Err(Stop::TimedOut));
    let handle = world.handle();
    assert_eq!(world.run(group, millis(5), async move { handle.crash(NODE) }), Ok(()));
    assert_eq!(world.run(group, millis(5), async {}), Err(Stop::Crashed));
}

#[test]
fn a_dropped_world_is_freed() {
    let world = fifo();
    let group = world.start(NODE);
    let inner = Rc::downgrade(&world.handle.inner);
    for wait in 0..3 {
        let handle = world.handle();
        world.spawn(group, async move {
            handle.sleep(group, millis(wait)).await;
            pending::<()>().await;
            drop(handle);
        });
        let handle = world.handle();
        world.after(millis(50), move || drop(handle));
    }
    world.run_for(millis(1));
    drop(world);
    assert!(inner.upgrade().is_none(), "a world that nobody holds is still there");
}
