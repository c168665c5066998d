//! What a person would otherwise have to watch in every review: the shape of the code, the layers, the purity
//! of the pure modules, the tidiness of the repository. Each rule is one test and names every place that
//! breaks it.
//!
//! The source is read as text, without a parser: [`Source`] tells code from comments and literals, and
//! rustfmt's indentation (which is a rule itself) tells where functions and blocks end. Every rule's reader
//! is tested on a snippet that breaks the rule, so that no rule passes because it sees nothing.
//!
//! Test code is what lies in `tests/` and `benches/`, in a module under `#[cfg(test)]` (in its own file or
//! not) and in functions under `#[test]` or `#[cfg(test)]`. The rules on form hold for it too, but for
//! nesting; those on what code may use do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use source::{Found, Source, has_word, indent_of, text_of, words};

#[path = "tidy/source.rs"]
mod source;

/// Most lines of a file.
const FILE_LINES_MAX: usize = 800;
/// Most lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Most characters of a line.
const LINE_CHARS_MAX: usize = 110;
/// Most control-flow blocks around a line of a function; see [`control_depths`].
const NESTING_MAX: usize = 3;

/// The modules that each module of `src/` may name. The binaries name everything.
const LAYERS: [(&str, &[&str]); 16] = [
    ("ids", &[]),
    ("raft", &["ids"]),
    ("kv", &["ids"]),
    ("env", &["ids"]),
    ("wire", &[]),
    ("config", &["ids"]),
    ("flags", &[]),
    ("log", &["ids", "raft", "env"]),
    ("route", &["ids", "raft", "kv"]),
    ("shard", &["ids", "raft", "kv", "log", "route", "env", "config"]),
    ("host", &["ids", "raft", "kv", "log", "route", "shard", "env", "config"]),
    ("inspect", &["ids", "raft", "kv", "log", "env"]),
    ("http2", &[]),
    ("edge", &["ids", "kv", "route", "shard", "wire", "env", "config", "http2"]),
    ("client", &["ids", "route", "wire"]),
    ("tune", &["config"]),
];
/// The modules that are pure as a whole; codecs are pure wherever they lie.
const PURE: [&str; 6] = ["src/ids.rs", "src/raft/", "src/kv/", "src/route/", "src/tune/", "src/http2/"];
/// The crates that pure code may use.
const PURE_CRATES: [&str; 7] = ["std", "core", "alloc", "bytes", "crc32fast", "hashbrown", "xxhash_rust"];
/// What pure code may not take from the standard library.
const IMPURE_PATHS: &str =
    "std::env std::fs std::net std::os std::process std::thread std::time::Instant std::time::SystemTime";
/// Words that pure code may not hold.
const IMPURE_WORDS: [&str; 4] = ["HashMap", "HashSet", "async", "await"];
/// The ways to read a clock.
const CLOCKS: [&str; 3] = ["Instant::now", "SystemTime", "std::time::Instant"];
/// Where a clock may be read: below the seam, and where no simulator goes.
const CLOCK_PLACES: [&str; 4] = ["src/env/", "src/client/", "src/bin/", "loadgen/"];
/// What the top level of the repository holds, beside dotfiles.
const TOP_LEVEL: &str =
    "Cargo.toml Cargo.lock src proto benches loadgen tests tuning README.md AGENTS.md LICENSE";
/// What may lie there beside, as git leaves it out.
const TOP_LEVEL_IGNORED: [&str; 2] = ["target", "data"];
/// Where sources lie.
const SOURCE_DIRS: [&str; 4] = ["src", "loadgen", "tests", "benches"];

// ---- the rules ----

#[test]
fn files_are_short() {
    check("a file has at most 800 lines: split it by what its parts do", |source, found| {
        if source.lines.len() > FILE_LINES_MAX {
            found.push((source.lines.len(), "the last line of the file".into()));
        }
    });
}

#[test]
fn functions_are_short() {
    check("a function has at most 70 lines: split it by what it does", long_functions);
}

