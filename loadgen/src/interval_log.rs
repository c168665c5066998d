//! HdrHistogram's interval log (`.hlog`), version 1.3: the histogram of every second, whole.
//! ```text
//! #[StartTime: 1700000000.000 (seconds since epoch)]
//! "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
//! 0.000,1.000,2.769,HISTFAAA...
//! Tag=service,0.000,1.000,2.701,HISTFAAA...
//! ```
//! That format, and no table of percentiles, because everything can be made of histograms and nothing of
//! percentiles: HistogramLogAnalyzer and HistogramLogProcessor read it. Untagged lines hold latencies, those
//! with `Tag=service` service times. Times of day and lengths are in seconds, the maximum is in milliseconds,
//! histograms are in nanoseconds. The warm-up is in it.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializeError, V2DeflateSerializer};

use crate::record::Interval;

/// Nanoseconds in the unit of the maximum.
const UNIT_NS: f64 = 1e6;

/// A log that is being written.
pub struct IntervalLog<W: Write> {
    to: W,
    serializer: V2DeflateSerializer,
    encoded: Vec<u8>,
}

impl<W: Write> IntervalLog<W> {
    /// Begins the log of a run that began at `start`.
    pub fn begin(mut to: W, start: SystemTime) -> io::Result<Self> {
        let start_s = start.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
        writeln!(to, "#[loadgen {}, interval log of latency and service time]", env!("CARGO_PKG_VERSION"))?;
        writeln!(to, "#[Histogram log format version 1.3]")?;
        writeln!(to, "#[StartTime: {start_s:.3} (seconds since epoch)]")?;
        let columns = ["StartTimestamp", "Interval_Length", "Interval_Max", "Interval_Compressed_Histogram"];
        writeln!(to, "\"{}\"", columns.join("\",\""))?;
        Ok(Self { to, serializer: V2DeflateSerializer::new(), encoded: Vec::new() })
    }

    /// Writes an interval that began `from_s` after the start and ended `to_s` after it.
    pub fn write(&mut self, interval: &Interval, from_s: f64, to_s: f64) -> io::Result<()> {
        self.write_line("", &interval.latency_ns, from_s, to_s)?;
        self.write_line("Tag=service,", &interval.service_ns, from_s, to_s)?;
        self.to.flush()
    }

    fn write_line(&mut self, tag: &str, times: &Histogram<u64>, from_s: f64, to_s: f64) -> io::Result<()> {
        self.encoded.clear();
        self.serializer.serialize(times, &mut self.encoded).map_err(|error| match error {
            V2DeflateSerializeError::IoError(error) => error,
            other => io::Error::other(other),
        })?;
        let (span_s, max) = (to_s - from_s, times.max() as f64 / UNIT_NS);
        writeln!(self.to, "{tag}{from_s:.3},{span_s:.3},{max:.3},{}", STANDARD.encode(&self.encoded))
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn hdrhistogram_reads_it() {
        let mut bytes = Vec::new();
        let start = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        let mut log = IntervalLog::begin(&mut bytes, start).expect("a vector takes it all");
        let mut interval = Interval::default();
        (1..=1000).for_each(|us| interval.succeed(us * 1000, us * 500));
        log.write(&interval, 0.0, 1.0).expect("a vector takes it all");
        log.write(&Interval::default(), 1.0, 2.001).expect("a vector takes it all");

        let entries: Vec<_> =
            IntervalLogIterator::new(&bytes).map(|entry| entry.expect("a good line")).collect();
        let [LogEntry::StartTime(start_s), intervals @ ..] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!(start_s.as_millis(), 1_700_000_000_250);
        let mut read = Vec::new();
        for entry in intervals {
            let LogEntry::Interval(line) = entry else { panic!("{entry:?}") };
            let packed = STANDARD.decode(line.encoded_histogram()).expect("base64");
            let times: Histogram<u64> =
                Deserializer::new().deserialize(&mut &packed[..]).expect("a histogram");
            let tag = line.tag().map(|tag| tag.as_str().to_owned());
            read.push((tag, line.duration().as_millis(), line.max(), times.len(), times.max() / 1000));
        }
        let service = || Some("service".to_owned());
        let want = [
            (None, 1000, 1.0, 1000, 1000),
            (service(), 1000, 0.5, 1000, 500),
            (None, 1001, 0.0, 0, 0),
            (service(), 1001, 0.0, 0, 0),
        ];
        assert_eq!(read.len(), 4);
        for (found, want) in read.iter().zip(want) {
            assert_eq!((&found.0, found.1, found.3, found.4), (&want.0, want.1, want.3, want.4));
            assert!((found.2 - want.2).abs() < 0.002, "{found:?}");
        }
    }
}
