//! What the two health test tools share: their log lines and the way they take flags.

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::time::SystemTime;

use distribkv::env::os::time::LocalTime;

/// Writes log lines: `[test-server] 2026/01/22 12:32:49 text`, to standard output.
pub struct Log {
    /// What stands between the brackets.
    pub name: &'static str,
}

impl Log {
    /// Writes one line. Where standard output is closed there is nobody to tell.
    pub fn line(&self, text: impl fmt::Display) {
        let now = LocalTime::at(SystemTime::now());
        let mut out = std::io::stdout().lock();
        let written = writeln!(out, "[{}] {now} {text}", self.name);
        written.and_then(|()| out.flush()).ok();
    }
}

/// The arguments, with `-port` written as `--port`: long flags are understood with one dash or two.
pub fn long_flags(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    args.map(|arg| match arg.to_str() {
        Some(text) if is_long_with_one_dash(text) => OsString::from(format!("-{text}")),
        _ => arg,
    })
}

/// Whether it is a dash and a word of two letters or more.
fn is_long_with_one_dash(text: &str) -> bool {
    let Some(word) = text.strip_prefix('-') else { return false };
    word.len() >= 2 && word.starts_with(|first: char| first.is_ascii_lowercase())
}
