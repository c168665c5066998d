//! What is told: a line a second meanwhile, the result at the end. See [`header`](crate::header) for what is
//! told before.
//!
//! JSON's fields, these and no others:
//! ```text
//! target, workload          as on the command line
//! operations, errors        that were started in the measured window, and succeeded or failed
//! duration_s                of the measured window
//! throughput_per_s          operations / duration_s
//! audit                     with --audit: passed, operations, keys, violations, and more (see Verdict)
//! latency_us                min, mean, p50, p90, p99, p99_9, p99_99, max of the operations
//! ```
//! Invariants: standard output holds the result alone, as a table or as one JSON object; everything else,
//! beside JSON also what loadgen itself has cost, goes to standard error.

use std::fmt::Write as _;

use crate::args::{Kind, Settings, Target, Workload};
use crate::record::{Interval, Total};
use crate::usage::{BUSY_PERCENT_MAX, busiest, cpu_us_per_operation};

/// The quantiles that a result has, by name.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("p99_99", 0.9999)];

/// The result of a run.
#[derive(Debug)]
pub struct Report<'a> {
    /// What was asked for.
    pub settings: &'a Settings,
    /// What came of it.
    pub total: &'a Total,
    /// The measured time.
    pub duration_s: f64,
}

/// The line of an interval that lasted `interval_s` and ended `elapsed_s` after the start.
pub fn progress(elapsed_s: f64, interval_s: f64, interval: &Interval) -> String {
    let throughput = interval.latency_ns.len() as f64 / interval_s;
    let at = |quantile| interval.latency_ns.value_at_quantile(quantile) as f64 / 1e6;
    let (p50, p99, errors) = (at(0.5), at(0.99), interval.errors);
    format!("{elapsed_s:6.0} s {throughput:10.0} op/s  errors {errors:6}  p50 {p50:9.3} ms  p99 {p99:9.3} ms")
}

