//! Whether an order agrees with the real time: whoever was answered before another was sent comes before it.

/// An operation with its place in an order.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Which event it is.
    pub event: usize,
    /// When it was sent.
    pub sent_ns: u64,
    /// When it was answered.
    pub ended_ns: u64,
    /// Nothing that was answered before it was sent may come after this.
    pub low: u64,
    /// It comes not before this.
    pub high: u64,
}

/// The pairs that break the order: each operation that comes before one that was answered before it was sent,
/// with the one that is furthest ahead of these.
pub fn broken(points: &[Point]) -> Vec<(usize, usize)> {
    let (mut by_sent, mut by_ended) = (points.to_vec(), points.to_vec());
    by_sent.sort_unstable_by_key(|point| point.sent_ns);
    by_ended.sort_unstable_by_key(|point| point.ended_ns);
    let mut answered = by_ended.into_iter().peekable();
    let mut furthest: Option<Point> = None;
    let mut pairs = Vec::new();
    for point in by_sent {
        while let Some(before) = answered.next_if(|before| before.ended_ns < point.sent_ns) {
            if furthest.is_none_or(|furthest| before.high > furthest.high) {
                furthest = Some(before);
            }
        }
        if let Some(furthest) = furthest.filter(|furthest| furthest.high > point.low) {
            pairs.push((furthest.event, point.event));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(event: usize, sent_ns: u64, ended_ns: u64, at: u64) -> Point {
        Point { event, sent_ns, ended_ns, low: at, high: at }
    }

    #[test]
    fn only_what_does_not_overlap_has_an_order() {
        assert_eq!(broken(&[point(0, 0, 10, 5), point(1, 11, 20, 4)]), [(0, 1)]);
        assert_eq!(broken(&[point(0, 0, 10, 5), point(1, 10, 20, 4)]), []);
        assert_eq!(broken(&[point(0, 0, 10, 5), point(1, 11, 20, 5)]), []);
        // The one that is furthest ahead is named, though others came between.
        let points = [point(0, 0, 10, 9), point(1, 5, 12, 7), point(2, 30, 40, 8), point(3, 50, 60, 9)];
        assert_eq!(broken(&points), [(0, 2)]);
    }
}
