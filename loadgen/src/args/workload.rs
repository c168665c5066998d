//! What is called, and what the calls do.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

use super::KeyDistribution;

/// How `--workload` is spelt.
const SPELLINGS: &str = "put, get, append, delete, mixed:<percent of reads>, cas, scan, or ycsb-a to ycsb-f";

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The key-value store, a unary call for each operation.
    Kv,
    /// The key-value store, all operations on one Pipeline stream for each connection.
    Pipeline,
    /// `grpc.health.v1.Health/Check`.
    Health,
    /// etcd's version 3 API: Range, Put, DeleteRange, Txn.
    Etcd,
}

impl Target {
    /// Whether the target tells which node leads which part of the keys.
    pub fn has_routing(self) -> bool {
        match self {
            Self::Kv | Self::Pipeline => true,
            Self::Health | Self::Etcd => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kv => "kv",
            Self::Pipeline => "pipeline",
            Self::Health => "health",
            Self::Etcd => "etcd",
        })
    }
}

/// What the calls do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Puts alone.
    Put,
    /// Gets alone.
    Get,
    /// Appends alone.
    Append,
    /// Deletes alone.
    Delete,
    /// So many reads in a hundred calls, the others puts.
    Mixed(u8),
    /// Puts on the condition that the key is as it was last seen.
    Cas,
    /// Scans alone.
    Scan,
    /// One of YCSB's core workloads.
    Ycsb(Ycsb),
    /// What a file says.
    Trace,
    /// Health checks.
    Check,
    /// A put of every key, once.
    Load,
}

/// YCSB's core workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ycsb {
    /// Half reads, half updates.
    A,
    /// 95 % reads, 5 % updates.
    B,
    /// Reads alone.
    C,
    /// 95 % reads of what is new, 5 % inserts.
    D,
    /// 95 % scans, 5 % inserts.
    E,
    /// Half reads, half read-modify-writes.
    F,
}

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads a key.
    Get,
    /// Writes a key.
    Put,
    /// Appends to a key.
    Append,
    /// Deletes a key.
    Delete,
    /// Writes a key that is as it was last seen.
    Cas,
    /// Reads keys in order.
    Scan,
    /// Writes a key that was not there.
    Insert,
    /// Reads a key, then writes it: one operation of two calls.
    ReadModifyWrite,
}

/// Two kinds of operations in a proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// One kind.
    pub first: Kind,
    /// Its share.
    pub first_percent: u8,
    /// The other.
    pub rest: Kind,
}

impl Workload {
    /// The operations it is made of; `None` where no choice is made: for a trace, a load and health checks.
    pub fn mix(self) -> Option<Mix> {
        let (first, first_percent, rest) = match self {
            Self::Put => (Kind::Put, 100, Kind::Put),
            Self::Get | Self::Ycsb(Ycsb::C) => (Kind::Get, 100, Kind::Get),
            Self::Append => (Kind::Append, 100, Kind::Append),
            Self::Delete => (Kind::Delete, 100, Kind::Delete),
            Self::Mixed(percent) => (Kind::Get, percent, Kind::Put),
            Self::Cas => (Kind::Cas, 100, Kind::Cas),
            Self::Scan => (Kind::Scan, 100, Kind::Scan),
            Self::Ycsb(Ycsb::A) => (Kind::Get, 50, Kind::Put),
            Self::Ycsb(Ycsb::B) => (Kind::Get, 95, Kind::Put),
            Self::Ycsb(Ycsb::D) => (Kind::Get, 95, Kind::Insert),
            Self::Ycsb(Ycsb::E) => (Kind::Scan, 95, Kind::Insert),
            Self::Ycsb(Ycsb::F) => (Kind::Get, 50, Kind::ReadModifyWrite),
            Self::Trace | Self::Check | Self::Load => return None,
        };
        Some(Mix { first, first_percent, rest })
    }

