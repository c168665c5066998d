//! A small file that is kept twice: a lane's manifest, a node's identity. This is format version 1; later
//! versions read it.
//!
//! ```text
//!  0       4        6      8            16       20         24
//!  ├ magic ┼ format ┼ kind ┼ generation ┼ length ┼ checksum ┼ payload ┼ zeros to the end of the block
//! ```
//!
//! A change writes copy a, then copy b, each to a new file that is synced and renamed over the old one, the
//! directory synced after it. The change takes effect when both are durable.
//!
//! Why a crash is safe at any point: a name always leads to a whole copy, the old or the new one. Before the
//! first rename nothing has happened. Between the two, copy a says what the change says and copy b what was
//! before; opening takes the newer one, and nobody has acted on either choice. A write of a killed process
//! that is still on its way lands in a file that has no name any more. So a copy that cannot be read is never
//! the work of a crash: it is damage, and it is reported.
//!
//! Invariants:
//! - Generations only grow; a change that failed never shares its generation with another.
//! - A payload is bounded, block-aligned and checksummed.
//! - Opening changes nothing.
//!
//! It lives on the core that owns its directory. It deliberately does not know what it holds.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::env::{Env, File, OpenMode};

use super::codec::{Source, block_padded, put_u32, put_u64};
use super::error::{Damage, DamageKind, Doing, LogFailure, OpenError};

/// The longest payload.
pub const TWIN_BYTES_MAX: usize = 4 << 20;

/// The version of a copy.
pub const FORMAT: u16 = 1;

const MAGIC: u32 = u32::from_le_bytes(*b"dKVt");
const HEADER_BYTES: usize = 24;
const CHECKSUM_AT: usize = 20;

/// What a twin file holds; also the first part of its copies' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwinKind {
    /// A lane's manifest: `manifest-a`, `manifest-b`.
    Manifest,
    /// A node's identity: `identity-a`, `identity-b`.
    Identity,
}

impl TwinKind {
    fn number(self) -> u16 {
        match self {
            Self::Manifest => 1,
            Self::Identity => 2,
        }
    }

    /// The names of the two copies.
    #[must_use]
    pub fn names(self) -> [&'static str; 2] {
        match self {
            Self::Manifest => ["manifest-a", "manifest-b"],
            Self::Identity => ["identity-a", "identity-b"],
        }
    }
}

/// What was found of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Whole.
    Intact {
        /// Its generation.
        generation: u64,
    },
    /// No such file.
    Missing,
    /// There, but not whole.
    Damaged,
    /// The disk failed to read it.
    Unreadable,
}

/// What was found of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwinReport {
    /// Copies a and b.
    pub copies: [CopyState; 2],
}

impl TwinReport {
    /// Whether both are whole and say the same.
    #[must_use]
    pub fn agree(&self) -> bool {
        use CopyState::Intact;
        matches!(self.copies, [Intact { generation: a }, Intact { generation: b }] if a == b)
    }

    /// Whether there is neither: nothing was ever written, or both are gone.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.copies == [CopyState::Missing; 2]
    }

    /// Whether a copy is lost: a crash may leave one copy older or not made yet, but never damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.copies.iter().any(|copy| matches!(copy, CopyState::Damaged | CopyState::Unreadable))
    }
}

/// How many of the copies a change is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Both, as it must be.
    Both,
    /// One: a planted bug.
    #[cfg(debug_assertions)]
    One,
    /// One or the other in turns, and the older one is read: a planted bug.
    #[cfg(debug_assertions)]
    OldWins,
    /// Both, and the directory is not synced: a planted bug.
    #[cfg(debug_assertions)]
    Unsynced,
}

impl Copies {
    /// Whether the newer of two whole copies is read.
    fn newest_wins(self) -> bool {
        match self {
            Self::Both => true,
            #[cfg(debug_assertions)]
            Self::One | Self::Unsynced => true,
            #[cfg(debug_assertions)]
            Self::OldWins => false,
        }
    }

    /// Whether the change of this generation is written to the copy at this place.
    fn has(self, place: usize, generation: u64) -> bool {
        // Only planted mistakes ask for them.
        let _ = (place, generation);
        match self {
            Self::Both => true,
            #[cfg(debug_assertions)]
            Self::Unsynced => true,
            #[cfg(debug_assertions)]
            Self::One => place == 0,
            #[cfg(debug_assertions)]
            Self::OldWins => place as u64 == generation % 2,
        }
    }

    /// Whether the directory is synced after a copy was renamed.
    fn is_synced(self) -> bool {
        match self {
            Self::Both => true,
            #[cfg(debug_assertions)]
            Self::One | Self::OldWins => true,
            #[cfg(debug_assertions)]
            Self::Unsynced => false,
        }
    }
}

/// A file that is kept twice.
#[derive(Debug)]
pub struct TwinFile<E: Env> {
    env: E,
    dir: PathBuf,
    kind: TwinKind,
    generation: u64,
}

struct Found {
    state: CopyState,
    payload: Vec<u8>,
}

