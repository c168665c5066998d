//! The result for programs: one JSON object.
//!
//! Its fields, these and no others; times are in microseconds where a name ends in `_us`, in seconds where it
//! ends in `_s`:
//! ```text
//! target, workload     as on the command line
//! loop                 "open" or "closed"; in a closed one a stalled server hides (coordinated omission)
//! operations, errors   that were started in the measured window, and succeeded or failed
//! timeouts             of the errors, those whose time was over
//! errors_by_kind       { kind: errors }
//! not_found            of the operations, gets and deletes of a key that is not there
//! conflicts            of the operations, compare-and-swaps whose comparison failed
//! rows                 that scans returned
//! duration_s           of the measured window
//! warmup_s             before it
//! throughput_per_s     operations / duration_s
//! latency_us           min, mean, p50, p90, p99, p99_9, p99_99, max of the operations, from when they were
//!                      meant to start
//! service_us           the same, from when they were sent
//! error_us, timeout_us the same of errors that are no timeouts, and of timeouts: until they failed
//! by_operation         { kind: { operations, latency_us, service_us } }
//! late                 calls (of an open loop, that left more than 1 ms late), percent, and of the calls
//!                      no_place (all places were taken when they were due), no_stream (no connection was
//!                      up with a stream left for them)
//! connections_down     how many could not be made before the run began
//! own_cpu_us_per_op    what loadgen itself used
//! busiest_thread       of loadgen: ran_percent, waited_percent (for a core)
//! warnings             [ what makes the result doubtful ]
//! audit                with --audit, else null: passed, operations, keys, violations, and more (see Verdict)
//! server               name, version, profile; null where it does not tell
//! host                 that the load came from: name, kernel, cpu, cpus, cpus_usable, memory_bytes
//! settings             all of them, by name
//! series               [ { from_s, to_s, warmup, operations, errors, timeouts, late,
//!                          latency_us: { p50, p90, p99, p99_9, max }, service_us: the same } ]
//! ```

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::args::{Arrivals, Settings};
use crate::audit::Verdict;
use crate::control::About;
use crate::header;
use crate::host::Host;
use crate::record::Total;
use crate::report::{QUANTILES, Report};
use crate::series::{Point, Times};
use crate::usage::{busiest, cpu_us_per_operation};
use crate::{units, warnings};

/// The whole result.
pub fn of(report: &Report<'_>) -> Value {
    let Report { settings, measured } = *report;
    let total = &measured.total;
    let busiest = busiest(&total.usage);
    json!({
        "target": settings.target.to_string(),
        "workload": settings.workload.to_string(),
        "loop": if settings.rate.is_some() { "open" } else { "closed" },
        "operations": total.operations(),
        "errors": total.failures(),
        "timeouts": total.timeouts(),
        "errors_by_kind": errors_by_kind(total),
        "not_found": total.not_found,
        "conflicts": total.told.conflicts,
        "rows": total.told.rows,
        "duration_s": rounded(measured.duration_s, 3),
        "warmup_s": settings.warmup.as_secs_f64(),
        "throughput_per_s": rounded(measured.throughput_per_s(), 1),
        "latency_us": distribution(&total.latency_ns()),
        "service_us": distribution(&total.service_ns()),
        "error_us": distribution(&total.error_ns),
        "timeout_us": distribution(&total.timeout_ns),
        "by_operation": by_operation(total),
        "late": {
            "calls": total.late,
            "percent": rounded(total.late_percent(), 3),
            "no_place": total.late_no_place,
            "no_stream": total.late_no_stream,
        },
        "connections_down": total.unconnected,
        "own_cpu_us_per_op": rounded(cpu_us_per_operation(&total.usage), 3),
        "busiest_thread": {
            "ran_percent": rounded(busiest.busy_percent(), 1),
            "waited_percent": rounded(busiest.waited_percent(), 1),
        },
        "warnings": warnings::of_run(settings, total),
        "audit": total.audit.as_ref().map(Verdict::json),
        "server": measured.about.as_ref().map(server),
        "host": host(&measured.host),
        "settings": named(self::settings(settings)),
        "series": measured.series.points().iter().map(point).collect::<Vec<_>>(),
    })
}

