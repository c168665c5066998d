//! How keys are chosen, as the command line spells it.

use std::fmt;
use std::str::FromStr;

/// YCSB's constant of a zipfian: the larger, the hotter the hot keys.
pub const THETA: f64 = 0.99;
/// How `--key-distribution` is spelt.
const SPELLINGS: &str = "uniform, zipfian, zipfian:<constant>, latest, latest:<constant>, \
     hotset:<percent of keys>:<percent of calls>, or sequential";

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyDistribution {
    /// Every key alike.
    Uniform,
    /// A few keys, spread over all of them, take most of the calls.
    Zipfian {
        /// The constant.
        theta: f64,
    },
    /// The newest keys take most of the calls.
    Latest {
        /// The constant.
        theta: f64,
    },
    /// A share of the keys takes a share of the calls; within it, and outside of it, all are alike.
    HotSet {
        /// The share of the keys.
        keys_percent: f64,
        /// The share of the calls.
        calls_percent: f64,
    },
    /// One key after the other, again and again.
    Sequential,
}

impl KeyDistribution {
    /// With YCSB's constant.
    pub const ZIPFIAN: Self = Self::Zipfian { theta: THETA };
    /// With YCSB's constant.
    pub const LATEST: Self = Self::Latest { theta: THETA };
}

impl FromStr for KeyDistribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(':').collect();
        match words[..] {
            ["uniform"] => Ok(Self::Uniform),
            ["zipfian"] => Ok(Self::ZIPFIAN),
            ["zipfian", theta] => Ok(Self::Zipfian { theta: constant(theta)? }),
            ["latest"] => Ok(Self::LATEST),
            ["latest", theta] => Ok(Self::Latest { theta: constant(theta)? }),
            ["hotset", keys, calls] => {
                Ok(Self::HotSet { keys_percent: percent(keys)?, calls_percent: percent(calls)? })
            }
            ["sequential"] => Ok(Self::Sequential),
            _ => Err(SPELLINGS.into()),
        }
    }
}

/// A zipfian's constant: Gray's method holds between 0 and 1.
fn constant(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(theta) if theta > 0.0 && theta < 1.0 => Ok(theta),
        Ok(_) | Err(_) => Err(format!("'{text}' is no constant between 0 and 1, such as {THETA}")),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        Ok(_) | Err(_) => Err(format!("'{text}' is not a percentage, 0 to 100")),
    }
}

impl fmt::Display for KeyDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipfian { theta } => write!(f, "zipfian:{theta}"),
            Self::Latest { theta } => write!(f, "latest:{theta}"),
            Self::HotSet { keys_percent, calls_percent } => {
                write!(f, "hotset:{keys_percent}:{calls_percent}")
            }
            Self::Sequential => f.write_str("sequential"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for text in ["uniform", "zipfian:0.5", "latest:0.99", "hotset:10:90", "hotset:0.1:99.9", "sequential"]
        {
            assert_eq!(text.parse::<KeyDistribution>().expect(text).to_string(), text);
        }
        assert_eq!("zipfian".parse(), Ok(KeyDistribution::ZIPFIAN));
        assert_eq!("latest".parse(), Ok(KeyDistribution::LATEST));
        let refused = [
            "",
            "zipf",
            "uniform:1",
            "zipfian:",
            "zipfian:0",
            "zipfian:1",
            "zipfian:NaN",
            "zipfian:0.5:1",
            "latest:x",
            "hotset",
            "hotset:10",
            "hotset:10:101",
            "hotset:-1:5",
            "hotset:NaN:5",
            "sequential:1",
        ];
        for text in refused {
            assert!(text.parse::<KeyDistribution>().is_err(), "{text}");
        }
    }
}