impl Report<'_> {
    /// Measured operations that succeeded, a second.
    fn throughput_per_s(&self) -> f64 {
        if self.duration_s > 0.0 { self.total.operations() as f64 / self.duration_s } else { 0.0 }
    }

    /// The share of measured calls that failed, in percent.
    fn errors_percent(&self) -> f64 {
        let (failed, succeeded) = (self.total.failures() as f64, self.total.operations() as f64);
        if failed > 0.0 { 100.0 * failed / (failed + succeeded) } else { 0.0 }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let row = |text: &mut String, name: &str, value: &str| line(text, &format!("{name:<12} {value}"));
        row(&mut text, "target", &self.settings.target.to_string());
        row(&mut text, "workload", &self.settings.workload.to_string());
        row(&mut text, "duration", &format!("{:.3} s", self.duration_s));
        row(&mut text, "operations", &self.total.operations().to_string());
        row(&mut text, "throughput", &format!("{:.1} op/s", self.throughput_per_s()));
        text.push_str(&self.notes());
        let latency_ns = &self.total.latency_ns;
        let ms = |ns: f64| format!("{:12.3} ms", ns / 1e6);
        line(&mut text, "latency");
        row(&mut text, "  min", &ms(latency_ns.min() as f64));
        row(&mut text, "  mean", &ms(latency_ns.mean()));
        for (name, quantile) in QUANTILES {
            let name = format!("  {}", name.replace('_', "."));
            row(&mut text, &name, &ms(latency_ns.value_at_quantile(quantile) as f64));
        }
        row(&mut text, "  max", &ms(latency_ns.max() as f64));
        text
    }

    /// What is told beside the numbers: errors by kind, keys not found, calls that left late, what it cost
    /// here. A table holds it; beside JSON it goes to standard error.
    pub fn notes(&self) -> String {
        let mut text = String::new();
        match self.settings.target {
            Target::Kv | Target::Pipeline | Target::Etcd => {
                line(&mut text, &format!("not found    {}", self.total.not_found));
            }
            Target::Health => {}
        }
        if self.settings.workload.has(Kind::Cas) {
            line(&mut text, &format!("conflicts    {}", self.total.told.conflicts));
        }
        if self.settings.workload.has(Kind::Scan) {
            line(&mut text, &format!("rows         {} scanned", self.total.told.rows));
        }
        if self.settings.rate.is_some() {
            line(
                &mut text,
                &format!("late         {} sent more than 1 ms after they were due", self.total.late),
            );
        }
        let (failures, percent) = (self.total.failures(), self.errors_percent());
        line(&mut text, &format!("errors       {failures} ({percent:.3} %)"));
        for (kind, count) in &self.total.errors {
            line(&mut text, &format!("  {count:>10} {kind}"));
        }
        self.note_cost(&mut text);
        if let Some(audit) = &self.total.audit {
            text.push_str(&audit.text());
        }
        text
    }

    /// What the load generator used itself, and a warning where that was all it could get.
    fn note_cost(&self, text: &mut String) {
        let usage = &self.total.usage;
        let busiest = busiest(usage);
        let (busy, waited) = (busiest.busy_percent(), busiest.waited_percent());
        let cost = cpu_us_per_operation(usage);
        line(
            text,
            &format!("own CPU      {cost:.2} us/op; busiest thread ran {busy:.0} %, waited {waited:.0} %"),
        );
        if busy > BUSY_PERCENT_MAX {
            line(text, "warning      loadgen is the bottleneck: a thread of it ran all the time (--threads)");
        } else if busy + waited > BUSY_PERCENT_MAX {
            line(text, "warning      loadgen had too few cores: a thread of it ran, or waited, all the time");
        }
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        let latency_ns = &self.total.latency_ns;
        let us = |ns: f64| (ns / 100.0).round() / 10.0;
        let mut latency = serde_json::Map::new();
        latency.insert("min".into(), us(latency_ns.min() as f64).into());
        latency.insert("mean".into(), us(latency_ns.mean()).into());
        for (name, quantile) in QUANTILES {
            latency.insert(name.into(), us(latency_ns.value_at_quantile(quantile) as f64).into());
        }
        latency.insert("max".into(), us(latency_ns.max() as f64).into());
        let mut json = serde_json::json!({
            "target": self.settings.target.to_string(),
            "workload": self.settings.workload.to_string(),
            "operations": self.total.operations(),
            "errors": self.total.failures(),
            "duration_s": (self.duration_s * 1000.0).round() / 1000.0,
            "throughput_per_s": (self.throughput_per_s() * 10.0).round() / 10.0,
            "latency_us": latency,
        });
        if let Some(audit) = &self.total.audit {
            json["audit"] = audit.json();
        }
        json
    }

    /// Why the run counts as failed, where it does.
    pub fn verdict(&self) -> Result<(), String> {
        if let Some(audit) = &self.total.audit {
            audit.verdict()?;
        }
        let operations = self.total.operations();
        if operations == 0 {
            return Err("no measured operation succeeded".into());
        }
        if self.settings.workload == Workload::Load {
            let missing = self.settings.keys - operations.min(self.settings.keys);
            return if missing == 0 { Ok(()) } else { Err(format!("{missing} keys were not written")) };
        }
        let (percent, percent_max) = (self.errors_percent(), self.settings.errors_max_percent);
        if percent > percent_max {
            return Err(format!("{percent:.3} % of the measured calls failed, more than {percent_max} %"));
        }
        Ok(())
    }
}