#[test]
fn lines_are_short() {
    check("a line has at most 110 characters", |source, found| {
        for (number, line) in source.numbered(&source.lines) {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX {
                found.push((number, format!("{chars} characters")));
            }
        }
    });
}

#[test]
fn nesting_is_shallow() {
    check("control flow nests at most 3 deep: move the inside into a function, or return early", deep_lines);
}

#[test]
fn nothing_is_unwrapped() {
    check("no unwrap outside tests: a Result, or an expect that says why it cannot fail", |source, found| {
        source.find(".unwrap()", found);
    });
}

#[test]
fn unsafe_is_in_its_place() {
    check("unsafe lies in src/env/os/ alone", |source, found| {
        if !source.path.starts_with("src/env/os/") {
            found.extend(
                source.numbered(&source.code).filter(|(_, line)| has_word(line, "unsafe")).map(text_of),
            );
        }
    });
}

#[test]
fn clocks_are_behind_the_seam() {
    check("nobody reads a clock outside src/env: time is an argument", read_clocks);
}

#[test]
fn pure_modules_are_pure() {
    let manifest = read(&root().join("Cargo.toml"));
    let crates = dependencies(&manifest);
    assert!(crates.contains("bytes") && crates.contains("tokio"), "the dependencies are read: {crates:?}");
    check("raft, kv, route and codecs are pure: see LAYERS, PURE and IMPURE here", |source, found| {
        impurities(source, &crates, found);
    });
}

#[test]
fn layers_point_down() {
    check("imports point down: see LAYERS here", climbs);
}

#[test]
fn files_say_what_they_are() {
    check(
        "a file starts with `//!`: what it is, what it guarantees, what it does not do",
        |source, found| {
            if !source.lines.first().is_some_and(|line| line.starts_with("//!")) {
                found.push((1, "no module documentation".into()));
            }
        },
    );
}

#[test]
fn nothing_is_left_to_do() {
    check_texts("what is left to do lies in the issues", |source, found| {
        for mark in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
            let marked = source.numbered(&source.lines).filter(|(_, line)| has_word(line, mark));
            found.extend(marked.map(text_of));
        }
    });
}

#[test]
fn comments_name_no_tasks() {
    check_texts(
        "comments say why, not which task it was; another project's issue is written project#number",
        tasks,
    );
}

#[test]
fn the_top_level_is_in_order() {
    let names = list(&root());
    let strange: Vec<_> = names.iter().filter(|name| !is_top_level(name)).collect();
    assert!(strange.is_empty(), "the top level holds what it should not: {strange:?}; allowed: {TOP_LEVEL}");
    let ignored = read(&root().join(".gitignore"));
    for name in TOP_LEVEL_IGNORED {
        assert!(ignored.lines().any(|line| line == format!("/{name}")), "git has to ignore /{name}");
    }
}

#[test]
fn the_code_is_formatted() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = Command::new(cargo).args(["fmt", "--all", "--check"]).current_dir(root()).output();
    let output = run.expect("cargo can be run, since it runs this test");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "run `cargo fmt --all`:\n{said}");
}

// ---- how rules are held ----
// are held

/// Holds a rule against every Rust file.
fn check(rule: &str, find: impl Fn(&Source, &mut Found)) {
    report(rule, &rust_sources(), find);
}

/// Holds a rule against every text file: Rust, and what else people write.
fn check_texts(rule: &str, find: impl Fn(&Source, &mut Found)) {
    let mut sources = rust_sources();
    let mut paths: Vec<PathBuf> = Vec::new();
    for dir in [".", "src", "proto", "loadgen", "tests", "tuning", "benches"] {
        files_below(&root().join(dir), dir == ".", &mut paths);
    }
    for path in paths {
        let is_text =
            path.extension().is_some_and(|e| ["md", "toml", "proto", "sh"].iter().any(|text| e == *text));
        if is_text && path.is_file() {
            sources.push(Source::of_plain(&relative(&path), &read(&path)));
        }
    }
    report(rule, &sources, find);
}

