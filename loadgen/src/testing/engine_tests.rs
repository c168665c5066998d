//! Whole runs against a server in the same process: the engines, their connections and the supervisor.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use hdrhistogram::Histogram;

use crate::args::{Args, Settings};
use crate::engine::{Engine, schedule_of};
use crate::record::{self, Measured, SharedRecord};
use crate::routing::Routing;
use crate::run::{RunError, supervise};
use crate::shared::Shared;
use crate::status::ErrorKind;
use crate::testing::server::{Fault, TestServer};

async fn run(server: &TestServer, line: &str) -> Measured {
    outcome(&server.address, line).await.expect("the server is there")
}

async fn outcome(address: &str, line: &str) -> Result<Measured, RunError> {
    supervise(&Arc::new(settings(address, line))).await
}

fn settings(address: &str, line: &str) -> Settings {
    let words = ["loadgen", "--endpoints", address].into_iter().chain(line.split_whitespace());
    Settings::check(Args::parse_from(words)).expect("good settings")
}

#[tokio::test]
async fn closed_loop_of_health_checks() {
    let server = TestServer::start().await;
    let measured =
        run(&server, "--target health --in-flight 8 --duration 300ms --warmup 50ms --threads 2").await;
    assert!(measured.total.operations() > 100, "{} operations", measured.total.operations());
    assert_eq!(measured.total.errors, [].into());
    assert!(measured.duration_s > 0.29 && measured.duration_s <= 0.3, "{} s", measured.duration_s);
    assert!(measured.total.latency_ns().min() > 1_000);
}

#[tokio::test]
async fn calls_beyond_the_streams_of_a_connection_wait() {
    let server = TestServer::start().await;
    let line = "--target health --in-flight 4096 --connections 1 --duration 500ms --warmup 0s";
    let total = run(&server, line).await.total;
    assert_eq!(total.errors, [].into());
    assert!(total.operations() >= 4096, "{} operations", total.operations());
    // What three of four wait for a stream is in their latency alone.
    let (latency_ns, service_ns) = (total.latency_ns().mean(), total.service_ns().mean());
    assert!(latency_ns > service_ns, "{latency_ns} ns, of which {service_ns} ns were service");
}

/// How many of these took longer than so many milliseconds.
fn slower(times_ns: &Histogram<u64>, ms: u64) -> u64 {
    times_ns.len() - times_ns.count_between(0, ms * 1_000_000)
}

#[tokio::test]
async fn a_stall_shows_in_the_open_loop() {
    let server = TestServer::faulty(Fault::Stall { at: 100, span: Duration::from_secs(1) }).await;
    let line = "--target health --rate 200 --duration 2s --warmup 0s --in-flight 4 --connections 1";
    let total = run(&server, line).await.total;
    // Every call of the schedule was made, although only four could be outstanding.
    assert_eq!((total.operations(), total.failures()), (400, 0));
    // 200 calls were due in the second: 120 of them more than 400 ms before its end.
    let slow = slower(&total.latency_ns(), 400);
    assert!(slow >= 110, "{slow} calls took more than 400 ms");
    // Only those that were on their way were long on their way: the wait of the others was not the server's
    // service, and it is in their latency alone.
    let served_slowly = slower(&total.service_ns(), 400);
    assert!((1..=4).contains(&served_slowly), "{served_slowly} calls were served in more than 400 ms");
    assert!(total.late >= 150, "{} calls were late", total.late);
    assert!(total.late_no_place >= 140, "{} of {} found no place", total.late_no_place, total.late);
}

#[tokio::test]
async fn calls_that_wait_for_a_stream_left_late() {
    let server = TestServer::faulty(Fault::Stall { at: 100, span: Duration::from_secs(1) }).await;
    let line = "--target health --rate 2500 --duration 1s --warmup 0s --in-flight 4096 --connections 1";
    let total = run(&server, line).await.total;
    assert_eq!((total.operations(), total.failures()), (2500, 0));
    // 2500 are due in the second, and 1024 of them are on their way.
    let (late, no_stream) = (total.late, total.late_no_stream);
    assert!(no_stream >= 1000 && total.late_no_place == 0, "{no_stream} of {late} found no stream");
}

