//! Flags in the form of Go's `flag` package, `-id 1`, as clap's `--id 1`.

use std::ffi::OsString;

use clap::Command;

/// Gives every argument that is one dash and the name of a long flag of `command` (or of one of its
/// subcommands) its second dash: `-id 1` and `-id=1` mean `--id 1` and `--id=1`. What follows `--` is left
/// alone.
pub fn with_two_dashes(args: impl IntoIterator<Item = OsString>, command: &Command) -> Vec<OsString> {
    let mut is_over = false;
    args.into_iter()
        .map(|arg| {
            is_over |= arg == "--";
            match arg.to_str() {
                Some(text) if !is_over && is_long_name(text, command) => OsString::from(format!("-{text}")),
                Some(_) | None => arg,
            }
        })
        .collect()
}

/// Whether this is one dash and the name of a long flag.
fn is_long_name(arg: &str, command: &Command) -> bool {
    let Some(name) = arg.strip_prefix('-').filter(|name| name.len() > 1 && !name.starts_with('-')) else {
        return false;
    };
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    let knows = |command: &Command| command.get_arguments().any(|known| known.get_long() == Some(name));
    ["help", "version"].contains(&name) || knows(command) || command.get_subcommands().any(knows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn the_listed_flags_get_their_second_dash() {
        let command = Command::new("x").arg(Arg::new("id").long("id")).arg(Arg::new("quiet").short('q'));
        let given = ["x", "-id", "1", "-id=2", "-q", "--id", "-other", "--", "-id"];
        let expected = ["x", "--id", "1", "--id=2", "-q", "--id", "-other", "--", "-id"];
        let rewritten = with_two_dashes(given.map(OsString::from), &command);
        assert_eq!(rewritten, expected.map(OsString::from));
    }
}