fn report(rule: &str, sources: &[Source], find: impl Fn(&Source, &mut Found)) {
    assert!(sources.len() > 10, "only {} files were found to check", sources.len());
    let mut all = String::new();
    for source in sources {
        let mut found = Found::new();
        find(source, &mut found);
        for (line, what) in found {
            writeln!(all, "  {}:{line}: {what}", source.path).expect("a string takes it all");
        }
    }
    assert!(all.is_empty(), "{rule}\n{all}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn list(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Every file below a directory, in order; with `only_here`, none of its directories'.
fn files_below(dir: &Path, only_here: bool, files: &mut Vec<PathBuf>) {
    if !dir.is_dir() {
        return;
    }
    for name in list(dir) {
        let path = dir.join(&name);
        if path.is_file() {
            files.push(path);
        } else if !only_here && name != "target" {
            files_below(&path, only_here, files);
        }
    }
}

/// A path below the root, with slashes.
fn relative(path: &Path) -> String {
    let below = path.strip_prefix(root()).expect("it was found below the root");
    below.to_string_lossy().trim_start_matches("./").to_owned()
}

fn rust_sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for dir in SOURCE_DIRS {
        files_below(&root().join(dir), false, &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut sources: Vec<Source> =
        paths.iter().map(|path| Source::of_rust(&relative(path), &read(path))).collect();
    let tests: Vec<String> = sources.iter().flat_map(Source::test_files).collect();
    for source in &mut sources {
        if tests
            .iter()
            .any(|test| source.path == format!("{test}.rs") || source.path.starts_with(&format!("{test}/")))
        {
            source.in_test.fill(true);
        }
    }
    sources
}

// ---- the form of code ----
// of code

/// The functions of a file: the indices of their first and last line.
fn functions(source: &Source) -> Vec<(usize, usize)> {
    let code = &source.code;
    let mut functions = Vec::new();
    for start in (0..code.len()).filter(|i| declares_function(&code[*i])) {
        let signature_end = (start..code.len()).find(|i| code[*i].ends_with(['{', ';', '}']));
        let Some(open) = signature_end.filter(|i| code[*i].ends_with('{')) else { continue };
        let close = format!("{}}}", " ".repeat(indent_of(&code[start])));
        if let Some(end) = (open + 1..code.len()).find(|i| code[*i] == close) {
            functions.push((start, end));
        }
    }
    functions
}

fn declares_function(line: &str) -> bool {
    let mut words = words(line.trim_start());
    let qualifiers = ["pub", "crate", "super", "in", "default", "const", "async", "unsafe", "extern", "safe"];
    let starts_a_word = line.trim_start().starts_with(char::is_alphabetic);
    starts_a_word && words.find(|word| !qualifiers.contains(word)) == Some("fn") && !line.contains("fn(")
}

fn long_functions(source: &Source, found: &mut Found) {
    for (start, end) in functions(source) {
        let lines = end - start + 1;
        if lines > FUNCTION_LINES_MAX {
            found.push((start + 1, format!("{lines} lines: {}", source.code[start].trim())));
        }
    }
}

fn deep_lines(source: &Source, found: &mut Found) {
    for (start, end) in functions(source) {
        if source.in_test[start] {
            continue;
        }
        let depths = control_depths(&source.code[start..=end]);
        // The first line of a block that is too deep stands for all of it.
        let opens = |i: &usize| depths[*i] > NESTING_MAX && depths[i - 1] <= NESTING_MAX;
        found.extend(
            (1..depths.len())
                .filter(opens)
                .map(|i| (start + i + 1, source.code[start + i].trim().to_owned())),
        );
    }
}

/// How many control-flow blocks each line of a function lies in.
///
/// A block counts if `if`, `else`, `match`, `for`, `while` or `loop` opens it; an `else` counts as the `if`
/// before it, a `let … else` and the braces of a match arm do not count, nor do closures and async blocks by
/// themselves. A block is opened by a line that ends in `{`; where the condition takes several lines, by the
/// line of the same indentation that ends in `{`. It ends at the brace of the same indentation.
fn control_depths(code: &[String]) -> Vec<usize> {
    let mut open: Vec<usize> = Vec::new();
    let mut begun: BTreeSet<usize> = BTreeSet::new();
    let mut depths = Vec::with_capacity(code.len());
    for line in code {
        let (indent, text) = (indent_of(line), line.trim());
        if text.is_empty() {
            depths.push(open.len());
            continue;
        }
        if text.starts_with('}') {
            open.retain(|of| *of < indent);
        }
        depths.push(open.len());
        let begins = begins_control(text);
        let continues = begun.remove(&indent) && text.starts_with(['{', ')', ']', '}']);
        if text.ends_with('{') && (begins || continues) {
            open.push(indent);
        } else if begins && !text.contains('{') {
            begun.insert(indent);
        }
    }
    depths
}

/// Whether a line holds a keyword that opens a block. What stands before the last `=>` is a pattern and its
/// guard.
fn begins_control(text: &str) -> bool {
    let tail = text.rsplit_once("=>").map_or(text, |(_, tail)| tail);
    let else_of_if = tail.starts_with("} else") || tail.starts_with("else ");
    else_of_if
        || words(tail).any(|word| ["if", "match", "for", "while", "loop"].contains(&word))
            && !tail.contains("for<")
}

// ---- what code may name ----
// may name

/// A path that a file names, and the line.
type Named = (usize, String);

/// Every path that `use` brings in outside tests, groups written out.
fn imports(source: &Source) -> Vec<Named> {
    let mut imports = Vec::new();
    let mut lines = source.product();
    while let Some((number, line)) = lines.next() {
        let Some(start) = use_of(line) else { continue };
        let mut statement = start.to_owned();
        while !statement.contains(';') {
            let Some((_, more)) = lines.next() else { break };
            statement.push_str(more.trim());
        }
        let tree = statement.split(';').next().unwrap_or_default();
        let mut paths = Vec::new();
        write_out("", tree.trim(), &mut paths);
        imports.extend(paths.into_iter().map(|path| (number, path)));
    }
    imports
}

/// What follows `use` on a line that begins an import.
fn use_of(line: &str) -> Option<&str> {
    let mut text = line.trim_start();
    if let Some(rest) = text.strip_prefix("pub") {
        text = rest.trim_start();
        if text.starts_with('(') {
            text = text.split_once(')')?.1.trim_start();
        }
    }
    text.strip_prefix("use ")
}

/// Writes out the groups of an import: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn write_out(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((before, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        paths.push(format!("{prefix}{path}").trim_end_matches("::self").to_owned());
        return;
    };
    let inside = group.trim_end().trim_end_matches('}');
    // The trim takes the braces of inner groups too, where they close together: they are put back by count.
    let missing = inside.matches('{').count() - inside.matches('}').count();
    let inside = format!("{inside}{}", "}".repeat(missing));
    let (mut depth, mut start) = (0i32, 0);
    for (i, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            let part = inside[start..i].trim();
            if !part.is_empty() {
                write_out(&format!("{prefix}{}", before.trim()), part, paths);
            }
            start = i + 1;
        }
    }
}