#[tokio::test]
async fn who_had_a_place_and_no_stream_is_told_from_who_had_none() {
    let server = TestServer::faulty(Fault::Stall { at: 100, span: Duration::from_secs(1) }).await;
    let line = "--target health --rate 2500 --duration 1s --warmup 0s --in-flight 1500 --connections 1";
    let total = run(&server, line).await.total;
    let (no_place, no_stream) = (total.late_no_place, total.late_no_stream);
    assert!(no_stream >= 400 && no_place >= 500, "{no_stream} without a stream, {no_place} without a place");
}

#[tokio::test]
async fn a_stall_is_in_the_service_time_where_calls_can_leave() {
    let server = TestServer::faulty(Fault::Stall { at: 100, span: Duration::from_secs(1) }).await;
    let total = run(&server, "--target health --rate 200 --duration 2s --warmup 0s").await.total;
    assert_eq!((total.operations(), total.failures()), (400, 0));
    for (name, times) in [("latency", total.latency_ns()), ("service time", total.service_ns())] {
        let slow = slower(&times, 400);
        assert!(slow >= 110, "{name}: {slow} calls took more than 400 ms");
    }
}

#[tokio::test]
async fn a_stall_hides_from_the_closed_loop() {
    let server = TestServer::faulty(Fault::Stall { at: 100, span: Duration::from_secs(1) }).await;
    let line = "--target health --duration 2s --warmup 0s --in-flight 1 --connections 1";
    let total = run(&server, line).await.total;
    for (name, times) in [("latency", total.latency_ns()), ("service time", total.service_ns())] {
        assert_eq!(slower(&times, 900), 1, "{name}: a stall of a second is one call");
    }
    assert_eq!((total.late, total.failures()), (0, 0));
}

#[tokio::test]
async fn the_series_holds_every_call() {
    let server = TestServer::start().await;
    let line = "--target health --rate 500 --duration 1500ms --warmup 1s";
    let Measured { total, series, .. } = run(&server, line).await;
    let points = series.points();
    assert_eq!(points.iter().map(|point| point.operations).sum::<u64>(), 1250);
    assert_eq!(total.operations(), 750);
    assert!(points[0].is_warmup && !points[points.len() - 1].is_warmup, "{} points", points.len());
    assert!(points[0].usage.cpu_ns > 0 && points[0].latency.p50 > 0);
}

#[tokio::test]
async fn what_cannot_be_sent_in_time_is_dropped() {
    let server = TestServer::faulty(Fault::Stall { at: 1, span: Duration::from_millis(1500) }).await;
    let line = "--target health --rate 100 --duration 1s --warmup 0s --in-flight 2 --timeout 300ms";
    let total = run(&server, line).await.total;
    assert_eq!(total.operations() + total.failures(), 100, "{:?}", total.errors);
    assert!(total.errors[&ErrorKind::Dropped] > 50, "{:?}", total.errors);
    assert!(total.errors[&ErrorKind::Timeout] >= 2, "{:?}", total.errors);
    assert_eq!((total.timeout_ns.len(), total.error_ns.len()), (total.failures(), 0));
    assert!(total.timeout_ns.min() >= 299_000_000, "{}", total.timeout_ns.min());
}

#[tokio::test]
async fn load_then_get() {
    let server = TestServer::start().await;
    let missing = run(&server, "--workload get --keys 1000 --duration 100ms --warmup 0s").await.total;
    assert!(missing.operations() > 0 && missing.not_found == missing.operations());
    let loaded = run(&server, "--load --keys 1000 --threads 2").await.total;
    assert_eq!((loaded.operations(), loaded.failures(), server.keys()), (1000, 0, 1000));
    let found = run(&server, "--workload get --keys 1000 --duration 100ms --warmup 0s").await.total;
    assert!(found.operations() > 0 && found.not_found == 0, "{} not found", found.not_found);
    let line = "--workload mixed:50 --key-distribution zipfian --keys 1000 --duration 100ms --warmup 0s";
    assert!(run(&server, line).await.total.operations() > 0);
}

