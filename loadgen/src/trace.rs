//! A trace of operations, read from a text file and kept whole.
//!
//! ```text
//! # what is skipped: lines that begin with #, and empty ones
//! get KEY
//! put KEY SIZE
//! append KEY SIZE
//! delete KEY
//! ```
//! Words are separated by spaces or tabs; a key is any bytes but those.
//!
//! Invariants: at most `LINES_MAX` operations and `KEY_BYTES_TOTAL_MAX` bytes of keys are kept, which is less
//! than 400 MiB; a line that cannot be read is named by its number, and nothing of its file is replayed.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use crate::args::VALUE_BYTES_MAX;
use crate::method::Method;

/// Most operations of a trace.
const LINES_MAX: usize = 10_000_000;
/// Most bytes of all keys of a trace.
const KEY_BYTES_TOTAL_MAX: usize = 256 << 20;
/// The largest key that distribKV takes.
const KEY_BYTES_MAX: usize = 4 << 10;
/// The longest line: a key, and room for the words around it.
const LINE_BYTES_MAX: u64 = KEY_BYTES_MAX as u64 + 1024;

const _: () = assert!(KEY_BYTES_TOTAL_MAX <= u32::MAX as usize && KEY_BYTES_MAX <= u16::MAX as usize);

/// Operations to be replayed.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Vec<Line>,
    /// The keys of all lines, one behind the other.
    keys: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    key_at: u32,
    size: u32,
    key_len: u16,
    method: Method,
}

/// Why a file is no trace.
#[derive(Debug)]
pub enum TraceError {
    /// It cannot be read.
    Io(io::Error),
    /// This line cannot be read, counted from 1.
    Line(u64, LineFault),
    /// It holds no operation.
    Empty,
    /// It holds more than is kept.
    TooLong,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// It is longer than any that can be right.
    TooLong,
    /// Its first word is no operation.
    Operation,
    /// The key is not there.
    NoKey,
    /// The key is longer than the store takes.
    KeyTooLong,
    /// The size is not there.
    NoSize,
    /// The size is no number of bytes that the store takes.
    Size,
    /// There is more on it.
    More,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Line(number, fault) => write!(f, "line {number}: {fault}"),
            Self::Empty => f.write_str("no operation is in it"),
            Self::TooLong => write!(
                f,
                "more than {LINES_MAX} operations, or {} MiB of keys, which is the most that is kept",
                KEY_BYTES_TOTAL_MAX >> 20
            ),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Line(..) | Self::Empty | Self::TooLong => None,
        }
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {LINE_BYTES_MAX} bytes"),
            Self::Operation => f.write_str("it does not begin with get, put, append or delete"),
            Self::NoKey => f.write_str("the key is missing"),
            Self::KeyTooLong => write!(f, "the key is longer than {KEY_BYTES_MAX} bytes"),
            Self::NoSize => f.write_str("the size is missing"),
            Self::Size => write!(f, "the size is no number from 0 to {VALUE_BYTES_MAX}"),
            Self::More => f.write_str("there is more on it than an operation takes"),
        }
    }
}

impl Trace {
    /// How many keys it names, as far as their checksums tell.
    pub fn distinct_keys(&self) -> u64 {
        let mut sums: Vec<u32> = (0..self.len()).map(|place| crc32fast::hash(self.key(place))).collect();
        sums.sort_unstable();
        sums.dedup();
        sums.len() as u64
    }

    /// The smallest value that it writes; without any the largest that there can be.
    pub fn size_min(&self) -> u32 {
        let writes = |method| [Method::Put, Method::Append].contains(&method);
        let sizes = self.lines.iter().filter(|line| writes(line.method)).map(|line| line.size);
        sizes.min().unwrap_or(VALUE_BYTES_MAX)
    }

    /// Reads a whole trace.
    pub fn read(file: impl Read) -> Result<Self, TraceError> {
        let (mut reader, mut trace) = (BufReader::new(file), Self::default());
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            number += 1;
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if read.map_err(TraceError::Io)? == 0 {
                break;
            }
            if line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
                return Err(TraceError::Line(number, LineFault::TooLong));
            }
            trace.take(&line, number)?;
        }
        trace.lines.shrink_to_fit();
        if trace.lines.is_empty() { Err(TraceError::Empty) } else { Ok(trace) }
    }

    /// Takes one line.
    fn take(&mut self, line: &[u8], number: u64) -> Result<(), TraceError> {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(operation) = words.next().filter(|word| word[0] != b'#') else { return Ok(()) };
        let (method, key, size) =
            operation_of(operation, words).map_err(|fault| TraceError::Line(number, fault))?;
        if self.lines.len() == LINES_MAX || self.keys.len() + key.len() > KEY_BYTES_TOTAL_MAX {
            return Err(TraceError::TooLong);
        }
        let (key_at, key_len) = (self.keys.len() as u32, key.len() as u16);
        self.keys.extend_from_slice(key);
        self.lines.push(Line { key_at, size, key_len, method });
        Ok(())
    }

    /// How many operations it has; at least one.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// What operation number `place` does: its method, and the size of its value.
    pub fn operation(&self, place: usize) -> (Method, u32) {
        (self.lines[place].method, self.lines[place].size)
    }

    /// The key of operation number `place`.
    pub fn key(&self, place: usize) -> &[u8] {
        let line = self.lines[place];
        &self.keys[line.key_at as usize..][..usize::from(line.key_len)]
    }

    /// Whether any operation is of this method.
    pub fn has(&self, method: Method) -> bool {
        self.lines.iter().any(|line| line.method == method)
    }

    /// The largest value that is written.
    pub fn size_max(&self) -> u32 {
        self.lines.iter().map(|line| line.size).max().unwrap_or(0)
    }
}

