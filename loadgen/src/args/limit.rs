//! What a rate has to hold, as `--find-max` spells it: `p99<5ms`, or several such limits with commas between.
//!
//! Invariant: there is at least one limit, of a quantile that a histogram can tell and of a time above zero.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::parse_span;

/// The most limits at once.
const LIMITS_MAX: usize = 8;

/// Limits, all of which have to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits(Vec<Limit>);

/// A bound of one number of a latency distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// As it was written, without blanks.
    text: String,
    of: Of,
    most_ns: u64,
    /// Whether the bound itself is allowed.
    is_inclusive: bool,
}

/// A number of a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    /// What this share of the calls do not exceed, in percent.
    Percentile(f64),
    Mean,
    Max,
}

impl Limits {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Limit> {
        self.0.iter()
    }
}

impl Limit {
    /// What it bounds: `p99`.
    pub fn name(&self) -> String {
        match self.of {
            Of::Percentile(percent) => format!("p{percent}"),
            Of::Mean => "mean".to_owned(),
            Of::Max => "max".to_owned(),
        }
    }

    /// That number of these latencies and of so many calls that failed, in nanoseconds. For a percentile and
    /// for the maximum a call that failed took longer than any: a server must not hold a limit by refusing.
    pub fn of(&self, latency_ns: &Histogram<u64>, failures: u64) -> f64 {
        let succeeded = latency_ns.len() as f64;
        match self.of {
            Of::Percentile(percent) => {
                let wanted = percent / 100.0 * (succeeded + failures as f64);
                if wanted > succeeded {
                    return f64::INFINITY;
                }
                latency_ns.value_at_quantile(wanted / succeeded.max(1.0)) as f64
            }
            Of::Mean => latency_ns.mean(),
            Of::Max if failures > 0 => f64::INFINITY,
            Of::Max => latency_ns.max() as f64,
        }
    }

    /// Whether a number is within it.
    pub fn allows(&self, ns: f64) -> bool {
        let most = self.most_ns as f64;
        ns < most || (self.is_inclusive && ns <= most)
    }

    /// The bound, in nanoseconds.
    pub fn most_ns(&self) -> u64 {
        self.most_ns
    }
}

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let limits: Vec<Limit> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if limits.len() > LIMITS_MAX {
            return Err(format!("{} limits are more than {LIMITS_MAX}", limits.len()));
        }
        Ok(Self(limits))
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let Some((name, bound)) = text.split_once('<') else {
            return Err(format!("'{text}' is no limit, as p99<5ms is one"));
        };
        let (bound, is_inclusive) = bound.strip_prefix('=').map_or((bound, false), |bound| (bound, true));
        let of = match name {
            "mean" => Of::Mean,
            "max" => Of::Max,
            name => Of::Percentile(percent_of(name)?),
        };
        let most = parse_span(bound)?;
        if most < Duration::from_micros(1) {
            return Err(format!("'{bound}' is less than 1us"));
        }
        let most_ns = u64::try_from(most.as_nanos()).map_err(|_| format!("'{bound}' is too long"))?;
        Ok(Self { of, most_ns, is_inclusive, text })
    }
}

/// The percent of `p99.9`.
fn percent_of(name: &str) -> Result<f64, String> {
    let percent = name.strip_prefix('p').and_then(|digits| digits.parse::<f64>().ok());
    percent.filter(|percent| *percent > 0.0 && *percent < 100.0).ok_or_else(|| {
        format!("'{name}' is none of mean, max and a percentile between p0 and p100, such as p99.9")
    })
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|limit| limit.text.as_str()).collect();
        f.write_str(&texts.join(","))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ns: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits are possible");
        ns.into_iter().for_each(|ns| histogram.record(ns).expect("it grows"));
        histogram
    }

    #[test]
    fn what_is_read_is_what_is_meant() {
        let limits: Limits = " p99.9 <= 800us, mean<2ms,max<1s".parse().expect("limits");
        assert_eq!(limits.to_string(), "p99.9<=800us,mean<2ms,max<1s");
        let names: Vec<_> = limits.iter().map(|limit| (limit.name(), limit.most_ns())).collect();
        let want = [("p99.9", 800_000), ("mean", 2_000_000), ("max", 1_000_000_000)];
        assert_eq!(names, want.map(|(name, ns)| (name.to_owned(), ns)));
    }

    #[test]
    fn a_bound_is_allowed_where_it_says_so() {
        let limit = |text: &str| text.parse::<Limit>().expect("a limit");
        assert!(limit("p50<=5ms").allows(5e6) && !limit("p50<5ms").allows(5e6));
        assert!(limit("p50<5ms").allows(4.9e6) && !limit("p50<=5ms").allows(5.1e6));
    }

    #[test]
    fn the_number_is_that_of_the_distribution() {
        let latency_ns = times((1..=1000).map(|i| i * 1000));
        let with = |text: &str, failures| text.parse::<Limit>().expect("a limit").of(&latency_ns, failures);
        let of = |text: &str| with(text, 0);
        let about = |value: f64, want: f64| assert!((value / want - 1.0).abs() < 0.01, "{value} for {want}");
        about(of("p50<1s"), 500_000.0);
        about(of("p99.9<1s"), 999_000.0);
        about(of("mean<1s"), 500_500.0);
        about(of("max<1s"), 1_000_000.0);
        // Of 1250 calls 250 failed: the slowest that succeeded are at p80.
        about(with("p50<1s", 250), 625_000.0);
        about(with("p80<1s", 250), 1_000_000.0);
        assert!(with("p81<1s", 250).is_infinite() && with("max<1s", 1).is_infinite());
        about(with("mean<1s", 250), 500_500.0);
    }

    #[test]
    fn refusals() {
        let refused = [
            "", "p99", "p99>5ms", "p99<5", "p99<ms", "p0<5ms", "p100<5ms", "px<5ms", "q99<5ms", "p99<0ms",
            "p99<5ms,", "p99<999h", "<5ms",
        ];
        for text in refused {
            assert!(text.parse::<Limits>().is_err(), "{text}");
        }
        assert!(["p99<5ms"; 9].join(",").parse::<Limits>().is_err());
    }
}