/// Appends a line.
fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;
    use crate::status::ErrorKind;
    use crate::told::Told;
    use crate::usage::Usage;

    fn settings(line: &str) -> Settings {
        let words = ["loadgen", "--endpoints", "a:1"].into_iter().chain(line.split_whitespace());
        Settings::check(Args::parse_from(words)).expect("good settings")
    }

    fn total(operations: u64) -> Total {
        let mut total = Total::default();
        for i in 1..=operations {
            total.latency_ns.saturating_record(i * 100_000);
        }
        total
    }

    #[test]
    fn json_shape() {
        let (settings, mut total) = (settings("--workload mixed:50"), total(1000));
        total.fail(ErrorKind::Timeout, 3);
        let json = Report { settings: &settings, total: &total, duration_s: 10.0 }.json();
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().expect("an object").keys().cloned().collect()
        };
        let mut want =
            ["target", "workload", "operations", "errors", "duration_s", "throughput_per_s", "latency_us"];
        want.sort_unstable();
        let mut found = keys(&json);
        found.sort_unstable();
        assert_eq!(found, want);
        let mut want = ["min", "mean", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
        want.sort_unstable();
        let mut found = keys(&json["latency_us"]);
        found.sort_unstable();
        assert_eq!(found, want);
        assert_eq!((&json["target"], &json["workload"]), (&"kv".into(), &"mixed:50".into()));
        assert_eq!((&json["operations"], &json["errors"]), (&1000.into(), &3.into()));
        assert_eq!((&json["throughput_per_s"], &json["duration_s"]), (&100.0.into(), &10.0.into()));
        let p50 = json["latency_us"]["p50"].as_f64().expect("a number");
        assert!((p50 / 50_000.0 - 1.0).abs() < 0.001, "{p50}");
    }

    #[test]
    fn an_empty_run_is_still_told() {
        let (settings, total) = (settings(""), total(0));
        let report = Report { settings: &settings, total: &total, duration_s: 0.0 };
        assert_eq!(report.json()["throughput_per_s"], 0.0);
        assert_eq!(report.json()["latency_us"]["max"], 0.0);
        assert!(report.table().contains("p99.99"));
        assert!(report.verdict().is_err());
    }

    #[test]
    fn verdicts() {
        let verdict = |line: &str, operations, errors| {
            let (settings, mut total) = (settings(line), total(operations));
            total.fail(ErrorKind::ConnectionLost, errors);
            Report { settings: &settings, total: &total, duration_s: 1.0 }.verdict()
        };
        assert!(verdict("", 1000, 10).is_ok());
        assert!(verdict("", 1000, 11).is_err());
        assert!(verdict("--errors-max-percent 50", 1000, 999).is_ok());
        assert!(verdict("--load --keys 100", 100, 500).is_ok());
        assert!(verdict("--load --keys 100", 99, 0).is_err());
    }

    #[test]
    fn its_own_cost_is_told_and_too_much_of_it_warned_of() {
        let told = |cpu_ns, waited_ns| {
            let (settings, mut total) = (settings(""), total(10));
            total.usage.push(Usage { cpu_ns, waited_ns, wall_ns: 1_000_000, operations: 100 });
            let report = Report { settings: &settings, total: &total, duration_s: 1.0 };
            assert!(report.table().contains(&report.notes()));
            report.notes()
        };
        let notes = told(250_000, 0);
        assert!(
            notes.contains("2.50 us/op; busiest thread ran 25 %") && !notes.contains("warning"),
            "{notes}"
        );
        assert!(told(950_000, 0).contains("is the bottleneck"));
        assert!(told(500_000, 450_000).contains("too few cores"));
    }

    #[test]
    fn what_is_told_apart() {
        let notes = |line: &str| {
            let (settings, mut total) = (settings(line), total(10));
            total.told = Told { conflicts: 3, rows: 50 };
            Report { settings: &settings, total: &total, duration_s: 1.0 }.notes()
        };
        assert!(notes("--workload cas").contains("conflicts    3\n"));
        assert!(notes("--workload ycsb-e").contains("rows         50 scanned\n"));
        let put = notes("");
        assert!(!put.contains("conflicts") && !put.contains("rows"), "{put}");
    }

    #[test]
    fn progress_of_a_second() {
        let interval = Interval { latency_ns: total(2000).latency_ns, errors: 1 };
        let text = progress(3.0, 1.0, &interval);
        assert_eq!(text, "     3 s       2000 op/s  errors      1  p50   100.008 ms  p99   198.050 ms");
    }
}
