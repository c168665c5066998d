//! Whole comparisons of servers in the same process.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use tokio::sync::watch;

use crate::args::{Args, Settings, Versus};
use crate::compare::{Comparison, Ended, Step, compare, json, page};
use crate::testing::server::{Fault, TestServer};

/// The settings of both sides, with hardly a pause.
fn sides(one: &str, other: &str, line: &str) -> ([Arc<Settings>; 2], Versus) {
    let words =
        ["loadgen", "--endpoints", one, "--compare", other].into_iter().chain(line.split_whitespace());
    let settings = Settings::check(Args::parse_from(words)).expect("good settings");
    let versus = settings.versus.clone().expect("it is compared");
    let versus = Versus { pause: Duration::from_millis(1), ..versus };
    ([Arc::new(settings), Arc::clone(&versus.settings)], versus)
}

/// A comparison, and what was told meanwhile. It is interrupted once `until` has come.
async fn run(
    (sides, versus): ([Arc<Settings>; 2], Versus),
    until: Option<Step>,
) -> (Comparison, Ended, Vec<Step>) {
    let (stop, stopped) = watch::channel(false);
    let mut steps = Vec::new();
    let mut tell = |_: &Comparison, step: Step| {
        steps.push(step);
        if until == Some(step) {
            stop.send_replace(true);
        }
    };
    let (comparison, ended) = compare(sides, &versus, stopped, &mut tell).await;
    (comparison, ended, steps)
}

#[tokio::test]
async fn a_node_that_is_not_there_is_told() {
    let (one, other) = (TestServer::start().await, TestServer::start().await);
    // Nobody listens at port 1.
    let missing = format!("etcd@{},127.0.0.1:1", other.address);
    let line = format!("--workload put --rounds 1 --preload {SHORT}");
    let (comparison, ended, _) = run(sides(&one.address, &missing, &line), None).await;
    assert!(matches!(ended, Ended::Whole), "{ended:?}");
    let warnings = comparison.warnings();
    assert!(warnings.iter().any(|why| why.contains("1 connections could not be made")), "{warnings:?}");
}

const SHORT: &str = "--duration 100ms --warmup 10ms --keys 50 --in-flight 4";

fn runs(side: usize, round: usize) -> Step {
    Step::Runs { side, round }
}

#[tokio::test]
async fn the_sides_run_in_turn_and_each_begins_every_second_round() {
    let [kv, etcd] = [TestServer::start().await, TestServer::start().await];
    let line = format!("{SHORT} --workload mixed:50 --preload --rounds 3 --output json");
    let settings = sides(&kv.address, &format!("etcd@{}", etcd.address), &line);
    let versus = settings.1.clone();
    let (comparison, ended, steps) = run(settings, None).await;
    assert!(matches!(ended, Ended::Whole), "{ended:?}");
    let round = |round: usize, [one, other]: [usize; 2]| [runs(one, round), runs(other, round), Step::Added];
    let want = [round(1, [0, 1]), round(2, [1, 0]), round(3, [0, 1])].concat();
    assert_eq!(steps, [&[Step::Reached, Step::Begins], &want[..]].concat());
    // Both were loaded, and each has only its own keys.
    assert_eq!((kv.keys(), etcd.keys()), (50, 50));
    let json = json::of(&comparison, &versus);
    for (side, operations) in [("a", ["get", "put"]), ("b", ["get", "put"])] {
        let side = &json["compare"][side];
        let all = side["runs"].as_array().expect("a list");
        assert_eq!(all.len(), 3);
        for run in all {
            assert_eq!((&run["errors"], &run["not_found"]), (&0.into(), &0.into()), "{run}");
            assert!(run["operations"].as_u64() > Some(0), "{run}");
            assert!(operations.iter().all(|name| run["by_operation"][name].is_object()), "{run}");
        }
    }
    assert_eq!(
        (&json["compare"]["a"]["label"], &json["compare"]["b"]["label"]),
        (&"kv".into(), &"etcd".into())
    );
    assert_eq!(json["compare"]["a"]["server"]["version"], "9.8");
    assert!(json["compare"]["ratios"]["throughput_per_s"]["median"].as_f64() > Some(0.0));
    assert!(page::of(&comparison).contains("kv / etcd"));
}

