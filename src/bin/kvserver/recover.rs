//! What is said of a node whose data directory was lost, and of the command that brings it back.

use std::borrow::Cow;

use distribkv::host::exit::Exit;
use distribkv::log::{Identity, RecoveredAt};

/// The flag that is left out of it: that of `kvserver local`, whose process is not there any more.
const LEFT_OUT: &str = "die-with-parent";
/// The flag that is added to it.
const RECOVER: &str = "recover";

/// What the process says where it ends with this, with the command where that may be the way out.
pub fn said(exit: &Exit) -> String {
    if exit.asks_for_recovery() {
        let own = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        format!("{exit}. The command, where the directory is lost for good: {}", command(own))
    } else {
        exit.to_string()
    }
}

/// Says what a recovered directory is in for, and where the flag was not needed.
pub fn tell(asked: Option<RecoveredAt>, identity: &Identity) {
    if !identity.is_recovered() {
        return;
    }
    match (asked, identity.entitled) {
        (_, false) => tracing::warn!(
            "recovering: this node neither votes nor acknowledges until enough others have noted its \
             directory and told it their terms"
        ),
        (Some(_), true) => tracing::info!("recovered before: --recover is needed for one start only"),
        (None, true) => {}
    }
}

/// The command line that this process was started with, as one that recovers its node.
fn command(own: impl Iterator<Item = String>) -> String {
    let is_flag = |word: &String, flag| {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        name.starts_with('-') && name.trim_start_matches('-') == flag
    };
    let words = own.filter(|word| !is_flag(word, LEFT_OUT) && !is_flag(word, RECOVER));
    let words: Vec<String> = words.map(|word| quoted(&word).into_owned()).collect();
    words.join(" ") + " --" + RECOVER
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,=+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command_of(words: &[&str]) -> String {
        command(words.iter().map(ToString::to_string))
    }

    #[test]
    fn it_is_the_own_command_with_one_flag_more() {
        assert_eq!(
            command_of(&["./kvserver", "--id", "3", "--peers", "a:1,b:2,c:3", "--data-dir", "/my data/it's"]),
            "./kvserver --id 3 --peers a:1,b:2,c:3 --data-dir '/my data/it'\\''s' --recover"
        );
        assert_eq!(command_of(&["kvserver", "--die-with-parent=7", "-recover"]), "kvserver --recover");
        assert_eq!(command_of(&["kvserver", ""]), "kvserver '' --recover");
    }
}