/// Reads an operation, whose first word is known.
fn operation_of<'a>(
    operation: &[u8],
    mut words: impl Iterator<Item = &'a [u8]>,
) -> Result<(Method, &'a [u8], u32), LineFault> {
    let (method, has_size) = match operation {
        b"get" => (Method::Get, false),
        b"put" => (Method::Put, true),
        b"append" => (Method::Append, true),
        b"delete" => (Method::Delete, false),
        _ => return Err(LineFault::Operation),
    };
    let key = words.next().ok_or(LineFault::NoKey)?;
    if key.len() > KEY_BYTES_MAX {
        return Err(LineFault::KeyTooLong);
    }
    let size = if has_size { size_of(words.next().ok_or(LineFault::NoSize)?)? } else { 0 };
    if words.next().is_some() { Err(LineFault::More) } else { Ok((method, key, size)) }
}

fn size_of(word: &[u8]) -> Result<u32, LineFault> {
    let size = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
    size.filter(|size| *size <= VALUE_BYTES_MAX).ok_or(LineFault::Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read() {
        let begin = b"# a trace\n\nget a\nput  key-2\t256\r\n  append \xff\xfe 0\n#put x\n";
        let text = [&begin[..], b"delete a#b\nput last 1048576"].concat();
        let trace = Trace::read(&text[..]).expect("a good trace");
        let lines: Vec<_> =
            (0..trace.len()).map(|place| (trace.operation(place), trace.key(place))).collect();
        let want: [((Method, u32), &[u8]); 5] = [
            ((Method::Get, 0), b"a"),
            ((Method::Put, 256), b"key-2"),
            ((Method::Append, 0), b"\xff\xfe"),
            ((Method::Delete, 0), b"a#b"),
            ((Method::Put, 1 << 20), b"last"),
        ];
        assert_eq!(lines, want);
        assert!(trace.has(Method::Append) && !trace.has(Method::Scan));
        assert_eq!(trace.size_max(), 1 << 20);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let fault = |line: &[u8]| {
            let text = [b"get a\n# two\n", line, b"\nget b\n"].concat();
            match Trace::read(&text[..]) {
                Err(TraceError::Line(3, fault)) => fault,
                other => {
                    panic!("{:?} of {:?}", other.map(|trace| trace.len()), line.escape_ascii().to_string())
                }
            }
        };
        assert_eq!(fault(b"scan a"), LineFault::Operation);
        assert_eq!(fault(b"GET a"), LineFault::Operation);
        assert_eq!(fault(b"get"), LineFault::NoKey);
        assert_eq!(fault(b"put k"), LineFault::NoSize);
        for line in [&b"put k x"[..], b"put k -1", b"put k 1048577", b"append k 1e3", b"put k \xff"] {
            assert_eq!(fault(line), LineFault::Size);
        }
        assert_eq!(fault(b"get a 1"), LineFault::More);
        assert_eq!(fault(b"put a 1 1"), LineFault::More);
        let key = vec![b'k'; KEY_BYTES_MAX + 1];
        assert_eq!(fault(&[b"get ", &key[..]].concat()), LineFault::KeyTooLong);
        assert_eq!(fault(&vec![b'x'; 3 * LINE_BYTES_MAX as usize]), LineFault::TooLong);
        let error = Trace::read(&b"get\n"[..]).expect_err("no key");
        assert_eq!(error.to_string(), "line 1: the key is missing");
    }

    #[test]
    fn the_longest_key_fits_and_nothing_is_no_trace() {
        let key = vec![b'k'; KEY_BYTES_MAX];
        let trace = Trace::read(&[b"put ", &key[..], b" 1048576\n"].concat()[..]).expect("it fits");
        assert_eq!(trace.key(0).len(), KEY_BYTES_MAX);
        assert!(matches!(Trace::read(&b"# nothing\n\n"[..]), Err(TraceError::Empty)));
    }
}