#[tokio::test]
async fn a_health_check_stands_for_the_edge_alone() {
    let server = TestServer::start().await;
    let line = format!("{SHORT} --workload get --preload --rounds 1");
    let settings = sides(&server.address, &format!("health@{}", server.address), &line);
    let (comparison, ended, _) = run(settings, None).await;
    assert!(matches!(ended, Ended::Whole), "{ended:?}");
    let kinds = |side: usize| -> Vec<_> {
        comparison.sides[side].sum.total.by_operation().map(|(name, _)| name).collect()
    };
    assert_eq!((kinds(0), kinds(1)), (vec!["get"], vec!["check"]));
    assert_eq!((comparison.rounds(), comparison.sides[0].sum.total.not_found), (1, 0));
}

#[tokio::test]
async fn an_interruption_keeps_the_whole_rounds() {
    let [one, other] = [TestServer::start().await, TestServer::start().await];
    let settings = || sides(&one.address, &other.address, &format!("{SHORT} --rounds 9"));
    // The second run of the second round is cut off.
    let (comparison, ended, _) = run(settings(), Some(runs(0, 2))).await;
    assert!(matches!(ended, Ended::Interrupted), "{ended:?}");
    assert_eq!((comparison.rounds(), comparison.sides[1].runs.len()), (1, 1));
    assert_eq!(
        comparison.warnings().first().map(String::as_str),
        Some("it ended early: 1 of 9 rounds were made")
    );
    let (comparison, ended, steps) = run(settings(), Some(Step::Reached)).await;
    assert!(matches!(ended, Ended::Interrupted), "{ended:?}");
    assert_eq!((comparison.rounds(), steps), (0, vec![Step::Reached, Step::Begins, runs(0, 1)]));
}

#[tokio::test]
async fn the_first_run_that_fails_ends_it() {
    let [one, other] = [TestServer::start().await, TestServer::faulty(Fault::RefuseEvery(3)).await];
    let line = format!("{SHORT} --workload put --rounds 3");
    let (comparison, ended, steps) = run(sides(&one.address, &other.address, &line), None).await;
    let Ended::Failed(failed) = ended else { panic!("{ended:?}") };
    assert_eq!((failed.side, failed.round, failed.exit_code()), (1, Some(1), 1));
    let told = failed.told(&comparison);
    assert!(told.contains(&format!("kv {}, round 1: ", other.address)), "{told}");
    assert!(told.contains("more than 1 %") && told.contains("UNAVAILABLE (NO_LEADER)"), "{told}");
    assert_eq!((comparison.rounds(), steps.len()), (0, 4));
    // Where so many errors are allowed, they are a warning.
    let line = format!("{line} --errors-max-percent 90");
    let (comparison, ended, _) = run(sides(&one.address, &other.address, &line), None).await;
    assert!(matches!(ended, Ended::Whole), "{ended:?}");
    let warnings = comparison.warnings().join("\n");
    assert!(warnings.contains("calls failed") && warnings.contains("in 3 of 3 rounds"), "{warnings}");
}

#[tokio::test]
async fn a_side_that_is_not_there() {
    let server = TestServer::start().await;
    let settings = sides(&server.address, "health@127.0.0.1:1", SHORT);
    let (comparison, ended, steps) = run(settings, None).await;
    let Ended::Failed(failed) = ended else { panic!("{ended:?}") };
    assert_eq!((failed.side, failed.round, failed.exit_code()), (1, None, 3));
    assert!(failed.told(&comparison).contains("none of 127.0.0.1:1 could be reached"));
    assert!(steps.is_empty());
}
