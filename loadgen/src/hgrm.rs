//! HdrHistogram's percentile spectrum, as its plotter and wrk2 write it: values in milliseconds.
//! ```text
//!        Value     Percentile TotalCount 1/(1-Percentile)
//!
//!        0.105 0.000000000000          1           1.00
//!        0.250 1.000000000000        100
//! #[Mean    =        0.140, StdDeviation   =        0.020]
//! #[Max     =        0.250, Total count    =          100]
//! #[Buckets =           30, SubBuckets     =         2048]
//! ```

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Lines for every halving of what is left of the distribution.
const TICKS_PER_HALF: u32 = 5;
/// Nanoseconds in the unit of the values.
const UNIT_NS: f64 = 1e6;

/// Writes the spectrum of a histogram of nanoseconds.
pub fn write(latency_ns: &Histogram<u64>, mut to: impl Write) -> io::Result<()> {
    writeln!(to, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut count = 0;
    for step in latency_ns.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / UNIT_NS;
        let quantile = step.quantile_iterated_to();
        if quantile < 1.0 {
            writeln!(to, "{value:12.3} {quantile:14.12} {count:10} {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(to, "{value:12.3} {quantile:14.12} {count:10}")?;
        }
    }
    let (mean, deviation) = (latency_ns.mean() / UNIT_NS, latency_ns.stdev() / UNIT_NS);
    writeln!(to, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    let (max, total) = (latency_ns.max() as f64 / UNIT_NS, latency_ns.len());
    writeln!(to, "#[Max     = {max:12.3}, Total count    = {total:12}]")?;
    let sub_buckets = 2usize << (u32::from(latency_ns.sigfig()) * 10).div_ceil(3);
    let buckets = latency_ns.buckets();
    writeln!(to, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]")?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::histogram;

    fn spectrum(values_ns: impl IntoIterator<Item = u64>) -> String {
        let mut latency_ns = histogram();
        values_ns.into_iter().for_each(|ns| latency_ns.saturating_record(ns));
        let mut text = Vec::new();
        write(&latency_ns, &mut text).expect("a vector takes it all");
        String::from_utf8(text).expect("it is text")
    }

    #[test]
    fn shape() {
        let text = spectrum((1..=1000).map(|us| us * 1000));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       0.001 0.000000000000          1           1.00");
        let last = lines.iter().rfind(|line| !line.starts_with('#')).expect("a last row");
        assert_eq!(last.split_whitespace().collect::<Vec<_>>(), ["1.000", "1.000000000000", "1000"]);
        let footer: Vec<&str> = lines.iter().filter(|line| line.starts_with("#[")).copied().collect();
        assert_eq!(footer.len(), 3);
        assert_eq!(footer[1], "#[Max     =        1.000, Total count    =         1000]");
        assert!(footer[2].ends_with("SubBuckets     =         2048]"), "{}", footer[2]);
    }

    #[test]
    fn rows_rise() {
        let text = spectrum((1..=5000).map(|i| i * i));
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().take(3).map(|word| word.parse().expect("a number")).collect())
            .collect();
        assert!(rows.len() > 20);
        for pair in rows.windows(2) {
            assert!((0..3).all(|column| pair[0][column] <= pair[1][column]), "{pair:?}");
        }
    }

    #[test]
    fn empty() {
        assert!(spectrum([]).contains("Total count    =            0]"));
    }
}