#[tokio::test]
async fn a_load_writes_what_was_refused_again() {
    let server = TestServer::faulty(Fault::RefuseEvery(5)).await;
    let total = run(&server, "--load --keys 200 --in-flight 10").await.total;
    assert_eq!((total.operations(), server.keys()), (200, 200));
    assert_eq!(total.errors.len(), 1);
    let (kind, count) = total.errors.first_key_value().expect("one kind");
    assert_eq!(kind.to_string(), "UNAVAILABLE (NO_LEADER)");
    assert!((49..=50).contains(count), "{count} refusals");
}

#[tokio::test]
async fn pipelines_carry_every_workload() {
    let server = TestServer::faulty(Fault::RefuseEvery(7)).await;
    let load = "--target pipeline --load --keys 1000 --threads 2";
    let loaded = run(&server, load).await.total;
    assert_eq!((loaded.operations(), server.keys()), (1000, 1000));
    let kinds: Vec<String> = loaded.errors.keys().map(ToString::to_string).collect();
    assert_eq!(kinds, ["UNAVAILABLE (NO_LEADER)"]);

    let server = TestServer::start().await;
    let line = "--target pipeline --workload mixed:50 --keys 100 --in-flight 50 --duration 200ms --warmup 0s";
    let total = run(&server, line).await.total;
    assert!(total.operations() > 1000 && total.failures() == 0, "{total:?}");
    assert!(total.not_found > 0 && total.not_found < total.operations(), "{} not found", total.not_found);
    let line = "--target pipeline --load --keys 20 --value-size 1000000 --in-flight 8 --connections 1";
    assert_eq!(run(&server, line).await.total.operations(), 20);
    let line = "--target pipeline --workload get --keys 20 --in-flight 4 --duration 300ms --warmup 0s";
    let total = run(&server, line).await.total;
    assert!(total.operations() > 20 && total.failures() == 0, "{:?}", total.errors);
}

#[tokio::test]
async fn its_own_cost_is_measured() {
    let server = TestServer::start().await;
    let line = "--target health --in-flight 8 --duration 300ms --warmup 0s --threads 2";
    let total = run(&server, line).await.total;
    assert_eq!(total.usage.len(), 2);
    for usage in &total.usage {
        assert!(usage.cpu_ns > 0 && usage.operations > 0 && usage.wall_ns >= 200_000_000, "{usage:?}");
    }
}

#[tokio::test]
async fn large_values_go_and_come() {
    let server = TestServer::start().await;
    let line = "--load --keys 20 --value-size 1000000 --in-flight 4";
    assert_eq!(run(&server, line).await.total.operations(), 20);
    let line = "--workload get --keys 20 --in-flight 4 --duration 300ms --warmup 0s";
    let total = run(&server, line).await.total;
    assert!(total.operations() > 20 && total.not_found == 0 && total.failures() == 0, "{:?}", total.errors);
    let line = "--workload append --keys 20 --value-size 100000 --duration 100ms --warmup 0s --in-flight 1";
    let total = run(&server, line).await.total;
    let limit = total.errors.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(limit, ["FAILED_PRECONDITION (LIMIT)"]);
}

#[tokio::test]
async fn nobody_there() {
    let started = outcome("127.0.0.1:1", "--target health --duration 100ms").await;
    assert!(matches!(started, Err(RunError::Unreachable(_))));
}

