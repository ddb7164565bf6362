//! Specs as programs write them: strict JSON, each input an object without escapes. The inputs of such
//! a spec are read straight into a manifest, without making anything of each on the way. A call with
//! 100,000 of them took 57 ms of processor time by serde, and takes 45 ms, with the
//! hash by which the list is known again.
//!
//! What is not plain is not refused here but left to the ordinary way, which knows everything and
//! says what is wrong. So this must understand a spec as that does, or not at all.

use cas::manifest::{DeclaredKind, Document, Row};
use cas::name::NormalPaths;
use serde::{Deserialize, Deserializer};

use super::{Document as SpecDocument, Spec};

/// What stands in the place of the inputs when the rest of a spec is read.
const PLACEHOLDER: &str = "\"-\"";

/// From so many bytes on, two threads read them: 6,000 inputs or so, a millisecond.
const FOR_TWO: usize = 1 << 20;

/// A spec that is plain, in two parts.
#[derive(Debug)]
pub struct Plain {
    /// The spec without its inputs.
    pub spec: Spec,
    /// The bytes of a manifest of the inputs.
    pub manifest: Vec<u8>,
    /// How many bytes of the text are the list of inputs.
    pub length: usize,
}

/// Reads a spec, if it is plain.
pub(super) fn read(text: &str) -> Option<Plain> {
    let start = find_inputs(text.as_bytes())?;
    let (inputs, end) = Scanner { text, at: start }.inputs()?;
    Some(Plain {
        spec: read_around(&text[..start], &text[end..])?,
        manifest: inputs.finish(),
        length: end - start,
    })
}

/// A spec without its inputs, of what there is before the list and behind it.
pub(super) fn read_around(before: &str, behind: &str) -> Option<Spec> {
    let rest = [before, PLACEHOLDER, behind].concat();
    let document: SpecDocument<Place> = serde_json::from_str(&rest).ok()?;
    // What was found may have been a key of something else, a note say.
    let is_found = document.visible.0 == rest.as_ptr().addr() + before.len() + 1;
    // A root lies before all entries of a manifest, and is the rare case.
    if !is_found || document.input_root.is_some() {
        return None;
    }
    document.mean(|| Ok(Vec::new())).ok()
}

/// Where the list of inputs begins, most likely.
pub(super) fn find_inputs(text: &[u8]) -> Option<usize> {
    const KEY: &[u8] = b"\"visible\"";
    let at = text.windows(KEY.len()).position(|window| window == KEY)?;
    let behind = at + KEY.len();
    let is_open = |byte: &u8| !matches!(byte, b' ' | b'\n' | b'\t' | b'\r' | b':');
    Some(behind + text[behind..].iter().position(is_open)?)
}

/// Where in memory a string of the document lies.
#[derive(Debug, Default)]
struct Place(usize);

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&'de str>::deserialize(deserializer)?;
        Ok(Self(text.as_ptr().addr()))
    }
}

/// The keys of one input.
#[derive(Default)]
struct Object<'t> {
    path: Option<&'t str>,
    r#type: Option<&'t str>,
    hash: Option<&'t str>,
    mode: Option<i64>,
    mtime: Option<i64>,
}

impl<'t> Object<'t> {
    fn mean(&self) -> Option<Row<'t>> {
        let path = self.path?.as_bytes();
        // The oldest form has a path and a hash, and no more.
        let (kind, mode, mtime) = match (self.r#type, self.mode, self.mtime) {
            (None, None, None) => ("file", 0o444, 0),
            (Some(kind), Some(mode), Some(mtime)) => (kind, u32::try_from(mode).ok()?, mtime),
            _ => return None,
        };
        let digest = || self.hash?.parse().ok();
        Some(Row {
            path,
            mode: (mode & 0o7777) as u16,
            mtime,
            kind: match kind {
                "file" => DeclaredKind::File(digest()?),
                "symlink" => DeclaredKind::Symlink(digest()?),
                "directory" => DeclaredKind::Directory,
                _ => return None,
            },
        })
    }
}