/// Every path that code outside tests names in passing: words joined by `::`, two and more.
fn paths_in_code(source: &Source) -> Vec<Named> {
    let mut paths = Vec::new();
    for (number, line) in source.product() {
        for path in line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
            if path.contains("::") {
                paths.push((number, path.trim_matches(':').to_owned()));
            }
        }
    }
    paths
}

/// Imports and paths in passing.
fn named(source: &Source) -> Vec<Named> {
    let mut named = imports(source);
    named.extend(paths_in_code(source));
    named.sort();
    named.dedup();
    named
}

fn read_clocks(source: &Source, found: &mut Found) {
    if !source.path.starts_with("src/") || CLOCK_PLACES.iter().any(|place| source.path.starts_with(place)) {
        return;
    }
    for (number, path) in named(source) {
        if CLOCKS.iter().any(|clock| format!("::{path}::").contains(&format!("::{clock}::"))) {
            found.push((number, path));
        }
    }
}

fn is_pure(path: &str) -> bool {
    let is_codec = path.starts_with("src/") && path.split(['/', '.', '_']).any(|part| part == "codec");
    is_codec || PURE.iter().any(|pure| path.starts_with(pure))
}

fn impurities(source: &Source, crates: &BTreeSet<String>, found: &mut Found) {
    if !is_pure(&source.path) {
        return;
    }
    for (number, path) in named(source) {
        let root = path.split("::").next().unwrap_or_default();
        let foreign = crates.contains(root) && !PURE_CRATES.contains(&root);
        let impure =
            IMPURE_PATHS.split(' ').any(|impure| format!("{path}::").starts_with(&format!("{impure}::")));
        if foreign || impure {
            found.push((number, path));
        }
    }
    for (number, line) in source.product() {
        found.extend(
            words(line).filter(|word| IMPURE_WORDS.contains(word)).map(|word| (number, word.to_owned())),
        );
    }
}

