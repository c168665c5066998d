//! What is told to people: a line a second meanwhile, a table at the end. See [`header`](crate::header) for
//! what is told before.
//!
//! Invariants: standard output holds the result alone, as a table or as one JSON object; everything else,
//! beside JSON also what loadgen itself has cost, goes to standard error.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::args::{Kind, Settings, Target, Workload};
use crate::record::{Interval, Measured};
use crate::usage::{busiest, cpu_us_per_operation};
use crate::warnings;

/// The quantiles that a result has, by name.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("p99_99", 0.9999)];

/// What is said of every closed loop.
pub const CLOSED: &str = "closed loop: a stalled server hides here (coordinated omission); use --rate";

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// What was asked for.
    pub settings: &'a Settings,
    /// What came of it.
    pub measured: &'a Measured,
}

/// The line of an interval that lasted `interval_s` and ended `elapsed_s` after the start.
pub fn progress(elapsed_s: f64, interval_s: f64, interval: &Interval) -> String {
    let throughput = interval.latency_ns.len() as f64 / interval_s;
    let at = |quantile| interval.latency_ns.value_at_quantile(quantile) as f64 / 1e6;
    let (p50, p99, errors) = (at(0.5), at(0.99), interval.errors);
    format!("{elapsed_s:6.0} s {throughput:10.0} op/s  errors {errors:6}  p50 {p50:9.3} ms  p99 {p99:9.3} ms")
}

impl Report<'_> {
    /// The table at the end.
    pub fn table(&self) -> String {
        let Self { settings, measured } = *self;
        let mut text = String::new();
        row(&mut text, "target", &settings.target.to_string());
        row(&mut text, "workload", &settings.workload.to_string());
        match settings.rate {
            None => row(&mut text, "pace", CLOSED),
            Some(rate) => row(&mut text, "pace", &format!("open loop, {rate} op/s wanted")),
        }
        row(&mut text, "duration", &format!("{:.3} s", measured.duration_s));
        row(&mut text, "operations", &measured.total.operations().to_string());
        row(&mut text, "throughput", &format!("{:.1} op/s", measured.throughput_per_s()));
        text.push_str(&self.notes());
        self.tell_times(&mut text);
        self.tell_operations(&mut text);
        text
    }

    /// Latency and service time, side by side.
    fn tell_times(&self, text: &mut String) {
        let (latency_ns, service_ns) = (self.measured.total.latency_ns(), self.measured.total.service_ns());
        line(text, &format!("{:<12} {:>12}    {:>12}", "", "latency", "service time"));
        let mut told = |name: &str, of: &dyn Fn(&Histogram<u64>) -> f64| {
            let (latency, service) = (of(&latency_ns) / 1e6, of(&service_ns) / 1e6);
            line(text, &format!("  {name:<10} {latency:12.3} ms {service:12.3} ms"));
        };
        told("min", &|times| times.min() as f64);
        told("mean", &|times| times.mean());
        for (name, quantile) in QUANTILES {
            told(&name.replace('_', "."), &|times| times.value_at_quantile(quantile) as f64);
        }
        told("max", &|times| times.max() as f64);
    }

    /// A row for each kind of operation, where there are several.
    fn tell_operations(&self, text: &mut String) {
        let total = &self.measured.total;
        if total.by_operation().count() < 2 {
            return;
        }
        let heads = ["operations", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "service p99"];
        let heads = heads.map(|head| format!("{head:>12}")).concat();
        line(text, &format!("{:<12} {heads}", "operation"));
        for (name, kind) in total.by_operation() {
            let at = |quantile| kind.latency_ns.value_at_quantile(quantile) as f64;
            let service = kind.service_ns.value_at_quantile(0.99) as f64;
            let times = [at(0.5), at(0.99), at(0.999), kind.latency_ns.max() as f64, service];
            let times = times.map(|ns| format!("{:12.3}", ns / 1e6)).concat();
            line(text, &format!("  {name:<10} {:12}{times}", kind.latency_ns.len()));
        }
    }

    /// What is told beside the numbers: errors by kind, keys not found, calls that left late, what it cost
    /// here, and what makes the result doubtful. A table holds it; beside JSON it goes to standard error.
    pub fn notes(&self) -> String {
        let (settings, total) = (self.settings, &self.measured.total);
        let mut text = String::new();
        match settings.target {
            Target::Kv | Target::Pipeline | Target::Etcd => {
                row(&mut text, "not found", &total.not_found.to_string());
            }
            Target::Health => {}
        }
        if settings.workload.has(Kind::Cas) {
            row(&mut text, "conflicts", &total.told.conflicts.to_string());
        }
        if settings.workload.has(Kind::Scan) {
            row(&mut text, "rows", &format!("{} scanned", total.told.rows));
        }
        if settings.rate.is_some() {
            let percent = total.late_percent();
            let late = format!("{} ({percent:.3} %) sent more than 1 ms after they were due", total.late);
            row(&mut text, "late", &late);
        }
        let (failures, percent) = (total.failures(), total.errors_percent());
        row(
            &mut text,
            "errors",
            &format!("{failures} ({percent:.3} %), {} of them timeouts", total.timeouts()),
        );
        for (kind, count) in &total.errors {
            line(&mut text, &format!("  {count:>10} {kind}"));
        }
        for (name, times) in [("  failed in", &total.error_ns), ("  given up in", &total.timeout_ns)] {
            if !times.is_empty() {
                let (p50, max) = (times.value_at_quantile(0.5) as f64 / 1e6, times.max() as f64 / 1e6);
                line(&mut text, &format!("{name:<13} p50 {p50:.3} ms, max {max:.3} ms"));
            }
        }
        let busiest = busiest(&total.usage);
        let (busy, waited) = (busiest.busy_percent(), busiest.waited_percent());
        let cost = cpu_us_per_operation(&total.usage);
        let own = format!("{cost:.2} us/op; busiest thread ran {busy:.0} %, waited {waited:.0} %");
        row(&mut text, "own CPU", &own);
        for why in warnings::of_run(settings, total) {
            row(&mut text, "warning", &why);
        }
        if let Some(audit) = &total.audit {
            text.push_str(&audit.text());
        }
        text
    }

    /// Why the run counts as failed, where it does.
    pub fn verdict(&self) -> Result<(), String> {
        if let Some(audit) = &self.measured.total.audit {
            audit.verdict()?;
        }
        let operations = self.measured.total.operations();
        if operations == 0 {
            return Err("no measured operation succeeded".into());
        }
        if self.settings.workload == Workload::Load {
            let missing = self.settings.keys - operations.min(self.settings.keys);
            return if missing == 0 { Ok(()) } else { Err(format!("{missing} keys were not written")) };
        }
        let (percent, percent_max) = (self.measured.total.errors_percent(), self.settings.errors_max_percent);
        if percent > percent_max {
            return Err(format!("{percent:.3} % of the measured calls failed, more than {percent_max} %"));
        }
        Ok(())
    }
}

