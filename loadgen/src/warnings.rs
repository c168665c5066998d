//! What makes a result doubtful: a load generator that was short of CPU, sends that ran late.
//!
//! Every report says it, and the live view while it happens: the load generator is never the bottleneck
//! unnoticed.

use crate::args::Settings;
use crate::record::Total;
use crate::series::Point;
use crate::usage::{BUSY_PERCENT_MAX, Usage, busiest};

/// More late calls than this, in percent, are warned of.
const LATE_PERCENT_MAX: f64 = 1.0;

/// The warnings of a whole run.
pub fn of_run(settings: &Settings, total: &Total) -> Vec<String> {
    let mut warnings: Vec<String> = of_usage(&busiest(&total.usage)).into_iter().collect();
    if total.unconnected > 0 {
        warnings.push(format!(
            "{} connections could not be made: what their nodes would have done is not measured",
            total.unconnected
        ));
    }
    let calls = (total.operations() + total.failures()).max(1) as f64;
    let percent = |late: u64| 100.0 * late as f64 / calls;
    let (no_place, no_stream) = (percent(total.late_no_place), percent(total.late_no_stream));
    let own = percent(total.late - total.late_no_place - total.late_no_stream);
    if own > LATE_PERCENT_MAX {
        warnings.push(format!(
            "loadgen's sends ran late: {own:.1} % of the calls left more than 1 ms after they were due, \
             though there was room for them"
        ));
    }
    if no_place > LATE_PERCENT_MAX {
        warnings.push(format!(
            "the rate was not kept: {no_place:.1} % of the calls left more than 1 ms late because all {} \
             places (--in-flight) were taken; their latency counts the wait",
            settings.in_flight
        ));
    }
    if no_stream > LATE_PERCENT_MAX {
        warnings.push(format!(
            "the rate was not kept: {no_stream:.1} % of the calls left more than 1 ms late because no \
             connection was up with a stream left for them (--connections); their latency counts the wait"
        ));
    }
    warnings
}

/// What is to be warned of while a run goes on.
pub fn of_point(point: &Point) -> Vec<String> {
    let mut warnings: Vec<String> = of_usage(&point.usage).into_iter().collect();
    let calls = (point.operations + point.errors).max(1) as f64;
    let percent = 100.0 * point.late as f64 / calls;
    if percent > LATE_PERCENT_MAX {
        warnings.push(format!("{percent:.0} % of the calls left more than 1 ms late"));
    }
    warnings
}

/// What one thread used, where that was all it could get.
fn of_usage(usage: &Usage) -> Option<String> {
    let (busy, waited) = (usage.busy_percent(), usage.waited_percent());
    if busy > BUSY_PERCENT_MAX {
        Some(format!("loadgen is the bottleneck: a thread of it ran {busy:.0} % of the time (--threads)"))
    } else if busy + waited > BUSY_PERCENT_MAX {
        let spent = busy + waited;
        Some(format!(
            "loadgen had too few cores: a thread of it ran, or waited for one, {spent:.0} % of the time"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;
    use crate::method::Method;
    use crate::record::Interval;

    fn settings() -> Settings {
        let words = ["loadgen", "--endpoints", "a:1", "--rate", "100", "--in-flight", "7"];
        Settings::check(Args::parse_from(words)).expect("good settings")
    }

    fn total(calls: u64, late: u64, (late_no_place, late_no_stream): (u64, u64)) -> Total {
        let mut total = Total { late, late_no_place, late_no_stream, ..Total::default() };
        (0..calls).for_each(|_| total.succeed(Method::Put, 1000, 1000));
        total
    }

    #[test]
    fn late_calls_are_told_by_who_is_to_blame() {
        assert!(of_run(&settings(), &total(1000, 10, (0, 0))).is_empty());
        let own = of_run(&settings(), &total(1000, 31, (20, 0)));
        assert!(own.len() == 2 && own[0].contains("1.1 %") && own[1].contains("2.0 %"), "{own:?}");
        let behind = of_run(&settings(), &total(1000, 500, (500, 0)));
        assert!(behind.len() == 1 && behind[0].contains("all 7 places"), "{behind:?}");
        let crowded = of_run(&settings(), &total(1000, 500, (0, 495)));
        assert!(crowded.len() == 1 && crowded[0].contains("49.5 %"), "{crowded:?}");
        assert!(crowded[0].contains("--connections"), "{crowded:?}");
    }

    #[test]
    fn a_node_that_is_not_there_is_told() {
        let told = of_run(&settings(), &Total { unconnected: 2, ..Total::default() });
        assert!(told.len() == 1 && told[0].starts_with("2 connections could not be made"), "{told:?}");
    }

    #[test]
    fn a_thread_short_of_cpu_is_told() {
        let told = |cpu_ns, waited_ns| {
            let mut total = total(10, 0, (0, 0));
            total.usage.push(Usage { cpu_ns, waited_ns, wall_ns: 1000, operations: 10 });
            of_run(&settings(), &total).concat()
        };
        assert!(told(950, 0).contains("is the bottleneck: a thread of it ran 95 %"));
        assert!(told(500, 450).contains("too few cores"));
        assert_eq!(told(500, 100), "");
    }

    #[test]
    fn it_is_told_while_it_happens() {
        let usage = Usage { cpu_ns: 95, waited_ns: 0, wall_ns: 100, operations: 1 };
        let interval = Interval { late: 1, usage, ..Interval::default() };
        let point = Point::of(&interval, 0.0, 1.0, false);
        assert_eq!(of_point(&point).len(), 2);
        assert_eq!(of_point(&Point::of(&Interval::default(), 0.0, 1.0, false)), Vec::<String>::new());
    }
}
