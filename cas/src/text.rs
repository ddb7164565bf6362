//! File names in JSON, and paths in the tables of mounts.
//!
//! A file name is bytes, a JSON string is Unicode. Names that are UTF-8 stand for themselves.
//! Every byte that is not part of valid UTF-8 (always 0x80–0xff) becomes the private-use
//! character U+10FE00 + byte, that is U+10FE80–U+10FEFF. A name that really holds one of those
//! characters has its four bytes escaped the same way, so decoding always gives back the
//! exact bytes. Lone surrogates, as Python writes them, would be shorter, but strict parsers
//! (serde_json among them) refuse them; a private-use character passes everywhere.

use std::borrow::Cow;

const ESCAPE: u32 = 0x10_FE00;

fn is_escape(c: char) -> bool {
    (ESCAPE + 0x80..=ESCAPE + 0xFF).contains(&(c as u32))
}

/// The byte that every escape begins with in UTF-8, and hardly any other character: looked for
/// first, because a search by character decodes every name.
const FIRST_BYTE: u8 = 0xF4;

fn has_escape(text: &str) -> bool {
    text.as_bytes().contains(&FIRST_BYTE) && text.contains(is_escape)
}

/// Whether bytes of UTF-8 stand for themselves, which is quickly seen of most.
pub fn is_plain(bytes: &[u8]) -> bool {
    bytes.is_ascii() || !bytes.contains(&FIRST_BYTE)
}

/// The string that stands for a file name, a path or a link target in every document.
pub fn encode(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !has_escape(text) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(bytes)),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_escape(c) {
                push_bytes(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        push_bytes(&mut text, chunk.invalid());
    }
    text
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    text.extend(
        bytes
            .iter()
            .filter_map(|&b| char::from_u32(ESCAPE + u32::from(b))),
    );
}

/// The bytes that [`encode`] was given.
pub fn decode(text: &str) -> Cow<'_, [u8]> {
    if !has_escape(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        if is_escape(c) {
            bytes.push((c as u32 - ESCAPE) as u8);
        } else {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Cow::Owned(bytes)
}

/// Bytes that appear in documents as [`encode`]d text: a link target, say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Text(pub Vec<u8>);

impl serde::Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(&self.0))
    }
}

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(
            decode(&String::deserialize(deserializer)?).into_owned(),
        ))
    }
}

/// Undoes what the kernel does to the paths of its mount tables (`mangle_path`): blanks, line ends and
/// backslashes are three octal digits after a backslash there.
pub fn unmangle(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_stand_for_themselves() {
        for name in ["a/b.c", "grün", "日本", "🦀"] {
            assert_eq!(encode(name.as_bytes()), name);
        }
    }

    #[test]
    fn a_latin1_name_is_escaped_by_byte() {
        assert_eq!(encode(b"caf\xe9"), "caf\u{10FEE9}");
    }

    proptest! {
        #[test]
        fn any_bytes_survive_a_strict_json_parser(bytes: Vec<u8>) {
            let json = serde_json::to_string(&Text(bytes.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Text>(&json).unwrap().0, bytes);
        }

        #[test]
        fn the_escape_characters_themselves_survive(text in "[a\u{10FE80}-\u{10FEFF}]{0,6}") {
            let encoded = encode(text.as_bytes());
            prop_assert_eq!(&*decode(&encoded), text.as_bytes());
        }
    }
}
