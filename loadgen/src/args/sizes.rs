//! How large values are, as the command line spells it.
//!
//! ```text
//! 256                        every value
//! 64..1024                   from the first to the second, every size alike
//! zipfian:64..1024           the same, but the smaller the more often
//! 64:90,1024:9,16384:1       sizes by weight
//! ```

use std::fmt;
use std::str::FromStr;

/// The largest value that distribKV takes.
pub const VALUE_BYTES_MAX: u32 = 1 << 20;
/// Most sizes of a list.
const SIZES_MAX: usize = 64;
/// The largest weight of a size.
const WEIGHT_MAX: u32 = 1_000_000_000;
/// How `--value-size` is spelt.
const SPELLINGS: &str = "256, 64..1024, zipfian:64..1024, or a list of sizes and weights as 64:90,1024:10";

/// How large values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSizes {
    /// All of one size.
    Fixed(u32),
    /// Every size of a range alike.
    Uniform(SizeRange),
    /// The sizes of a range, small ones far more often than large ones.
    Zipfian(SizeRange),
    /// Sizes with their weights.
    Weighted(Vec<WeightedSize>),
}

/// Sizes from one to another, both included, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRange {
    /// The smallest.
    pub min: u32,
    /// The largest, not smaller than that.
    pub max: u32,
}

/// A size that a share of the values has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightedSize {
    /// Bytes.
    pub size: u32,
    /// How often, beside the weights of the others.
    pub weight: u32,
}

impl ValueSizes {
    /// The smallest size that can occur.
    pub fn min(&self) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(range) | Self::Zipfian(range) => range.min,
            Self::Weighted(sizes) => sizes.iter().map(|entry| entry.size).min().unwrap_or(0),
        }
    }

    /// The largest size that can occur.
    pub fn max(&self) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(range) | Self::Zipfian(range) => range.max,
            Self::Weighted(sizes) => sizes.iter().map(|entry| entry.size).max().unwrap_or(0),
        }
    }
}

impl FromStr for ValueSizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(range) = text.strip_prefix("zipfian:") {
            return Ok(Self::Zipfian(range_of(range)?));
        }
        if text.contains("..") {
            return Ok(Self::Uniform(range_of(text)?));
        }
        if text.contains(':') {
            return weighted(text);
        }
        Ok(Self::Fixed(size(text)?))
    }
}

fn size(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(size @ 0..=VALUE_BYTES_MAX) => Ok(size),
        Ok(_) => Err(format!("{text} is outside 0 to {VALUE_BYTES_MAX}")),
        Err(_) => Err(format!("'{text}' is no size: {SPELLINGS}")),
    }
}

fn range_of(text: &str) -> Result<SizeRange, String> {
    let (min, max) = text.split_once("..").ok_or_else(|| format!("'{text}' is no range: {SPELLINGS}"))?;
    let (min, max) = (size(min)?, size(max)?);
    if min > max {
        return Err(format!("the range {text} ends before it begins"));
    }
    Ok(SizeRange { min, max })
}

fn weighted(text: &str) -> Result<ValueSizes, String> {
    let entry = |entry: &str| {
        let (bytes, weight) =
            entry.split_once(':').ok_or_else(|| format!("'{entry}' has no weight: {SPELLINGS}"))?;
        match weight.parse() {
            Ok(weight @ 1..=WEIGHT_MAX) => Ok(WeightedSize { size: size(bytes)?, weight }),
            Ok(_) | Err(_) => Err(format!("'{weight}' is no weight, 1 to {WEIGHT_MAX}")),
        }
    };
    let sizes = text.split(',').map(entry).collect::<Result<Vec<_>, String>>()?;
    if sizes.len() > SIZES_MAX {
        return Err(format!("{} sizes are more than {SIZES_MAX}", sizes.len()));
    }
    Ok(ValueSizes::Weighted(sizes))
}

impl fmt::Display for ValueSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Uniform(SizeRange { min, max }) => write!(f, "{min}..{max}"),
            Self::Zipfian(SizeRange { min, max }) => write!(f, "zipfian:{min}..{max}"),
            Self::Weighted(sizes) => {
                for (place, WeightedSize { size, weight }) in sizes.iter().enumerate() {
                    let comma = if place > 0 { "," } else { "" };
                    write!(f, "{comma}{size}:{weight}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let max = |text: &str| {
            let sizes: ValueSizes = text.parse().expect(text);
            assert_eq!(sizes.to_string(), text);
            sizes.max()
        };
        assert_eq!([max("0"), max("256"), max("1048576")], [0, 256, 1 << 20]);
        assert_eq!([max("64..1024"), max("7..7"), max("zipfian:64..1024")], [1024, 7, 1024]);
        assert_eq!([max("64:90,16384:1,1024:9"), max("5:1")], [16384, 5]);
    }

    #[test]
    fn refusals() {
        let refused = [
            "",
            "x",
            "-1",
            "1048577",
            "64..",
            "..64",
            "9..8",
            "1...2",
            "64..1048577",
            "zipfian",
            "zipfian:64",
            "zipfian:9..8",
            "64:",
            "64:0",
            "64:x",
            ":5",
            "64:1,",
            "64:1,65",
            "64:1,,65:1",
            "64,65",
            "1:1000000001",
            "1048577:1",
        ];
        for text in refused {
            assert!(text.parse::<ValueSizes>().is_err(), "{text}");
        }
        let long = (0..65).map(|size| format!("{size}:1")).collect::<Vec<_>>().join(",");
        assert!(long.parse::<ValueSizes>().is_err());
    }
}