/// The names of the crates that a manifest depends on, as code spells them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim();
        } else if section.ends_with("dependencies]") && line.starts_with(char::is_alphabetic) {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            names.insert(name.replace('-', "_"));
        }
    }
    names
}

/// Names of modules that a file may not name, and paths that leave its module without `crate::`.
fn climbs(source: &Source, found: &mut Found) {
    let Some(module) = source.top_module() else { return };
    let layers: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    let Some(allowed) = layers.get(module) else {
        found.push((1, format!("module {module} has no place in LAYERS")));
        return;
    };
    // The depth of the module that the file is: `super` as often as that leaves the top module.
    let depth = source.path.matches('/').count() - usize::from(source.path.ends_with("/mod.rs"));
    for (number, path) in named(source) {
        let mut parts = path.split("::");
        let root = parts.next().unwrap_or_default();
        let next = parts.next().unwrap_or_default();
        let ups = path.split("::").take_while(|part| *part == "super").count();
        let is_module = layers.contains_key(next);
        if (root == "crate" && is_module && next != module && !allowed.contains(&next)) || ups >= depth {
            found.push((number, format!("{module} may not name {path}")));
        }
    }
}

// ---- tidiness ----

/// Comments that speak of tasks: `#` and a number without a project before it, or a word for a task and a
/// number.
fn tasks(source: &Source, found: &mut Found) {
    for (number, line) in source.numbered(&source.comments) {
        let lower = line.to_lowercase();
        let all: Vec<&str> = words(&lower).collect();
        let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
        let of_tasks = |word: &str| ["issue", "task", "ticket", "milestone"].contains(&word);
        let worded = all.windows(2).any(|pair| of_tasks(pair[0]) && is_number(pair[1]));
        let hashed = line.split_whitespace().any(|word| {
            let after = word.trim_start_matches(['(', '[']).strip_prefix('#');
            after.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        });
        if worded || hashed {
            found.push((number, line.trim().to_owned()));
        }
    }
}

fn is_top_level(name: &str) -> bool {
    name.starts_with('.')
        || TOP_LEVEL.split(' ').any(|allowed| allowed == name)
        || TOP_LEVEL_IGNORED.contains(&name)
}

// ---- that the rules can fail ----
// rules can fail

/// What a rule finds in a snippet that stands at a path: the line numbers.
fn lines_found(path: &str, text: &str, find: impl Fn(&Source, &mut Found)) -> Vec<usize> {
    let mut found = Found::new();
    find(&Source::of_rust(path, text), &mut found);
    found.into_iter().map(|(line, _)| line).collect()
}

#[test]
fn long_functions_are_found() {
    let body = "    x();\n".repeat(69);
    let text = format!(
        "impl A {{}}\npub(crate) async fn a(\n    b: C,\n) -> D {{\n{body}}}\nfn e();\nfn f() {{}}\n"
    );
    assert_eq!(lines_found("src/x.rs", &text, long_functions), [2]);
    let text = format!("fn a() {{\n{}}}\n", "    x();\n".repeat(68));
    assert_eq!(lines_found("src/x.rs", &text, long_functions), [0; 0]);
}

