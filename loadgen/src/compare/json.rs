//! A comparison for programs: one JSON object.
//!
//! Its fields, these and no others, by their paths; names and units are those of a single run (see
//! [`json`](crate::json)):
//! ```text
//! compare.a            the side of --target: label, server, settings, errors_percent (of its calls), runs
//! compare.b            the side of --compare, alike
//! compare.a.runs       [ each run, by round, as a single run: without server, host and settings ]
//! compare.rounds       that were made
//! compare.rounds_wanted
//! compare.pause_s      between two runs
//! compare.host         that the load came from
//! compare.ratios       { throughput_per_s, latency_us: { mean, p50, p90, p99, p99_9 },
//!                      service_us: { p99 } }, each of them { a, b, median, min, max, interval }, or null
//!                      where no round has one: a, b are the medians of the sides in the unit that the name
//!                      tells; median, min and max are of the rounds' ratios a / b, as is interval:
//!                      { low, high, level_percent }, null below 6 rounds
//! warnings             [ what makes the comparison doubtful ]
//! ```

use serde_json::{Map, Value, json};

use crate::args::Versus;
use crate::compare::side::{Comparison, METRICS, Side, THROUGHPUT};
use crate::json;

/// What a side tells once, for all of its runs.
const OF_THE_SIDE: [&str; 3] = ["server", "host", "settings"];
/// Decimals of a ratio.
const DECIMALS: i32 = 5;

/// The whole result.
pub fn of(comparison: &Comparison, versus: &Versus) -> Value {
    let [a, b] = &comparison.sides;
    json!({
        "compare": {
            "a": side(a),
            "b": side(b),
            "rounds": comparison.rounds(),
            "rounds_wanted": comparison.rounds_wanted,
            "pause_s": versus.pause.as_secs_f64(),
            "host": json::host(&a.sum.host),
            "ratios": ratios(comparison),
        },
        "warnings": comparison.warnings(),
    })
}

fn side(side: &Side) -> Value {
    let runs = side.runs.iter().filter_map(|run| run.json.clone()).map(|mut run| {
        if let Value::Object(fields) = &mut run {
            fields.retain(|name, _| !OF_THE_SIDE.contains(&name.as_str()));
        }
        run
    });
    json!({
        "label": side.label,
        "server": side.sum.about.as_ref().map(json::server),
        "settings": json::named(json::settings(&side.settings)),
        "errors_percent": json::rounded(side.sum.total.errors_percent(), 3),
        "runs": runs.collect::<Vec<_>>(),
    })
}

fn ratios(comparison: &Comparison) -> Map<String, Value> {
    let mut told = Map::new();
    for (i, metric) in METRICS.iter().enumerate() {
        let (field, within) = metric.path;
        match within {
            None => told.insert(field.to_owned(), ratio(comparison, i)),
            Some(name) => {
                let group = told.entry(field).or_insert_with(|| Value::Object(Map::new()));
                group.as_object_mut().and_then(|group| group.insert(name.to_owned(), ratio(comparison, i)))
            }
        };
    }
    told
}

fn ratio(comparison: &Comparison, metric: usize) -> Value {
    let Some(spread) = comparison.ratios(metric) else { return Value::Null };
    // Times are in nanoseconds here, and in microseconds there.
    let scale = if metric == THROUGHPUT { 1.0 } else { 1e3 };
    let [a, b] = comparison.medians(metric).map(|value| json::rounded(value / scale, 1));
    let rounded = |value| json::rounded(value, DECIMALS);
    let interval = spread.interval.map(|interval| {
        let level = json::rounded(100.0 * interval.level, 2);
        json!({ "low": rounded(interval.low), "high": rounded(interval.high), "level_percent": level })
    });
    json!({
        "a": a,
        "b": b,
        "median": rounded(spread.median),
        "min": rounded(spread.min),
        "max": rounded(spread.max),
        "interval": interval,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::side::tests::comparison;

    fn of_rates(rates: &[[u64; 2]]) -> Value {
        let comparison = comparison("--rounds 6 --output json", rates);
        let versus = comparison.sides[0].settings.versus.clone().expect("it is compared");
        of(&comparison, &versus)
    }

    fn keys(value: &Value) -> Vec<&str> {
        let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_fields_are_those_that_are_documented() {
        let json = of_rates(&[[800, 100]; 6]);
        assert_eq!(keys(&json), ["compare", "warnings"]);
        let compare = &json["compare"];
        assert_eq!(keys(compare), ["a", "b", "host", "pause_s", "ratios", "rounds", "rounds_wanted"]);
        for side in ["a", "b"] {
            assert_eq!(keys(&compare[side]), ["errors_percent", "label", "runs", "server", "settings"]);
        }
        let ratios = &compare["ratios"];
        assert_eq!(keys(ratios), ["latency_us", "service_us", "throughput_per_s"]);
        assert_eq!(keys(&ratios["latency_us"]), ["mean", "p50", "p90", "p99", "p99_9"]);
        assert_eq!(keys(&ratios["service_us"]), ["p99"]);
        let fields = ["a", "b", "interval", "max", "median", "min"];
        for ratio in [&ratios["throughput_per_s"], &ratios["latency_us"]["p99"], &ratios["service_us"]["p99"]]
        {
            assert_eq!(keys(ratio), fields);
            assert_eq!(keys(&ratio["interval"]), ["high", "level_percent", "low"]);
        }
    }

    #[test]
    fn what_the_fields_hold() {
        let json = of_rates(&[[800, 100], [900, 100], [700, 100]]);
        let (compare, rate) = (&json["compare"], &json["compare"]["ratios"]["throughput_per_s"]);
        assert_eq!((&rate["a"], &rate["b"], &rate["median"]), (&800.0.into(), &100.0.into(), &8.0.into()));
        assert_eq!((&rate["min"], &rate["max"], &rate["interval"]), (&7.0.into(), &9.0.into(), &Value::Null));
        let p50 = compare["ratios"]["latency_us"]["p50"]["a"].as_f64().expect("a number");
        assert!((p50 / 40_000.0 - 1.0).abs() < 0.01, "{p50}");
        assert_eq!((&compare["a"]["label"], &compare["b"]["label"]), (&"kv".into(), &"etcd".into()));
        assert_eq!((&compare["rounds"], &compare["rounds_wanted"]), (&3.into(), &6.into()));
        assert_eq!(compare["b"]["settings"]["endpoints"], "b:2");
        let runs = compare["a"]["runs"].as_array().expect("a list");
        let rates: Vec<_> = runs.iter().map(|run| run["throughput_per_s"].clone()).collect();
        assert_eq!(rates, [800.0, 900.0, 700.0]);
        assert!(
            OF_THE_SIDE.iter().all(|name| runs[0].get(name).is_none()) && runs[0]["latency_us"].is_object()
        );
        assert_eq!(json["warnings"], json!(["it ended early: 3 of 6 rounds were made"]));
    }

    #[test]
    fn no_round_has_no_ratio() {
        let json = of_rates(&[]);
        assert_eq!(json["compare"]["ratios"]["throughput_per_s"], Value::Null);
        assert_eq!(json["compare"]["a"]["runs"], json!([]));
    }
}