/// Every setting by name, in the order in which people want to see them.
pub fn settings(settings: &Settings) -> Vec<(&'static str, Value)> {
    let file =
        |file: &Option<(std::path::PathBuf, _)>| file.as_ref().map(|(path, _)| path.display().to_string());
    vec![
        ("loadgen", env!("CARGO_PKG_VERSION").into()),
        ("endpoints", settings.endpoints.join(",").into()),
        ("target", settings.target.to_string().into()),
        ("workload", settings.workload.to_string().into()),
        ("trace", settings.trace.as_ref().map(|trace| trace.path.display().to_string()).into()),
        ("trace_once", settings.trace.as_ref().map(|trace| trace.once).into()),
        ("preload", settings.preload.into()),
        ("rate", settings.rate.into()),
        ("arrivals", settings.rate.map(|_| arrivals(settings.arrivals)).into()),
        ("gather_us", settings.rate.map(|_| settings.gather.as_secs_f64() * 1e6).into()),
        ("in_flight", settings.in_flight.into()),
        ("connections", settings.connections.into()),
        ("threads", settings.threads.into()),
        ("duration_s", settings.duration.as_secs_f64().into()),
        ("warmup_s", settings.warmup.as_secs_f64().into()),
        ("timeout_s", settings.timeout.as_secs_f64().into()),
        ("keys", settings.keys.into()),
        ("key_distribution", settings.key_distribution.to_string().into()),
        ("value_size", settings.value_sizes.to_string().into()),
        ("scan_length", settings.scan_length.into()),
        ("seed", settings.seed.into()),
        ("route", settings.route.to_string().into()),
        ("audit", settings.audit.into()),
        ("errors_max_percent", settings.errors_max_percent.into()),
        ("hgrm", file(&settings.hgrm).into()),
        ("interval_log", file(&settings.interval_log).into()),
        ("html", file(&settings.html).into()),
    ]
}

fn arrivals(arrivals: Arrivals) -> &'static str {
    match arrivals {
        Arrivals::Constant => "constant",
        Arrivals::Poisson => "poisson",
    }
}

/// What answers.
pub fn server(about: &About) -> Value {
    json!({ "name": about.name, "version": about.version, "profile": about.profile })
}

/// The machine that the load came from.
pub fn host(host: &Host) -> Value {
    json!({
        "name": host.name,
        "kernel": host.kernel,
        "cpu": host.cpu,
        "cpus": host.cpus,
        "cpus_usable": host.cpus_usable,
        "memory_bytes": host.memory_bytes,
    })
}

/// What a result depends on, as people read it: where it ran, what answered, and every setting.
pub fn facts(report: &Report<'_>) -> Vec<(String, String)> {
    let Report { settings, measured } = *report;
    let known = |told: &Option<String>| told.clone().unwrap_or_else(|| "unknown".to_owned());
    let host = &measured.host;
    let mut facts = vec![
        ("server".to_owned(), header::server(measured.about.as_ref())),
        ("host".to_owned(), known(&host.name)),
        ("kernel".to_owned(), known(&host.kernel)),
        ("hardware".to_owned(), host.hardware()),
    ];
    facts.extend(self::settings(settings).into_iter().map(|(name, value)| plain(name, &value)));
    facts
}

/// A setting as people read it: its name, and its value with the unit that the name tells.
fn plain(name: &str, value: &Value) -> (String, String) {
    let units = [("_s", " s"), ("_us", " µs")];
    let named = units.iter().find_map(|(end, unit)| Some((name.strip_suffix(end)?, *unit)));
    let (name, unit) = named.unwrap_or((name, ""));
    let value = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(number) => units::count(number),
            None => number.to_string().trim_end_matches(".0").to_owned(),
        },
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    (name.replace('_', " "), value + unit)
}

