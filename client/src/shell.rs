//! Words as a shell reads them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Words that a shell reads back as they are, separated by blanks.
pub fn quote<'a>(words: impl IntoIterator<Item = &'a OsString>) -> OsString {
    let words: Vec<Vec<u8>> = words.into_iter().map(|word| quoted(word)).collect();
    OsString::from_vec(words.join(&b' '))
}

fn quoted(word: &OsStr) -> Vec<u8> {
    let bytes = word.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./:,@%+".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return bytes.to_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in bytes {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_they_must_be() {
        let cases = [
            ("make", "make"),
            ("-j4", "-j4"),
            ("a/b.c", "a/b.c"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$x", "'$x'"),
            ("A=b", "'A=b'"),
            ("~", "'~'"),
            ("it's", r"'it'\''s'"),
            ("a\nb", "'a\nb'"),
            ("\u{e4}", "'\u{e4}'"),
        ];
        for (word, wanted) in cases {
            assert_eq!(quote([&word.into()]), wanted, "{word:?}");
        }
        assert_eq!(quote([&"a".into(), &"b c".into()]), "a 'b c'");
    }
}
