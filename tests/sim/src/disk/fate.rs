//! What becomes of a sector whose write nothing waited for: lost, kept or torn.
//!
//! Enumerated choices decide each sector by itself. Drawn choices first take a mood for the file, since
//! sectors that all toss their own coin would next to never all be lost, all be kept, or be kept up to a
//! point, which is what disks mostly do.

use super::contents::SECTOR_BYTES;
use crate::random::{Choices, mix};

/// What a power cut leaves in a sector that torn writes may spoil.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tearing {
    /// What was there before or what was written: sectors are atomic.
    #[default]
    Sectors,
    /// Also bytes that nobody ever wrote.
    Garbage,
}

/// What a power cut makes of a cached sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The durable bytes stay.
    Lost,
    /// A cached version stays: 0 the newest, 1 the one before, and so on.
    Kept(usize),
    /// Neither.
    Garbage(Box<[u8; SECTOR_BYTES]>),
}

/// What the sectors of one file have in common, where choices are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Each,
    Lost,
    Kept,
    /// Kept up to a sector, lost from there on.
    Prefix,
}

/// Decides sector by sector.
pub(super) struct Fates<'a> {
    choices: &'a Choices,
    tearing: Tearing,
    /// Neighbours in such a unit share their fate.
    unit_sectors: u64,
    mood: Mood,
    /// The unit that was decided last, and how.
    last: Option<(u64, usize)>,
}

impl<'a> Fates<'a> {
    /// For one crash. Neighbours in units of so many sectors share their fate.
    pub(super) fn new(choices: &'a Choices, tearing: Tearing, unit_sectors: u64) -> Self {
        assert!(unit_sectors > 0, "a unit of {unit_sectors} sectors");
        Self { choices, tearing, unit_sectors, mood: Mood::Each, last: None }
    }

    /// One of so many answers.
    pub(super) fn choose(&self, count: usize) -> usize {
        self.choices.choose(count)
    }

    /// Which of a file's lengths stays: 0 the durable one.
    pub(super) fn length(&self, count: usize) -> usize {
        self.choices.choose(count)
    }

    /// The sectors that follow are of another file, or of another write.
    pub(super) fn begin_file(&mut self) {
        self.last = None;
        if self.choices.is_random() {
            self.mood =
                [Mood::Each, Mood::Each, Mood::Lost, Mood::Kept, Mood::Prefix][self.choices.choose(5)];
        }
    }

    /// The fate of a sector that has so many cached versions. Sectors come in rising order.
    pub(super) fn sector(&mut self, sector: u64, versions: usize) -> Fate {
        assert!(versions > 0, "sector {sector} has nothing to lose");
        let unit = sector / self.unit_sectors;
        let decided = match self.last {
            Some((last, decided)) if last == unit => decided,
            Some(_) | None => self.decide(versions),
        };
        self.last = Some((unit, decided));
        match decided {
            0 => Fate::Lost,
            kept if kept <= versions => Fate::Kept(kept - 1),
            _ if self.tearing == Tearing::Garbage => Fate::Garbage(garbage(sector)),
            // A neighbour of the same unit had more versions: the oldest stands for those.
            _ => Fate::Kept(versions - 1),
        }
    }

    /// Whether a sector of a single write lands.
    pub(super) fn lands(&mut self, sector: u64) -> bool {
        self.sector(sector, 1) != Fate::Lost
    }

    /// 0 lost, n the n-th newest version, one more than there are: garbage, where there is any.
    fn decide(&mut self, versions: usize) -> usize {
        match (self.mood, self.last) {
            (Mood::Lost, _) | (Mood::Prefix, Some((_, 0))) => 0,
            (Mood::Kept, _) => 1,
            (Mood::Prefix, _) => usize::from(self.choices.choose(4) > 0),
            (Mood::Each, _) => {
                let torn = usize::from(self.tearing == Tearing::Garbage);
                self.choices.choose(1 + versions + torn)
            }
        }
    }
}

/// Bytes that nobody wrote: the same for the same sector.
fn garbage(sector: u64) -> Box<[u8; SECTOR_BYTES]> {
    let mut bytes = Box::new([0; SECTOR_BYTES]);
    for (number, chunk) in bytes.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(mix(sector + 1) ^ number as u64).to_le_bytes());
    }
    bytes
}
