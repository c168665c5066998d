//! A source file as text: what of it is code, what is comment, what is of tests. No parser: one pass over the
//! characters.

use crate::lines_found;

/// What a rule found: line numbers, counted from 1, and what is wrong there.
pub type Found = Vec<(usize, String)>;

/// A file, line by line.
pub struct Source {
    /// Below the root.
    pub path: String,
    /// As it is.
    pub lines: Vec<String>,
    /// Without comments and the contents of literals, which are blanks here.
    pub code: Vec<String>,
    /// The comments alone.
    pub comments: Vec<String>,
    /// Whether a line is of test code.
    pub in_test: Vec<bool>,
}

/// What a character of a Rust file belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Code,
    Comment,
    Literal,
}

impl Source {
    pub fn of_rust(path: &str, text: &str) -> Self {
        let classes = classify(text);
        let only = |class| -> Vec<String> {
            let of_char = |(c, of): (char, &Class)| if *of == class || c == '\n' { c } else { ' ' };
            let kept: String = text.chars().zip(&classes).map(of_char).collect();
            kept.lines().map(|line| line.trim_end().to_owned()).collect()
        };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let (code, comments) = (only(Class::Code), only(Class::Comment));
        let is_test_file = path.starts_with("tests/") || path.starts_with("benches/");
        let mut in_test = vec![is_test_file; lines.len()];
        for start in 0..lines.len() {
            let attribute = code[start].trim();
            if attribute.starts_with("#[test]") || attribute.starts_with("#[cfg(test)]") {
                let end = item_end(&code, start);
                in_test[start..=end].fill(true);
            }
        }
        Self { path: path.to_owned(), lines, code, comments, in_test }
    }

    /// A file that is not Rust: all of it counts as comment.
    pub fn of_plain(path: &str, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let code = vec![String::new(); lines.len()];
        Self {
            path: path.to_owned(),
            comments: lines.clone(),
            in_test: vec![false; lines.len()],
            code,
            lines,
        }
    }

    /// Lines with their numbers, counted from 1.
    pub fn numbered<'a>(&self, lines: &'a [String]) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
        lines.iter().enumerate().map(|(i, line)| (i + 1, line.as_str()))
    }

    /// The code that is not of tests, with line numbers.
    pub fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        self.numbered(&self.code).filter(|(number, _)| !self.in_test[number - 1])
    }

    /// Finds a text in the code that is not of tests.
    pub fn find(&self, text: &str, found: &mut Found) {
        found.extend(self.product().filter(|(_, line)| line.contains(text)).map(text_of));
    }

    /// The paths (without `.rs`) of the modules that this file declares under `#[cfg(test)]`.
    pub fn test_files(&self) -> Vec<String> {
        let (dir, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let base = match file {
            "mod.rs" | "lib.rs" | "main.rs" => dir.to_owned(),
            _ => format!("{dir}/{}", file.trim_end_matches(".rs")),
        };
        let declared = |line: &String| -> Option<String> {
            let name = line.trim().trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?;
            Some(format!("{base}/{name}"))
        };
        self.code
            .iter()
            .zip(&self.in_test)
            .filter(|(_, in_test)| **in_test)
            .filter_map(|(l, _)| declared(l))
            .collect()
    }

    /// The top module of `src/` that it belongs to; `None` outside, and for the roots: library, binaries,
    /// build script.
    pub fn top_module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let name = below.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "bin", "build"].contains(&name)).then_some(name)
    }
}

/// The line (by index) where the item ends whose attributes begin at `start`.
fn item_end(code: &[String], start: usize) -> usize {
    let indent = indent_of(&code[start]);
    let is_end = |line: &String| {
        let text = line.trim();
        indent_of(line) == indent
            && !text.starts_with('#')
            && (text.starts_with('}') || text.ends_with([';', '}', ',']))
    };
    (start..code.len()).find(|i| is_end(&code[*i])).unwrap_or(code.len() - 1)
}