/// Reads plain JSON from some place on. Every method is `None` for what is not plain.
struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    /// All inputs, and where they end.
    fn inputs(mut self) -> Option<(Document, usize)> {
        self.mark(b'[')?;
        if self.mark(b']').is_some() {
            return Some((Document::new(None, 0), self.at));
        }
        let Some(middle) = self.middle() else {
            let document = self.inputs_until(usize::MAX)?;
            return Some((document, self.at));
        };
        let (text, at) = (self.text, middle);
        let mut other = Scanner { text, at };
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| other.inputs_until(usize::MAX));
            (self.inputs_until(middle), second.join().ok().flatten())
        });
        let mut document = first?;
        // Else the list was over, or the middle was part of a string.
        if self.at == middle {
            document.append(&second?);
            self.at = other.at;
        }
        Some((document, self.at))
    }

    /// Where an input in the middle begins, most likely, if there is enough for two threads.
    fn middle(&self) -> Option<usize> {
        let length = self.rest().len();
        if length < FOR_TWO {
            return None;
        }
        let at = self.at + length / 2;
        let behind = self.text.as_bytes()[at..]
            .iter()
            .position(|byte| *byte == b'}')?;
        let (text, at) = (self.text, at + behind);
        let mut scanner = Scanner { text, at };
        scanner.mark(b'}')?;
        scanner.mark(b',')?;
        Some(scanner.at)
    }

    /// Inputs up to one that begins at some place, or to the end of the list.
    fn inputs_until(&mut self, end: usize) -> Option<Document> {
        // What an input takes in JSON is twice what it takes in a manifest.
        let rest = end.min(self.text.len()).saturating_sub(self.at);
        let mut document = Document::new(None, rest / 160);
        let mut paths = NormalPaths::default();
        while self.at != end {
            let row = self.object()?.mean()?;
            if !paths.is_next(row.path) || !cas::text::is_plain(row.path) {
                return None;
            }
            document.push(row);
            if self.mark(b',').is_none() {
                self.mark(b']')?;
                break;
            }
        }
        Some(document)
    }

    fn object(&mut self) -> Option<Object<'t>> {
        let mut object = Object::default();
        self.mark(b'{')?;
        loop {
            let key = self.string()?;
            self.mark(b':')?;
            match key {
                "path" => set(&mut object.path, self.string()?)?,
                "type" => set(&mut object.r#type, self.string()?)?,
                "hash" => set(&mut object.hash, self.string()?)?,
                "mode" => set(&mut object.mode, self.integer()?)?,
                "mtime" => set(&mut object.mtime, self.integer()?)?,
                _ => return None,
            }
            if self.mark(b',').is_none() {
                self.mark(b'}')?;
                return Some(object);
            }
        }
    }

    /// Goes over a punctuation mark, and the blanks around it.
    fn mark(&mut self, mark: u8) -> Option<()> {
        self.pass_blanks();
        let is_there = self.rest().first() == Some(&mark);
        self.at += usize::from(is_there);
        self.pass_blanks();
        is_there.then_some(())
    }

    fn pass_blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.rest().first() {
            self.at += 1;
        }
    }

    fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn string(&mut self) -> Option<&'t str> {
        let rest = self.rest().strip_prefix(b"\"")?;
        let length = plain_length(rest);
        let start = self.at + 1;
        self.at = start + length + 1;
        let ends = rest.get(length) == Some(&b'"');
        ends.then(|| self.text.get(start..start + length))?
    }

    /// A whole number, of which JSON has one form.
    fn integer(&mut self) -> Option<i64> {
        let rest = self.rest();
        let (sign, digits) = match rest.strip_prefix(b"-") {
            Some(digits) => (-1, digits),
            None => (1, rest),
        };
        let (mut value, mut count) = (0_i64, 0);
        while let Some(digit @ b'0'..=b'9') = digits.get(count) {
            value = value.checked_mul(10)?.checked_add((digit - b'0').into())?;
            count += 1;
        }
        let is_whole = match digits.first() {
            Some(b'0') => (count, sign) == (1, 1),
            _ => count > 0,
        };
        let end = digits.get(count);
        let ends = matches!(end, Some(b',' | b'}' | b' ' | b'\n' | b'\t' | b'\r'));
        self.at += count + usize::from(sign < 0);
        (is_whole && ends).then_some(sign * value)
    }
}

/// A key that is repeated is not plain.
fn set<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// How many bytes there are before one that ends a string, or that has a meaning in it: a quote, a
/// backslash, a control character. By eight: most of a large spec is strings.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // The highest bit of each byte that is less than `n`; above the first such byte, perhaps of others.
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n)) & !word & HIGH;
    let (words, rest) = bytes.as_chunks::<8>();
    for (count, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quote | backslash | below(word, 0x20);
        if found != 0 {
            return count * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let is_plain = |byte: &&u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    words.len() * 8 + rest.iter().take_while(is_plain).count()
}
