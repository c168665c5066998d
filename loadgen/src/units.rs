//! Numbers as people read them: three significant digits and a unit.

/// A time in nanoseconds: `850 ns`, `12.3 µs`, `1.23 ms`, `4.56 s`.
pub fn time(ns: f64) -> String {
    let scales = [("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
    let (unit, scale) = scale_of(ns, &scales);
    if unit == "ns" { format!("{ns:.0} ns") } else { format!("{} {unit}", digits(ns / scale)) }
}

/// So many a second: `950 /s`, `50.2 k/s`, `1.23 M/s`.
pub fn rate(per_s: f64) -> String {
    let (unit, scale) = scale_of(per_s, &[("", 1.0), ("k", 1e3), ("M", 1e6)]);
    let value = per_s / scale;
    if unit.is_empty() && value.fract() == 0.0 {
        format!("{value:.0} /s")
    } else {
        format!("{} {unit}/s", digits(value))
    }
}

/// A number in groups of three digits: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A span of a run: `12 s`, `2:05`, `1:02:03`.
pub fn clock(s: f64) -> String {
    let whole = s.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Three significant digits of a number below a thousand.
pub fn digits(value: f64) -> String {
    if value.abs() >= 99.95 {
        format!("{value:.0}")
    } else if value.abs() >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The largest unit that leaves something before the point, once rounded to three digits.
fn scale_of(value: f64, scales: &[(&'static str, f64)]) -> (&'static str, f64) {
    let fits = |scale: &&(&'static str, f64)| value.abs() >= scale.1 * 0.9995;
    *scales.iter().rev().find(fits).unwrap_or(&scales[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let told = [0.0, 850.0, 999.9, 12_345.0, 999_960.0, 1_234_567.0, 99_960_000.0, 4.56e9, 123e9];
        let want =
            ["0 ns", "850 ns", "1.00 µs", "12.3 µs", "1.00 ms", "1.23 ms", "100 ms", "4.56 s", "123 s"];
        assert_eq!(told.map(time), want);
    }

    #[test]
    fn rates() {
        let told = [0.0, 7.0, 12.5, 950.0, 999.6, 50_234.0, 1_234_567.0];
        assert_eq!(told.map(rate), ["0 /s", "7 /s", "12.5 /s", "950 /s", "1.00 k/s", "50.2 k/s", "1.23 M/s"]);
    }

    #[test]
    fn counts_and_clocks() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([3.2, 125.0, 3723.0].map(clock), ["3 s", "2:05", "1:02:03"]);
    }
}
