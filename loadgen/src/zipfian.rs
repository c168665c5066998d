//! Zipfian ranks: Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (SIGMOD 1994), as YCSB
//! has it. The rank r of n comes with a share of 1 / (r + 1)^theta.

/// The sum is added up to here, and approximated by its integral beyond.
const ZETA_EXACT_MAX: u64 = 100_000;

/// The constants of Gray's method.
#[derive(Clone, Debug)]
pub struct Zipfian {
    count: u64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipfian {
    /// Ranks below `count`; the larger `theta`, which is between 0 and 1, the more often come the first.
    pub fn new(count: u64, theta: f64) -> Self {
        assert!(count > 0 && theta > 0.0 && theta < 1.0, "a zipfian of {count}, constant {theta}");
        let zeta = zeta(count, theta);
        Self { count, theta, zeta, alpha: 1.0 / (1.0 - theta), eta: eta(count, theta, zeta) }
    }

    /// Ranks below `count` from here on, where that is more.
    pub fn grow_to(&mut self, count: u64) {
        if self.count >= count {
            return;
        }
        while self.count < count {
            self.count += 1;
            self.zeta += (self.count as f64).powf(-self.theta);
        }
        self.eta = eta(self.count, self.theta, self.zeta);
    }

    /// Ranks are below this.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The rank that a number in [0, 1) stands for: 0 is the most frequent.
    pub fn rank(&self, unit: f64) -> u64 {
        let scaled = unit * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5f64.powf(self.theta) {
            1
        } else {
            (self.count as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64
        };
        rank.min(self.count - 1)
    }
}

fn eta(count: u64, theta: f64, zeta: f64) -> f64 {
    (1.0 - (2.0 / count as f64).powf(1.0 - theta)) / (1.0 - zeta_exact(2, theta) / zeta)
}

/// The sum of 1 / i^theta for i from 1 to `count`: the tail by Euler's and Maclaurin's midpoint integral.
fn zeta(count: u64, theta: f64) -> f64 {
    let exact = count.min(ZETA_EXACT_MAX);
    let integral = |x: f64| x.powf(1.0 - theta) / (1.0 - theta);
    zeta_exact(exact, theta) + integral(count as f64 + 0.5) - integral(exact as f64 + 0.5)
}

fn zeta_exact(count: u64, theta: f64) -> f64 {
    (1..=count).map(|i| (i as f64).powf(-theta)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn ranks_have_their_shares() {
        for theta in [0.5, 0.99] {
            let zipfian = Zipfian::new(1000, theta);
            let mut random = Random::of(1, 0);
            let mut counts = vec![0f64; 1000];
            let draws = 200_000;
            for _ in 0..draws {
                counts[zipfian.rank(random.unit()) as usize] += 1.0;
            }
            for rank in [0usize, 1] {
                let share = ((rank + 1) as f64).powf(-theta) / zeta_exact(1000, theta);
                let found = counts[rank] / f64::from(draws);
                assert!((found / share - 1.0).abs() < 0.05, "{theta}, rank {rank}: {found} for {share}");
            }
            let head: f64 = counts[..100].iter().sum::<f64>() / f64::from(draws);
            let share = zeta_exact(100, theta) / zeta_exact(1000, theta);
            assert!((head / share - 1.0).abs() < 0.05, "{theta}, the first hundred: {head} for {share}");
        }
    }

    #[test]
    fn few_ranks() {
        assert_eq!(Zipfian::new(1, 0.99).rank(0.999), 0);
        assert!(Zipfian::new(2, 0.99).rank(0.999) < 2);
    }

    #[test]
    fn growing_is_as_beginning_with_more() {
        let (mut grown, made) = (Zipfian::new(10, 0.99), Zipfian::new(5000, 0.99));
        grown.grow_to(5000);
        grown.grow_to(3);
        assert_eq!(grown.count(), 5000);
        for step in 0..1000 {
            let unit = f64::from(step) / 1000.0;
            assert_eq!(grown.rank(unit), made.rank(unit), "of {unit}");
        }
    }

    #[test]
    fn zeta_by_integral_is_zeta() {
        let exact = zeta_exact(1_000_000, 0.99);
        assert!((zeta(1_000_000, 0.99) / exact - 1.0).abs() < 1e-9, "{} for {exact}", zeta(1_000_000, 0.99));
    }
}
