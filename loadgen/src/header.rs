//! What is told before a run: every setting, the machine here, and the server there. Numbers are worth
//! something only together with these.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::args::{Arrivals, Kind, RouteTo, Settings, Workload};
use crate::control::About;
use crate::host::Host;
use crate::units;

/// All settings and the machine, one a line.
pub fn header(settings: &Settings, host: &Host) -> String {
    let mut text = format!("loadgen {}\n", env!("CARGO_PKG_VERSION"));
    for (name, value) in rows(settings, host) {
        text.push_str(&row(name, &value));
    }
    text
}

/// The server, in words.
pub fn server(about: Option<&About>) -> String {
    match about {
        None => "does not tell".to_owned(),
        Some(About { name, version, profile: None }) => format!("{name} {version}"),
        Some(About { name, version, profile: Some(profile) }) => {
            format!("{name} {version}, profile {profile}")
        }
    }
}

/// A line of the header.
pub fn row(name: &str, value: &str) -> String {
    format!("  {name:<12} {value}\n")
}

/// All that a run depends on, by name, in the order in which it is told.
pub fn rows(settings: &Settings, host: &Host) -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    let file = |file: &Option<(PathBuf, _)>| {
        file.as_ref().map_or("none".to_owned(), |(path, _)| path.display().to_string())
    };
    let connections = format!("{} to each node, on {} thread(s)", settings.connections, settings.threads);
    vec![
        ("host", host.name.clone().unwrap_or_else(unknown)),
        ("kernel", host.kernel.clone().unwrap_or_else(unknown)),
        ("hardware", host.hardware()),
        ("endpoints", settings.endpoints.join(",")),
        ("target", settings.target.to_string()),
        ("workload", workload(settings)),
        ("pace", pace(settings)),
        ("time", time(settings)),
        ("timeout", format!("{:?}", settings.timeout)),
        ("connections", connections),
        ("route", route(settings).to_owned()),
        ("audit", if settings.audit { "of a sample of the keys" } else { "none" }.to_owned()),
        ("keys", keys(settings)),
        ("value size", value_size(settings)),
        ("preload", if settings.preload { "every key, before the run" } else { "none" }.to_owned()),
        ("seed", settings.seed.to_string()),
        ("hgrm", file(&settings.hgrm)),
        ("interval log", file(&settings.interval_log)),
        ("html", file(&settings.html)),
        ("errors max", format!("{} %", settings.errors_max_percent)),
    ]
}

fn workload(settings: &Settings) -> String {
    let mut text = settings.workload.to_string();
    if let Some(replayed) = &settings.trace {
        let end = if replayed.once { "once" } else { "again and again" };
        // Writing to a string cannot fail.
        let _ = write!(text, " of {}, {} operations, {end}", replayed.path.display(), replayed.trace.len());
    }
    if settings.workload.has(Kind::Scan) {
        let _ = write!(text, ", of 1 to {} keys a scan", settings.scan_length);
    }
    text
}

fn pace(settings: &Settings) -> String {
    let in_flight = settings.in_flight;
    let Some(rate) = settings.rate else { return format!("closed loop, {in_flight} in flight") };
    let arrivals = match settings.arrivals {
        Arrivals::Constant => "constant",
        Arrivals::Poisson => "Poisson",
    };
    let gathered = match settings.gather {
        Duration::ZERO => String::new(),
        span => format!(", sends gathered for {}", units::time(span.as_nanos() as f64)),
    };
    format!("open loop, {rate}/s, {arrivals} arrivals{gathered}, at most {in_flight} outstanding")
}

fn route(settings: &Settings) -> &'static str {
    match settings.route {
        RouteTo::Leader if settings.target.has_routing() => "to the leader",
        RouteTo::Leader | RouteTo::Any => "to any node",
    }
}

fn time(settings: &Settings) -> String {
    if settings.workload == Workload::Load {
        return "until every key is written".to_owned();
    }
    format!("{:?} after {:?} of warm-up", settings.duration, settings.warmup)
}

fn keys(settings: &Settings) -> String {
    match (settings.workload.mix(), &settings.trace) {
        (Some(_), _) => format!("{}, {}", settings.keys, settings.key_distribution),
        (None, Some(_)) => "as the trace has them".to_owned(),
        (None, None) => settings.keys.to_string(),
    }
}

fn value_size(settings: &Settings) -> String {
    match &settings.trace {
        Some(_) => "as the trace has them".to_owned(),
        None => format!("{} bytes", settings.value_sizes),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    fn told(line: &str) -> String {
        let words = ["loadgen", "--endpoints", "a:1"].into_iter().chain(line.split_whitespace());
        let settings = Settings::check(Args::parse_from(words)).expect("good settings");
        header(&settings, &Host::default())
    }

    #[test]
    fn settings_are_told() {
        let text = told("--rate 500 --arrivals poisson --workload ycsb-e --value-size 1..9 --preload");
        for part in [
            "open loop, 500/s, Poisson arrivals, sends gathered for 100 µs, at most 1024 outstanding",
            "endpoints    a:1",
            "ycsb-e, of 1 to 100 keys",
            "100000, zipfian:0.99",
            "1..9 bytes",
            "every key, before the run",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(told("--rate 500 --gather 0").contains("500/s, constant arrivals, at most 1024 outstanding"));
        assert!(told("").contains("closed loop, 64 in flight"));
    }

    #[test]
    fn servers_are_told() {
        let about = |profile: Option<&str>| About {
            name: "distribKV",
            version: "1.2".into(),
            profile: profile.map(str::to_owned),
        };
        assert_eq!(server(Some(&about(Some("dev")))), "distribKV 1.2, profile dev");
        assert_eq!(server(Some(&about(None))), "distribKV 1.2");
        assert_eq!(server(None), "does not tell");
    }
}
