//! The two sides of a comparison: what is measured against what, and how often.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum as _;

use super::settings::{Settings, host_and_port, refuse};
use super::{Args, Target};

/// Most rounds.
pub const ROUNDS_MAX: usize = 1000;
/// The pause after each of several runs: what it began on the server, such as a table or a flush, is to end
/// before the next is measured.
pub const PAUSE: Duration = Duration::from_secs(1);

/// The other side, as `--compare` spells it: `[TARGET@]HOST:PORT,...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Against {
    /// What is called; `None`: the same as on the first side.
    pub target: Option<Target>,
    /// Where to start from, `host:port`.
    pub endpoints: Vec<String>,
}

/// What a run is compared with.
#[derive(Clone, Debug)]
pub struct Versus {
    /// The other side's settings.
    pub settings: Arc<Settings>,
    /// How often each side is measured.
    pub rounds: usize,
    /// How long nothing is sent between two runs.
    pub pause: Duration,
}

impl FromStr for Against {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, endpoints) = match text.split_once('@') {
            Some((target, endpoints)) => (Some(target_of(target)?), endpoints),
            None => (None, text),
        };
        if endpoints.contains('@') {
            return Err("one TARGET@ stands before all endpoints: etcd@a:2379,b:2379".into());
        }
        let endpoints = endpoints.split(',').map(host_and_port).collect::<Result<_, _>>()?;
        Ok(Self { target, endpoints })
    }
}

fn target_of(text: &str) -> Result<Target, String> {
    Target::from_str(text, false)
        .map_err(|_| format!("'{text}' before the @ is no target: kv, pipeline, health or etcd"))
}

/// The command lines of the two sides: what is asked for of both, each with its own target and endpoints.
pub fn sides(args: &Args, against: &Against) -> Result<(Args, Args), clap::Error> {
    if !(1..=ROUNDS_MAX).contains(&args.rounds) {
        return Err(refuse(&format!("--rounds {} is outside 1 to {ROUNDS_MAX}", args.rounds)));
    }
    let one = Args { compare: None, ..args.clone() };
    let other = Args {
        target: against.target.unwrap_or(args.target),
        endpoints: against.endpoints.clone(),
        html: None,
        ..one.clone()
    };
    let are_health = [&one, &other].map(|side| side.target == Target::Health);
    // Two health checks have no workload between them; one of them is compared with the other's workload.
    Ok(match are_health {
        [true, false] => (without_workload(one), other),
        [false, true] => (one, without_workload(other)),
        [true, true] | [false, false] => (one, other),
    })
}

/// As it is, for a target with one call: it keeps no keys, so that none is loaded either.
fn without_workload(args: Args) -> Args {
    Args { workload: None, trace: None, preload: false, ..args }
}