impl<E: Env> TwinFile<E> {
    /// Looks at both copies, and takes the newest whole one. `None`: there is neither.
    pub async fn open(
        env: E,
        dir: &Path,
        (kind, copies): (TwinKind, Copies),
    ) -> Result<(Self, Option<Vec<u8>>, TwinReport), OpenError> {
        let [name_a, name_b] = kind.names();
        let a = read_copy(&env, &dir.join(name_a), kind).await?;
        let b = read_copy(&env, &dir.join(name_b), kind).await?;
        let report = TwinReport { copies: [a.state, b.state] };
        let damage = |kind| OpenError::Damaged(Damage { file: dir.join(name_a), offset: 0, kind });
        let (generation, payload) = match report.copies {
            [CopyState::Intact { generation }, CopyState::Intact { generation: other }] => {
                if generation == other && a.payload != b.payload {
                    return Err(damage(DamageKind::CopiesDisagree));
                }
                let is_first = (generation >= other) == copies.newest_wins();
                (generation.max(other), Some(if is_first { a.payload } else { b.payload }))
            }
            [CopyState::Intact { generation }, _] => (generation, Some(a.payload)),
            [_, CopyState::Intact { generation }] => (generation, Some(b.payload)),
            [CopyState::Missing, CopyState::Missing] => (0, None),
            [_, _] => return Err(damage(DamageKind::Copies)),
        };
        Ok((Self { env, dir: dir.to_path_buf(), kind, generation }, payload, report))
    }

    /// The environment that it is kept in.
    pub fn env(&self) -> &E {
        &self.env
    }

    /// Makes a change: when this returns, both copies are durable. After an error the change may or may not
    /// be there.
    pub async fn write(&mut self, payload: &[u8], copies: Copies) -> Result<(), LogFailure> {
        let len = payload.len();
        assert!(len <= TWIN_BYTES_MAX, "a payload of {len} bytes is above {TWIN_BYTES_MAX}");
        self.generation = self.generation.checked_add(1).expect("generations are counted up one by one");
        let buf = Rc::new(self.encoded(payload));
        for (place, name) in self.kind.names().into_iter().enumerate() {
            if !copies.has(place, self.generation) {
                continue;
            }
            let path = self.dir.join(name);
            let fresh = self.dir.join(format!("{name}.new"));
            let failed = |source| LogFailure::new(Doing::WriteCopy, &path, source);
            self.replace(&path, &fresh, &buf).await.map_err(failed)?;
            if copies.is_synced() {
                self.env.sync_dir(&self.dir).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    async fn replace(&self, path: &Path, fresh: &Path, buf: &Rc<E::Buf>) -> io::Result<()> {
        match self.env.remove(fresh).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = self.env.open(fresh, OpenMode::Create).await?;
        file.write_at(Rc::clone(buf), 0).await?;
        file.sync().await?;
        file.close().await?;
        self.env.rename(fresh, path).await
    }

    fn encoded(&self, payload: &[u8]) -> E::Buf {
        let mut buf = self.env.buf(block_padded(HEADER_BYTES + payload.len()));
        let out = buf.as_mut();
        let length = u32::try_from(payload.len()).expect("it was compared with TWIN_BYTES_MAX");
        put_u32(out, 0, MAGIC);
        put_u32(out, 4, u32::from(FORMAT) | u32::from(self.kind.number()) << 16);
        put_u64(out, 8, self.generation);
        put_u32(out, 16, length);
        out[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let sum = checksum(&out[..CHECKSUM_AT], payload);
        put_u32(out, CHECKSUM_AT, sum);
        buf
    }
}

async fn read_copy<E: Env>(env: &E, path: &Path, kind: TwinKind) -> Result<Found, OpenError> {
    let nothing = |state| Ok(Found { state, payload: Vec::new() });
    let bytes = match read_whole(env, path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return nothing(CopyState::Missing),
        Err(_) => return nothing(CopyState::Unreadable),
    };
    match decode(&bytes, kind) {
        Some(Copy { format: FORMAT, generation, payload }) => {
            Ok(Found { state: CopyState::Intact { generation }, payload: payload.to_vec() })
        }
        Some(Copy { format, .. }) => {
            Err(OpenError::Format { file: path.to_path_buf(), found: format, known: FORMAT })
        }
        None => nothing(CopyState::Damaged),
    }
}

async fn read_whole<E: Env>(env: &E, path: &Path) -> io::Result<Vec<u8>> {
    let file = env.open(path, OpenMode::Read).await?;
    let most = block_padded(HEADER_BYTES + TWIN_BYTES_MAX) as u64;
    let len = usize::try_from(file.len().await?.min(most)).unwrap_or(usize::MAX);
    let bytes = file.read_at(0, len).await?;
    file.close().await?;
    Ok(bytes)
}

/// A whole copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy<'a> {
    /// Its version: only of [`FORMAT`] is the payload what is drawn here.
    pub format: u16,
    /// Its generation.
    pub generation: u64,
    /// What it holds.
    pub payload: &'a [u8],
}

/// Reads a copy from the bytes of its file; `None` where it is not whole, or not of this kind.
#[must_use]
pub fn decode(bytes: &[u8], kind: TwinKind) -> Option<Copy<'_>> {
    let mut fields = Source::new(bytes);
    let magic = fields.u32()?;
    let format_and_kind = fields.u32()?;
    let generation = fields.u64()?;
    let length = fields.u32()?;
    let stored = fields.u32()?;
    let payload = fields.take(length as usize)?;
    let right = magic == MAGIC
        && format_and_kind >> 16 == u32::from(kind.number())
        && stored == checksum(bytes.get(..CHECKSUM_AT)?, payload);
    let format = u16::try_from(format_and_kind & 0xFFFF).ok()?;
    right.then_some(Copy { format, generation, payload })
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}