/// Values as the fields of an object.
pub fn named(values: impl IntoIterator<Item = (&'static str, Value)>) -> Map<String, Value> {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn errors_by_kind(total: &Total) -> Map<String, Value> {
    total.errors.iter().map(|(kind, count)| (kind.to_string(), (*count).into())).collect()
}

fn by_operation(total: &Total) -> Map<String, Value> {
    let kinds = total.by_operation().map(|(name, kind)| {
        let told = json!({
            "operations": kind.latency_ns.len(),
            "latency_us": distribution(&kind.latency_ns),
            "service_us": distribution(&kind.service_ns),
        });
        (name.to_owned(), told)
    });
    kinds.collect()
}

fn distribution(times_ns: &Histogram<u64>) -> Map<String, Value> {
    let mut told = Map::new();
    told.insert("min".into(), us(times_ns.min() as f64));
    told.insert("mean".into(), us(times_ns.mean()));
    for (name, quantile) in QUANTILES {
        told.insert(name.into(), us(times_ns.value_at_quantile(quantile) as f64));
    }
    told.insert("max".into(), us(times_ns.max() as f64));
    told
}

fn point(point: &Point) -> Value {
    json!({
        "from_s": rounded(point.from_s, 3),
        "to_s": rounded(point.to_s, 3),
        "warmup": point.is_warmup,
        "operations": point.operations,
        "errors": point.errors,
        "timeouts": point.timeouts,
        "late": point.late,
        "latency_us": times(&point.latency),
        "service_us": times(&point.service),
    })
}

fn times(of: &Times) -> Value {
    let named = [("p50", of.p50), ("p90", of.p90), ("p99", of.p99), ("p99_9", of.p99_9), ("max", of.max)];
    self::named(named.map(|(name, ns)| (name, us(ns as f64)))).into()
}

/// Nanoseconds in microseconds, to a tenth.
fn us(ns: f64) -> Value {
    rounded(ns / 1e3, 1).into()
}

/// A value to so many decimals.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Method;
    use crate::record::Interval;
    use crate::report::tests::{measured, parsed};
    use crate::status::ErrorKind;

    /// The names that the documentation above lists at the beginning of its lines.
    fn documented() -> Vec<String> {
        let text = include_str!("json.rs");
        let table = text.split("```text\n").nth(1).and_then(|rest| rest.split("//! ```").next());
        let mut names = Vec::new();
        for line in table.expect("the table is there").lines() {
            let line = line.trim_start_matches("//! ");
            let column: String = line.chars().take(21).collect();
            let words = column.split([',', ' ']).filter(|word| !word.is_empty());
            names.extend(words.map(str::to_owned));
        }
        names.sort_unstable();
        names
    }

    fn keys(value: &Value) -> Vec<&str> {
        let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_fields_are_those_that_are_documented() {
        let (settings, mut measured) = (parsed("--workload mixed:50 --rate 100"), measured(1000, 10.0));
        measured.total.fail(ErrorKind::Timeout, 3, 5_000_000);
        measured.total.succeed(Method::Get, 1000, 1000);
        measured.series.push(Point::of(&Interval::default(), 0.0, 1.0, true));
        let json = of(&Report { settings: &settings, measured: &measured });
        assert_eq!(keys(&json), documented());
        let whole = ["max", "mean", "min", "p50", "p90", "p99", "p99_9", "p99_99"];
        for name in ["latency_us", "service_us", "error_us", "timeout_us"] {
            assert_eq!(keys(&json[name]), whole, "{name}");
        }
        assert_eq!(keys(&json["by_operation"]), ["get", "put"]);
        assert_eq!(keys(&json["by_operation"]["put"]), ["latency_us", "operations", "service_us"]);
        assert_eq!(keys(&json["late"]), ["calls", "no_place", "no_stream", "percent"]);
        assert_eq!(keys(&json["busiest_thread"]), ["ran_percent", "waited_percent"]);
        let point = &json["series"][0];
        let want = ["errors", "from_s", "late", "latency_us", "operations", "service_us", "timeouts", "to_s"];
        assert_eq!(keys(point), [&want[..], &["warmup"]].concat());
        assert_eq!(keys(&point["latency_us"]), ["max", "p50", "p90", "p99", "p99_9"]);
        assert_eq!(json["settings"].as_object().expect("an object").len(), super::settings(&settings).len());
    }

    #[test]
    fn settings_as_people_read_them() {
        let told = |name, value: Value| {
            let (name, value) = plain(name, &value);
            format!("{name}: {value}")
        };
        assert_eq!(told("warmup_s", 2.0.into()), "warmup: 2 s");
        assert_eq!(told("timeout_s", 0.25.into()), "timeout: 0.25 s");
        assert_eq!(told("gather_us", 100.0.into()), "gather: 100 µs");
        assert_eq!(told("keys", 100_000.into()), "keys: 100,000");
        assert_eq!(told("key_distribution", "uniform".into()), "key distribution: uniform");
        assert_eq!(told("rate", Value::Null), "rate: none");
    }

    #[test]
    fn what_the_fields_hold() {
        let (settings, mut measured) = (parsed("--workload put"), measured(1000, 10.0));
        measured.total.fail(ErrorKind::Timeout, 3, 5_000_000);
        measured.total.fail(ErrorKind::ConnectionLost, 1, 1_000_000);
        let json = of(&Report { settings: &settings, measured: &measured });
        assert_eq!(
            (&json["target"], &json["workload"], &json["loop"]),
            (&"kv".into(), &"put".into(), &"closed".into())
        );
        assert_eq!(
            (&json["operations"], &json["errors"], &json["timeouts"]),
            (&1000.into(), &4.into(), &3.into())
        );
        assert_eq!((&json["throughput_per_s"], &json["duration_s"]), (&100.0.into(), &10.0.into()));
        assert_eq!(json["errors_by_kind"], json!({ "timeout": 3, "connection lost": 1 }));
        assert_eq!((&json["settings"]["rate"], &json["settings"]["in_flight"]), (&Value::Null, &64.into()));
        let at = |field: &str| json[field]["p50"].as_f64().expect("a number");
        assert!((at("latency_us") / 50_000.0 - 1.0).abs() < 0.001, "{}", at("latency_us"));
        assert!((at("service_us") / 25_000.0 - 1.0).abs() < 0.001, "{}", at("service_us"));
        assert!((at("timeout_us") / 5_000.0 - 1.0).abs() < 0.001, "{}", at("timeout_us"));
    }
}