/// The two sides, checked as single runs are: the first, which knows of the other.
pub fn checked(args: &Args, against: &Against) -> Result<Settings, clap::Error> {
    let (one, other) = sides(args, against)?;
    // The first side opens the files that are written, so the other is checked before.
    let mut other = Settings::check(other)?;
    let mut settings = Settings::check(one)?;
    other.html.clone_from(&settings.html);
    if settings.trace.is_some() && other.trace.is_some() {
        // One copy in memory is enough.
        other.trace.clone_from(&settings.trace);
    }
    settings.versus = Some(Versus { settings: Arc::new(other), rounds: args.rounds, pause: PAUSE });
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Workload;

    fn check(line: &str) -> Result<Settings, clap::Error> {
        let words = ["loadgen", "--endpoints", "a:1"].into_iter().chain(line.split_whitespace());
        Settings::check(Args::try_parse_from(words)?)
    }

    fn both(line: &str) -> (Settings, Versus) {
        let settings = check(line).expect(line);
        let versus = settings.versus.clone().expect("it is compared");
        (settings, versus)
    }

    #[test]
    fn spellings() {
        let against = |target, endpoints: &[&str]| {
            Ok(Against { target, endpoints: endpoints.iter().map(|text| (*text).to_owned()).collect() })
        };
        assert_eq!("b:1".parse(), against(None, &["b:1"]));
        assert_eq!("etcd@b:1,http://c:2".parse(), against(Some(Target::Etcd), &["b:1", "c:2"]));
        assert_eq!("pipeline@[::1]:5".parse(), against(Some(Target::Pipeline), &["[::1]:5"]));
        let refused =
            ["", "etcd@", "@b:1", "nats@b:1", "Kv@b:1", "b", "b:0", "kv@b:1,", "kv@b:1,kv@c:1", "kv"];
        for text in refused {
            assert!(text.parse::<Against>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_sides_differ_in_target_and_endpoints_alone() {
        let line = "--workload put --in-flight 9 --keys 77 --preload --rounds 7 --html /dev/null";
        let (one, versus) = both(&format!("{line} --compare etcd@b:2,c:3"));
        let other = &*versus.settings;
        assert_eq!((one.target, other.target, versus.rounds), (Target::Kv, Target::Etcd, 7));
        assert_eq!(
            (&one.endpoints, &other.endpoints),
            (&vec!["a:1".into()], &vec!["b:2".into(), "c:3".into()])
        );
        assert_eq!((one.workload, one.in_flight, one.keys, one.preload), (Workload::Put, 9, 77, true));
        assert_eq!(
            (other.workload, other.in_flight, other.keys, other.preload),
            (Workload::Put, 9, 77, true)
        );
        assert!(one.html.is_some() && other.versus.is_none());
        let (one, versus) = both("--target pipeline --compare b:2");
        assert_eq!(
            (one.target, versus.settings.target, versus.rounds),
            (Target::Pipeline, Target::Pipeline, 5)
        );
        assert!(check("").expect("a single run").versus.is_none());
    }

    #[test]
    fn a_health_check_stands_against_any_workload() {
        let (one, versus) = both("--workload get --preload --compare health@b:2");
        assert_eq!((one.workload, one.preload), (Workload::Get, true));
        assert_eq!((versus.settings.workload, versus.settings.preload), (Workload::Check, false));
        let (one, versus) = both("--target health --workload ycsb-a --preload --compare kv@b:2");
        assert_eq!((one.workload, one.preload), (Workload::Check, false));
        assert!(versus.settings.preload && versus.settings.workload.to_string() == "ycsb-a");
        let (one, versus) = both("--target health --compare b:2");
        assert_eq!((one.workload, versus.settings.workload), (Workload::Check, Workload::Check));
    }

    #[test]
    fn refusals() {
        let lines = [
            "--rounds 3",
            "--rounds 0 --compare b:1",
            "--rounds 1001 --compare b:1",
            "--rounds x --compare b:1",
            "--compare nats@b:1",
            "--compare b",
            "--load --compare b:1",
            "--audit --compare b:1",
            "--trace /dev/null --trace-once --compare b:1",
            "--hgrm /dev/null --compare b:1",
            "--interval-log /dev/null --compare b:1",
            "--workload append --compare etcd@b:1",
            "--workload scan --compare pipeline@b:1",
            "--target etcd --workload append --compare kv@b:1",
            "--target health --workload get --compare health@b:1",
            "--target health --preload --compare health@b:1",
        ];
        for line in lines {
            let refused = check(line).expect_err(line);
            assert_eq!(refused.exit_code(), 2, "{line}: {refused}");
        }
        let said = check("--workload append --compare etcd@b:1").expect_err("no append").to_string();
        assert!(said.contains("does not go with etcd"), "{said}");
    }

    #[test]
    fn a_refusal_of_the_other_side_writes_no_file() {
        let path = std::env::temp_dir().join(format!("loadgen-versus-{}.html", std::process::id()));
        let line = format!("--workload append --html {} --compare etcd@b:1", path.display());
        assert!(check(&line).is_err() && !path.exists());
    }
}