#[tokio::test]
async fn every_workload_on_every_target_that_has_it() {
    let shared =
        ["put", "get", "delete", "mixed:50", "cas", "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-f"];
    let with = |more: &[&'static str]| [&shared[..], more].concat();
    let targets = [
        ("kv", with(&["append", "scan", "ycsb-e"])),
        ("pipeline", with(&["append"])),
        ("etcd", with(&["scan", "ycsb-e"])),
    ];
    for (target, workloads) in targets {
        for workload in workloads {
            let server = TestServer::start().await;
            let line = format!(
                "--target {target} --workload {workload} --preload --keys 50 --value-size 8..64 \
                 --in-flight 4 --duration 50ms --warmup 0s --threads 2"
            );
            let total = run(&server, &line).await.total;
            assert!(total.operations() > 20, "{line}: {} operations", total.operations());
            assert_eq!(total.errors, [].into(), "{line}");
            assert!(server.keys() >= 50 || workload == "delete", "{line}: {} keys", server.keys());
            let scans = ["scan", "ycsb-e"].contains(&workload);
            assert_eq!(total.told.rows > 20, scans, "{line}: {:?}", total.told);
            // What was loaded, or inserted and answered, is there.
            assert!(total.not_found == 0 || workload == "delete", "{line}: {}", total.not_found);
        }
    }
}

#[tokio::test]
async fn swaps_learn_what_is_there() {
    for target in ["kv", "pipeline", "etcd"] {
        let server = TestServer::start().await;
        let line = format!(
            "--target {target} --workload cas --preload --keys 10 --key-distribution sequential \
             --in-flight 1 --duration 100ms --warmup 0s --connections 1"
        );
        let total = run(&server, &line).await.total;
        // One call at a time: the first of each key finds it there, and every other succeeds.
        assert_eq!(total.told.conflicts, 10, "{target}: of {}", total.operations());
        assert!(total.operations() > 20, "{target}: {} operations", total.operations());
    }
}

#[tokio::test]
async fn a_read_modify_write_that_cannot_write_fails_once() {
    let server = TestServer::faulty(Fault::RefuseEvery(3)).await;
    let line = "--workload ycsb-f --keys 10 --in-flight 3 --duration 300ms --warmup 0s";
    let total = run(&server, line).await.total;
    assert!(total.operations() > 0 && total.failures() > 0);
    assert_eq!(total.errors.len(), 1, "{:?}", total.errors);
}

#[tokio::test]
async fn poisson_arrivals_keep_their_rate() {
    let server = TestServer::start().await;
    let line = "--target health --rate 1000 --arrivals poisson --threads 2 --duration 1s --warmup 0s";
    let total = run(&server, line).await.total;
    // The seed decides how many calls are due: 1000 are expected, and their number deviates by 32.
    assert!((870..1130).contains(&(total.operations() + total.failures())), "{}", total.operations());
}

#[tokio::test]
async fn an_engine_wakes_for_gathered_sends_alone() {
    // While calls are due nothing is answered, so that nothing but them wakes it: a thousand calls in 100 ms.
    let server = TestServer::faulty(Fault::Stall { at: 1, span: Duration::from_millis(300) }).await;
    let line = "--target health --rate 10000 --gather 1ms --duration 100ms --warmup 0s --connections 1";
    let settings = settings(&server.address, line);
    let shared = Arc::new(Shared::new(Routing::any_of(&settings.endpoints)));
    let record = SharedRecord::default();
    let mut engine =
        Engine::new(&settings, (0, 1), Arc::clone(&shared), Arc::clone(&record)).expect("a timer is there");
    poll_fn(|context| engine.poll_connect(context)).await.expect("it connects");
    let start_ns = shared.now_ns();
    engine.begin(schedule_of(&settings, (0, 1), start_ns));
    let mut polls = 0;
    let run = poll_fn(|context| {
        polls += u64::from(shared.now_ns() < start_ns + 100_000_000);
        engine.poll_run(context)
    });
    run.await.expect("it runs");
    let total = &record::lock(&record).total;
    assert_eq!((total.operations(), total.failures()), (1000, 0));
    // A hundred alarms, each of which may be seen twice, and some words of the connection itself.
    assert!(polls <= 250, "it was woken {polls} times");
}

#[tokio::test]
async fn a_trace_is_replayed_once() {
    let path = std::env::temp_dir().join(format!("loadgen-trace-{}", std::process::id()));
    let lines: String = (0..500).map(|n| format!("put replayed-{n} {n}\nget replayed-{n}\n")).collect();
    std::fs::write(&path, lines).expect("a temporary file");
    let server = TestServer::start().await;
    let line = format!("--trace {} --trace-once --in-flight 1 --connections 1 --warmup 0s", path.display());
    let total = run(&server, &line).await.total;
    std::fs::remove_file(&path).expect("it was written");
    assert_eq!((total.operations(), total.failures(), total.not_found), (1000, 0, 0));
    assert_eq!(server.keys(), 500);
}

async fn audited(server: &TestServer, line: &str) -> serde_json::Value {
    let line =
        format!("{line} --audit --in-flight 8 --duration 200ms --warmup 0s --threads 2 --connections 2");
    run(server, &line).await.total.audit.expect("it was asked for").json()
}

#[tokio::test]
async fn an_audit_passes_on_a_correct_server() {
    let shared = ["put", "mixed:50", "cas", "ycsb-d", "ycsb-f", "delete --preload"];
    let targets = [
        ("kv", [&shared[..], &["append", "ycsb-e", "put --trace"]].concat()),
        ("pipeline", [&shared[..], &["append"]].concat()),
        ("etcd", shared.to_vec()),
    ];
    let trace = tempfile("put a 30\nget a\nappend a 20\ndelete b\nappend b 40\nget b\nput c 99\n");
    for (target, workloads) in targets {
        for workload in workloads {
            let server = TestServer::start().await;
            let line = match workload {
                "put --trace" => format!("--target {target} --trace {}", trace.display()),
                workload => format!("--target {target} --workload {workload} --keys 10 --value-size 16..64"),
            };
            let audit = audited(&server, &line).await;
            assert_eq!(audit["passed"], true, "{line}: {audit}");
            assert!(audit["operations"].as_u64() > Some(20) && audit["unread"] == 0, "{line}: {audit}");
            let whole = audit["sampled_percent"].as_f64().expect("a number");
            assert!((99.9..=100.0).contains(&whole) || workload == "ycsb-e", "{line}: {audit}");
        }
    }
    std::fs::remove_file(trace).expect("it is ours");
}

#[tokio::test]
async fn an_audit_fails_on_wrong_answers() {
    let cases = [
        (Fault::StaleEvery(50), "--workload mixed:50 --keys 4", "stale read"),
        (Fault::LoseEvery(100), "--workload mixed:50 --keys 4", "acknowledged write lost"),
        (Fault::DoubleEvery(100), "--workload append --value-size 20 --keys 4", "write executed twice"),
    ];
    for target in ["kv", "pipeline"] {
        for (fault, line, kind) in cases {
            let server = TestServer::faulty(fault).await;
            let audit = audited(&server, &format!("--target {target} {line}")).await;
            assert_eq!(audit["passed"], false, "{target} {line}: {audit}");
            let violations = audit["violations"].as_array().expect("a list");
            assert!(violations.iter().any(|one| one["kind"] == kind), "{target} {line}: {audit}");
        }
    }
}

#[tokio::test]
async fn an_audit_passes_where_calls_fail_and_where_a_load_tries_again() {
    let server = TestServer::faulty(Fault::RefuseEvery(5)).await;
    let audit = audited(&server, "--workload mixed:50 --keys 4").await;
    assert_eq!(audit["passed"], true, "{audit}");
    let server = TestServer::faulty(Fault::Stall { at: 100, span: Duration::from_millis(700) }).await;
    let audit = audited(&server, "--workload mixed:50 --keys 4 --timeout 50ms").await;
    assert_eq!(audit["passed"], true, "{audit}");
    let server = TestServer::faulty(Fault::RefuseEvery(5)).await;
    let load = run(&server, "--load --keys 300 --audit").await.total.audit.expect("it was asked for");
    assert!(load.verdict().is_ok(), "{}", load.text());
}

/// A file of this test program.
fn tempfile(text: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("loadgen-{}.trace", std::process::id()));
    std::fs::write(&path, text).expect("the directory for it");
    path
}