/// What every character of a Rust file belongs to. Quotation marks belong to their literals.
fn classify(text: &str) -> Vec<Class> {
    let chars: Vec<char> = text.chars().collect();
    let mut classes = Vec::with_capacity(chars.len());
    while classes.len() < chars.len() {
        let at = classes.len();
        let (class, end) = piece_at(&chars, at);
        assert!(end > at, "a piece has a length");
        classes.resize(end.min(chars.len()), class);
    }
    classes
}

/// The class and the end of the piece that begins at `at`: a whole comment or literal, or one character of
/// code.
fn piece_at(chars: &[char], at: usize) -> (Class, usize) {
    let at_is = |i: usize, c: char| chars.get(i) == Some(&c);
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if at_is(at + 1, '/') => {
            (Class::Comment, (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()))
        }
        '/' if at_is(at + 1, '*') => (Class::Comment, block_comment_end(chars, at)),
        '"' => (Class::Literal, quoted_end(chars, at + 1, '"')),
        'r' | 'b' | 'c' if !after_word => match raw_string_end(chars, at) {
            Some(end) => (Class::Literal, end),
            None => (Class::Code, at + 1),
        },
        // A lifetime has no second quotation mark, a character literal has it after one character or an
        // escape.
        '\'' if at_is(at + 1, '\\') => (Class::Literal, quoted_end(chars, at + 1, '\'')),
        '\'' if at_is(at + 2, '\'') => (Class::Literal, at + 3),
        _ => (Class::Code, at + 1),
    }
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0usize, at);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], mut i: usize, quote: char) -> usize {
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The end of a raw string that begins at `at` with its `r`, `br` or `cr`.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let r = if chars[at] == 'r' { at } else { at + 1 };
    if chars.get(r) != Some(&'r') {
        return None;
    }
    let hashes = chars[r + 1..].iter().take_while(|c| **c == '#').count();
    let open = r + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |i: &usize| {
        chars[*i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (open + 1..chars.len()).find(closes).map(|i| i + 1 + hashes)
}

pub fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The words of a line: names, keywords, numbers.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

pub fn has_word(line: &str, word: &str) -> bool {
    words(line).any(|found| found == word)
}

/// A line as something found.
pub fn text_of((number, line): (usize, &str)) -> (usize, String) {
    (number, line.trim().to_owned())
}

#[test]
fn code_is_told_from_comments_and_literals() {
    let text = r##"let a = "// no \" unsafe"; // unsafe "
/* unsafe /* */ unsafe */ let b = 'x'; let c: &'a str;
let d = br#"unsafe " "#; let e = '\''; let r#f = b"unsafe";
"##;
    let source = Source::of_rust("src/x.rs", text);
    assert!(source.code.iter().all(|line| !line.contains("unsafe")), "{:?}", source.code);
    assert!(
        source.code[1].ends_with("let c: &'a str;") && source.code[2].contains("let r#f = b"),
        "{:?}",
        source.code
    );
    assert_eq!(source.comments[0].trim(), "// unsafe \"");
}

#[test]
fn test_code_is_told_from_the_product() {
    let text = r"fn a() {
    x.unwrap();
}

#[cfg(test)]
mod tests {
    fn b() {
        x.unwrap();
    }
}
fn c() {
    y.unwrap();
}
";
    assert_eq!(lines_found("src/x.rs", text, |source, found| source.find(".unwrap()", found)), [2, 12]);
    assert_eq!(lines_found("tests/x.rs", text, |source, found| source.find(".unwrap()", found)), [0; 0]);
    let source = Source::of_rust("src/a/mod.rs", "#[cfg(test)]\nmod b;\nmod c;\n");
    assert_eq!(source.test_files(), ["src/a/b"]);
    assert_eq!(Source::of_rust("src/a/x.rs", "#[cfg(test)]\npub mod b;\n").test_files(), ["src/a/x/b"]);
}
