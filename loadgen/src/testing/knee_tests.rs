//! Whole searches for the highest rate, of a server in the same process.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use tokio::sync::watch;

use crate::args::{Args, FindMax, Settings};
use crate::knee::{Ended, Kind, Knee, Step, find, page, report};
use crate::testing::server::{Fault, TestServer};

const SHORT: &str = "--duration 60ms --warmup 10ms --keys 50";

fn settings(server: &TestServer, line: &str) -> (Arc<Settings>, FindMax) {
    let words = ["loadgen", "--endpoints", &server.address];
    let words = words.into_iter().chain(SHORT.split_whitespace()).chain(line.split_whitespace());
    let settings = Settings::check(Args::parse_from(words)).expect("good settings");
    let wanted = settings.find_max.clone().expect("it is looked for");
    (Arc::new(settings), FindMax { pause: Duration::from_millis(1), ..wanted })
}

/// A search, interrupted after so many trials.
async fn search((settings, wanted): (Arc<Settings>, FindMax), trials_max: usize) -> (Knee, Ended) {
    let (stop, stopped) = watch::channel(false);
    let mut trials = 0;
    let mut tell = |step: Step<'_>| {
        trials += usize::from(matches!(step, Step::Tried(_)));
        if trials == trials_max {
            stop.send_replace(true);
        }
    };
    find(&settings, &wanted, stopped, &mut tell).await
}

#[tokio::test]
async fn a_limit_that_nothing_holds_is_told_so() {
    let server = TestServer::start().await;
    let (knee, ended) = search(settings(&server, "--find-max max<1us --preload"), usize::MAX).await;
    assert!(matches!(ended, Ended::Whole), "{ended:?}");
    assert_eq!((knee.found, server.keys()), (None, 50));
    assert_eq!((knee.trials[0].kind, knee.trials[0].rate), (Kind::Ceiling, None));
    let probes = &knee.trials[1..];
    // Every rate twice, each half of the one before.
    assert!(probes.len() >= 4 && probes.len().is_multiple_of(2), "{}", probes.len());
    assert!(probes.iter().all(|trial| trial.verdict.as_ref().is_err_and(|why| why.contains("max is"))));
    assert_eq!((probes[0].rate, probes[1].rate), (probes[1].rate, probes[0].rate));
    assert_eq!(probes[2].rate, probes[0].rate.map(|rate| rate / 2));
    let (json, page) = (report::json(&knee), page::of(&knee));
    assert_eq!(json["find_max"]["rate_per_s"], serde_json::Value::Null);
    assert_eq!(json["find_max"]["trials"].as_array().map(Vec::len), Some(knee.trials.len()));
    assert_eq!(
        (&json["find_max"]["trials"][0]["holds"], &json["find_max"]["trials"][1]["holds"]),
        (&serde_json::Value::Null, &false.into())
    );
    assert!(report::table(&knee).starts_with("no rate was found that holds max<1us; "));
    assert!(page.contains("Latency over the rate") && page.contains("max&lt;1us") && !page.contains("NaN"));
}

#[tokio::test]
async fn a_rate_that_holds_is_confirmed() {
    let server = TestServer::start().await;
    // Nothing but the places for calls bounds the rate: the search ends where they run out, or where the
    // machine does. Whatever it finds was confirmed. Calls that wait for a place are soon given up.
    let line = "--find-max p50<=1m --errors-max-percent 100 --in-flight 2 --timeout 20ms";
    let (knee, ended) = search(settings(&server, line), usize::MAX).await;
    assert!(matches!(ended, Ended::Whole), "{ended:?}");
    let last = knee.trials.last().expect("it made trials");
    if let Some(found) = knee.found {
        assert_eq!((last.kind, last.rate, last.verdict.is_ok()), (Kind::Confirm, Some(found), true));
        assert!(report::table(&knee).starts_with(&format!("{found} op/s holds p50<=1m")));
        assert!(page::of(&knee).contains("the trial that confirmed it"));
        assert_eq!(report::json(&knee)["find_max"]["rate_per_s"], found);
    } else {
        assert!(last.verdict.is_err());
    }
}

#[tokio::test]
async fn calls_that_fail_hold_no_limit() {
    let server = TestServer::faulty(Fault::RefuseEvery(3)).await;
    let line = "--find-max p90<1m --errors-max-percent 50";
    let (knee, ended) = search(settings(&server, line), 2).await;
    assert!(matches!(ended, Ended::Interrupted), "{ended:?}");
    assert_eq!((knee.trials.len(), knee.found), (2, None));
    let why = knee.trials[1].verdict.as_ref().expect_err("a third failed");
    assert!(why.contains("calls failed"), "{why}");
    assert_eq!(report::json(&knee)["find_max"]["trials"][1]["latency_us"]["p90"], serde_json::Value::Null);
}

#[tokio::test]
async fn nobody_there_is_no_search() {
    let server = TestServer::start().await;
    let (settings, wanted) = settings(&server, "--find-max p99<5ms");
    let nowhere = Settings { endpoints: vec!["127.0.0.1:1".into()], ..(*settings).clone() };
    let (knee, ended) = search((Arc::new(nowhere), wanted), usize::MAX).await;
    let Ended::Failed(error) = ended else { panic!("{ended:?}") };
    assert_eq!((error.exit_code(), knee.trials.len()), (3, 0));
}
