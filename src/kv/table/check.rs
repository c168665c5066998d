//! Checks a section piece by piece: for whoever looks whether a table is still whole, and keeps nothing of
//! it.
//!
//! Invariant: what passes is what [`Section`] says it is, and would pass when it is read as a whole.

use super::error::{Part, TableError};
use super::footer::{Footer, Section};
use super::layout::{Checksum, verify, whole};

/// A section that is being checked.
pub struct SectionCheck {
    part: Part,
    section: Section,
    checksum: Checksum,
    /// The bytes that were taken.
    taken: u64,
}

impl SectionCheck {
    /// The sections of a table, none of which was looked at yet.
    #[must_use]
    pub fn all_of(footer: &Footer) -> [Self; 3] {
        let salt = footer.header.salt;
        let sections =
            [(Part::Sessions, footer.sessions), (Part::Filter, footer.filter), (Part::Index, footer.index)];
        sections.map(|(part, section)| Self {
            part,
            section,
            checksum: Checksum::new(salt, part, section.offset),
            taken: 0,
        })
    }

    /// Where the next piece is, and its bytes, at most so many. `None`: all of it was taken.
    #[must_use]
    pub fn next_piece(&self, bytes_max: usize) -> Option<(u64, usize)> {
        let left = usize::try_from(self.section.padded_length() - self.taken).unwrap_or(usize::MAX);
        (left > 0).then(|| (self.section.offset + self.taken, left.min(bytes_max)))
    }

    /// Takes a piece that [`Self::next_piece`] asked for, of `wanted` bytes.
    pub fn take(&mut self, wanted: usize, piece: &[u8]) -> Result<(), TableError> {
        whole(self.part, self.section.offset, wanted as u64, piece)?;
        self.checksum.update(piece);
        self.taken += piece.len() as u64;
        Ok(())
    }

    /// Says whether all that was taken is the section.
    pub fn finish(self) -> Result<(), TableError> {
        let Section { offset, checksum, .. } = self.section;
        let (wanted, taken) = (self.section.padded_length(), self.taken);
        assert!(taken == wanted, "{taken} bytes of {wanted} of the {} were looked at", self.part);
        verify(self.part, offset, checksum, self.checksum.value())
    }
}