    /// Whether operations of this kind are among it.
    pub fn has(self, kind: Kind) -> bool {
        self.mix().is_some_and(|mix| mix.has(kind))
    }

    /// How keys are chosen, where the command line does not say.
    pub fn key_distribution(self) -> KeyDistribution {
        match self {
            Self::Ycsb(Ycsb::D) => KeyDistribution::LATEST,
            Self::Ycsb(Ycsb::A | Ycsb::B | Ycsb::C | Ycsb::E | Ycsb::F) => KeyDistribution::ZIPFIAN,
            Self::Put | Self::Get | Self::Append | Self::Delete | Self::Mixed(_) | Self::Cas | Self::Scan => {
                KeyDistribution::Uniform
            }
            Self::Trace | Self::Check | Self::Load => KeyDistribution::Uniform,
        }
    }
}

impl Mix {
    /// Whether operations of this kind occur.
    pub fn has(self, kind: Kind) -> bool {
        (self.first == kind && self.first_percent > 0) || (self.rest == kind && self.first_percent < 100)
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "put" => Ok(Self::Put),
            "get" => Ok(Self::Get),
            "append" => Ok(Self::Append),
            "delete" => Ok(Self::Delete),
            "cas" => Ok(Self::Cas),
            "scan" => Ok(Self::Scan),
            "ycsb-a" => Ok(Self::Ycsb(Ycsb::A)),
            "ycsb-b" => Ok(Self::Ycsb(Ycsb::B)),
            "ycsb-c" => Ok(Self::Ycsb(Ycsb::C)),
            "ycsb-d" => Ok(Self::Ycsb(Ycsb::D)),
            "ycsb-e" => Ok(Self::Ycsb(Ycsb::E)),
            "ycsb-f" => Ok(Self::Ycsb(Ycsb::F)),
            _ => match text.strip_prefix("mixed:") {
                Some(percent) => match percent.parse() {
                    Ok(percent @ 0..=100) => Ok(Self::Mixed(percent)),
                    Ok(_) | Err(_) => Err(format!("'{percent}' is not a percentage of reads, 0 to 100")),
                },
                None => Err(SPELLINGS.into()),
            },
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Append => "append",
            Self::Delete => "delete",
            Self::Mixed(percent) => return write!(f, "mixed:{percent}"),
            Self::Cas => "cas",
            Self::Scan => "scan",
            Self::Ycsb(Ycsb::A) => "ycsb-a",
            Self::Ycsb(Ycsb::B) => "ycsb-b",
            Self::Ycsb(Ycsb::C) => "ycsb-c",
            Self::Ycsb(Ycsb::D) => "ycsb-d",
            Self::Ycsb(Ycsb::E) => "ycsb-e",
            Self::Ycsb(Ycsb::F) => "ycsb-f",
            Self::Trace => "trace",
            Self::Check => "check",
            Self::Load => "load",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let all = [
            "put",
            "get",
            "append",
            "delete",
            "mixed:0",
            "mixed:100",
            "cas",
            "scan",
            "ycsb-a",
            "ycsb-b",
            "ycsb-c",
            "ycsb-d",
            "ycsb-e",
            "ycsb-f",
        ];
        for text in all {
            assert_eq!(text.parse::<Workload>().expect(text).to_string(), text);
        }
        for text in ["", "mixed", "mixed:", "mixed:101", "mixed:-1", "ycsb", "ycsb-g", "trace", "load", "Put"]
        {
            assert!(text.parse::<Workload>().is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_of_a_mix() {
        assert!(Workload::Mixed(0).has(Kind::Put) && !Workload::Mixed(0).has(Kind::Get));
        assert!(Workload::Mixed(100).has(Kind::Get) && !Workload::Mixed(100).has(Kind::Put));
        assert!(Workload::Ycsb(Ycsb::E).has(Kind::Scan) && Workload::Ycsb(Ycsb::E).has(Kind::Insert));
        assert!(!Workload::Check.has(Kind::Get));
    }
}