const DEEP: &str = r"fn a() {
    for b in c {
        match d {
            E if f => {
                if g
                    && h
                {
                    while i {
                        j();
                    }
                }
            }
        }
    }
}
";

const FLAT: &str = r"fn a() {
    if b {
        if c {
            let Some(d) = e else {
                return;
            };
            if f {
                g();
            } else if h {
                i.map(|j| {
                    k()
                });
            }
            match l {
                M if n => {
                    o();
                }
            }
        }
    }
}
";

#[test]
fn deep_nesting_is_found() {
    assert_eq!(lines_found("src/x.rs", DEEP, deep_lines), [9]);
    assert_eq!(lines_found("tests/x.rs", DEEP, deep_lines), [0; 0]);
    assert_eq!(lines_found("src/x.rs", FLAT, deep_lines), [0; 0]);
    assert_eq!(control_depths(&FLAT.lines().map(str::to_owned).collect::<Vec<_>>())[10], 3);
}

#[test]
fn imports_are_written_out() {
    let text =
        "use a::{b, c::{d, e as f}, g::{self, h}};\npub(crate) use i::j;\nuse k::{\n    l,\n    m,\n};\n";
    let paths: Vec<String> =
        imports(&Source::of_rust("src/x.rs", text)).into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["a::b", "a::c::d", "a::c::e", "a::g", "a::g::h", "i::j", "k::l", "k::m"]);
}

#[test]
fn clocks_are_found() {
    let text = "use std::time::{Duration, Instant};\nfn a() {\n    let b = tokio::time::Instant::now();\n}\n";
    assert_eq!(lines_found("src/shard/x.rs", text, read_clocks), [1, 3]);
    assert_eq!(lines_found("src/env/x.rs", text, read_clocks), [0; 0]);
    assert_eq!(lines_found("src/shard/x.rs", "use crate::env::Instant;\n", read_clocks), [0; 0]);
}

#[test]
fn impurities_are_found() {
    let crates = dependencies(
        "[dependencies]\ntokio = 1\nbytes.workspace = true\nfutures-lite = \"2\"\n[lib]\nx = 1\n",
    );
    assert_eq!(crates.iter().collect::<Vec<_>>(), ["bytes", "futures_lite", "tokio"]);
    let text = r"use bytes::Bytes;
use std::{fmt, fs::File};
async fn a() {}
fn b() -> futures_lite::X {}
use std::collections::HashMap;
use std::time::{Duration, Instant};
#[cfg(test)]
use tokio::x;
";
    let find = |source: &Source, found: &mut Found| impurities(source, &crates, found);
    assert_eq!(lines_found("src/raft/x.rs", text, find), [2, 4, 6, 3, 5]);
    assert_eq!(lines_found("src/log/codec.rs", text, find), [2, 4, 6, 3, 5]);
    assert_eq!(lines_found("src/log/x.rs", text, find), [0; 0]);
}

#[test]
fn climbing_is_found() {
    let text = r"use crate::{ids::A, edge};
fn a() {
    crate::host::b();
    super::super::c();
    super::d();
}
";
    assert_eq!(lines_found("src/kv/codec.rs", text, climbs), [1, 3, 4]);
    assert_eq!(lines_found("src/kv/codec/x.rs", text, climbs), [1, 3]);
    assert_eq!(lines_found("src/edge/mod.rs", text, climbs), [3, 4, 5]);
    assert_eq!(lines_found("src/strange/mod.rs", text, climbs), [1]);
    assert_eq!(lines_found("src/bin/x.rs", text, climbs), [0; 0]);
}

#[test]
fn tasks_are_found() {
    let of_task =
        format!("// see {} 12\n// (#3) did this\n// etcd#14370, #[cfg(test)] and A#1\nlet a = 1;\n", "Issue");
    assert_eq!(lines_found("src/x.rs", &of_task, tasks), [1, 2]);
}

#[test]
fn strangers_at_the_top_level_are_found() {
    assert!(
        !is_top_level("notes.txt")
            && !is_top_level("docs")
            && is_top_level(".gitignore")
            && is_top_level("src")
    );
}