/// Appends a name and what it is.
fn row(text: &mut String, name: &str, value: &str) {
    line(text, &format!("{name:<12} {value}"));
}

/// Appends a line.
fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
pub mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;
    use crate::host::Host;
    use crate::method::Method;
    use crate::record::Total;
    use crate::series::Series;
    use crate::status::ErrorKind;
    use crate::told::Told;
    use crate::usage::Usage;

    /// Settings of a command line.
    pub fn parsed(line: &str) -> Settings {
        let words = ["loadgen", "--endpoints", "a:1"].into_iter().chain(line.split_whitespace());
        Settings::check(Args::parse_from(words)).expect("good settings")
    }

    /// So many puts, the first of 0.1 ms and each 0.1 ms longer than the one before, half of that sent.
    pub fn measured(operations: u64, duration_s: f64) -> Measured {
        let mut total = Total::default();
        for i in 1..=operations {
            total.succeed(Method::Put, i * 100_000, i * 50_000);
        }
        Measured {
            total,
            duration_s,
            series: Series::default(),
            log_error: None,
            about: None,
            host: Host::default(),
        }
    }

    #[test]
    fn an_empty_run_is_still_told() {
        let (settings, measured) = (parsed(""), measured(0, 0.0));
        let report = Report { settings: &settings, measured: &measured };
        let json = crate::json::of(&report);
        assert_eq!((&json["throughput_per_s"], &json["latency_us"]["max"]), (&0.0.into(), &0.0.into()));
        assert!(report.table().contains("p99.99"));
        assert!(report.verdict().is_err());
    }

    #[test]
    fn verdicts() {
        let verdict = |line: &str, operations, errors| {
            let (settings, mut measured) = (parsed(line), measured(operations, 1.0));
            measured.total.fail(ErrorKind::ConnectionLost, errors, 1);
            Report { settings: &settings, measured: &measured }.verdict()
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
            let (settings, mut measured) = (parsed(""), measured(10, 1.0));
            measured.total.usage.push(Usage { cpu_ns, waited_ns, wall_ns: 1_000_000, operations: 100 });
            let report = Report { settings: &settings, measured: &measured };
            assert!(report.table().contains(&report.notes()));
            report.notes()
        };
        let notes = told(250_000, 0);
        assert!(
            notes.contains("2.50 us/op; busiest thread ran 25 %") && !notes.contains("warning"),
            "{notes}"
        );
        assert!(told(950_000, 0).contains("warning      loadgen is the bottleneck"));
        assert!(told(500_000, 450_000).contains("too few cores"));
    }

    #[test]
    fn the_table_has_both_times_and_every_kind() {
        let (settings, mut measured) = (parsed("--workload mixed:50"), measured(1000, 1.0));
        let report = |measured: &Measured| Report { settings: &settings, measured }.table();
        let text = report(&measured);
        assert!(text.contains("  p50              50.004 ms       25.002 ms\n"), "{text}");
        assert!(text.contains(CLOSED) && !text.contains("\noperation "), "{text}");
        measured.total.succeed(Method::Get, 7_000_000, 7_000_000);
        measured.total.fail(ErrorKind::Timeout, 2, 5_000_000_000);
        let text = report(&measured);
        assert!(text.contains("\n  get                   1       7.000"), "{text}");
        assert!(text.contains("2 of them timeouts") && text.contains("given up in p50 50"), "{text}");
    }

    #[test]
    fn what_is_told_apart() {
        let notes = |line: &str| {
            let (settings, mut measured) = (parsed(line), measured(10, 1.0));
            measured.total.told = Told { conflicts: 3, rows: 50 };
            Report { settings: &settings, measured: &measured }.notes()
        };
        assert!(notes("--workload cas").contains("conflicts    3\n"));
        assert!(notes("--workload ycsb-e").contains("rows         50 scanned\n"));
        let put = notes("");
        assert!(!put.contains("conflicts") && !put.contains("rows"), "{put}");
    }

    #[test]
    fn progress_of_a_second() {
        let latency_ns = measured(2000, 1.0).total.latency_ns();
        let interval = Interval { latency_ns, errors: 1, ..Interval::default() };
        let text = progress(3.0, 1.0, &interval);
        assert_eq!(text, "     3 s       2000 op/s  errors      1  p50   100.008 ms  p99   198.050 ms");
    }
}
