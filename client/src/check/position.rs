//! What is at an offset of a file: a member of an archive, a section of a program.
//!
//! Nothing about the bytes is trusted: what makes no sense has no description.

/// Describes an offset; `None` in a file of no known kind.
pub(super) fn describe(bytes: &[u8], at: u64) -> Option<String> {
    let at = usize::try_from(at).ok()?;
    in_ar(bytes, at)
        .or_else(|| in_zip(bytes, at))
        .or_else(|| in_elf(bytes, at))
        .or_else(|| in_gzip(bytes, at))
}

/// A piece of a file that has a name and content, of which the header is before the content.
struct Member {
    name: String,
    header: usize,
    content: usize,
    end: usize,
}

impl Member {
    fn describe(&self, bytes: &[u8], at: usize) -> Option<String> {
        if !(self.header..self.end).contains(&at) {
            return None;
        }
        let name = &self.name;
        let Some(inside) = at.checked_sub(self.content) else {
            return Some(format!("in the header of member `{name}`"));
        };
        let content = bytes.get(self.content..self.end)?;
        Some(match describe(content, inside as u64) {
            Some(deeper) => format!("in member `{name}`, {deeper}"),
            None => format!("in member `{name}`"),
        })
    }
}

/// ar(5), as GNU and BSD write it.
fn in_ar(bytes: &[u8], at: usize) -> Option<String> {
    let mut header = bytes.starts_with(b"!<arch>\n").then_some(8)?;
    let mut long_names: &[u8] = b"";
    while let Some(fields) = bytes.get(header..header + 60) {
        let size: usize = text(fields.get(48..58)?).parse().ok()?;
        let content = header + 60;
        let end = content.checked_add(size)?;
        let body = bytes.get(content..end)?;
        let name = text(&fields[..16]);
        if name == "//" {
            long_names = body;
        }
        let (name, skip) = ar_name(&name, body, long_names);
        let member = Member {
            name,
            header,
            content: content + skip,
            end,
        };
        if let Some(described) = member.describe(bytes, at) {
            return Some(described);
        }
        header = end + end % 2;
    }
    None
}

/// The name of a member, and how much of what follows the header belongs to it.
fn ar_name(name: &str, body: &[u8], long_names: &[u8]) -> (String, usize) {
    let until = |bytes: &[u8], last: &[u8]| {
        let end = bytes.iter().position(|byte| last.contains(byte));
        text(&bytes[..end.unwrap_or(bytes.len())])
    };
    let bsd = name
        .strip_prefix("#1/")
        .and_then(|length| length.parse().ok());
    let gnu = name
        .strip_prefix('/')
        .and_then(|offset| offset.parse().ok());
    match (bsd, gnu.and_then(|offset: usize| long_names.get(offset..))) {
        (Some(length), _) if body.len() >= length => (until(&body[..length], b"\0"), length),
        (_, Some(long)) => (until(long, b"/\n"), 0),
        _ if name == "/" => ("symbol table".into(), 0),
        _ => (name.strip_suffix('/').unwrap_or(name).to_owned(), 0),
    }
}

/// PKWARE's APPNOTE: the directory is at the end and says where members are.
fn in_zip(bytes: &[u8], at: usize) -> Option<String> {
    if !bytes.starts_with(b"PK\x03\x04") {
        return None;
    }
    // A comment of at most 64 KiB may follow the end of the directory.
    let tail = bytes.len().saturating_sub(22 + 0xffff);
    let last = bytes[tail..]
        .windows(4)
        .rposition(|word| word == b"PK\x05\x06")?;
    let end = bytes.get(tail + last..)?;
    let (count, directory) = (number(end, 10, 2)?, number(end, 16, 4)?);
    if at >= directory {
        return Some("in the directory of the archive".into());
    }
    let mut members = Vec::new();
    let mut entry = directory;
    for _ in 0..count {
        let fields = bytes.get(entry..)?.strip_prefix(b"PK\x01\x02")?;
        let [name, extra, comment] = [24, 26, 28].map(|at| number(fields, at, 2));
        let (name, header) = (name?, number(fields, 38, 4)?);
        let local = bytes.get(header..)?;
        let content = header + 30 + number(local, 26, 2)? + number(local, 28, 2)?;
        members.push(Member {
            name: text(fields.get(42..42 + name)?),
            header,
            content,
            end: content.checked_add(number(fields, 16, 4)?)?,
        });
        entry += 46 + name + extra? + comment?;
    }
    members.iter().find_map(|member| member.describe(bytes, at))
}

/// 64-bit little-endian ELF: the smallest section that has the offset.
fn in_elf(bytes: &[u8], at: usize) -> Option<String> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size) = (number(bytes, 0x28, 8)?, number(bytes, 0x3a, 2)?);
    let (count, names) = (number(bytes, 0x3c, 2)?, number(bytes, 0x3e, 2)?);
    let header = |section: usize| bytes.get(table.checked_add(section.checked_mul(size)?)?..);
    let names = number(header(names)?, 0x18, 8)?;
    let sections = (1..count).filter_map(|section| {
        let header = header(section)?;
        let (start, length) = (number(header, 0x18, 8)?, number(header, 0x20, 8)?);
        // SHT_NOBITS takes no room in the file.
        let here = number(header, 4, 4)? != 8 && at.checked_sub(start)? < length;
        here.then_some((length, number(header, 0, 4)?))
    });
    let (_, name) = sections.min()?;
    let name = bytes.get(names.checked_add(name)?..)?;
    let end = name.iter().position(|byte| *byte == 0)?;
    Some(format!("in section `{}`", text(&name[..end])))
}

/// RFC 1952: the time of the original file is in the header.
fn in_gzip(bytes: &[u8], at: usize) -> Option<String> {
    let is_time = bytes.starts_with(b"\x1f\x8b") && (4..8).contains(&at);
    is_time.then(|| "in the time of the gzip header".into())
}

/// A little-endian number of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    usize::try_from(bytes.iter().rev().fold(0, fold)).ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ar(members: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in members {
            let header = format!(
                "{name:<16}{:<12}0     0     644     {:<10}`\n",
                0,
                content.len()
            );
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(content.as_bytes());
            if content.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    #[test]
    fn members_of_ar_are_named_short_and_long() {
        let bytes = ar(&[
            ("/", "syms"),
            ("//", "a_very_long_name.o/\n"),
            ("a.o/", "abc"),
            ("/0", "xyz"),
        ]);
        let at = |needle: &str| {
            let found = bytes
                .windows(needle.len())
                .position(|w| w == needle.as_bytes());
            describe(&bytes, found.expect(needle) as u64).expect(needle)
        };
        assert_eq!(at("abc"), "in member `a.o`");
        assert_eq!(at("xyz"), "in member `a_very_long_name.o`");
        assert_eq!(at("syms"), "in member `symbol table`");
        assert_eq!(at("a.o/"), "in the header of member `a.o`");
        let bsd = ar(&[("#1/8", "long.o\0\0data")]);
        let data = bsd.len() as u64 - 4;
        assert_eq!(
            describe(&bsd, data).expect("a member"),
            "in member `long.o`"
        );
    }

    #[test]
    fn what_is_cut_off_or_nothing_known_has_no_description() {
        let bytes = ar(&[("a.o/", "abc")]);
        for length in 0..bytes.len() {
            let _ = describe(&bytes[..length], length as u64 / 2);
        }
        assert_eq!(describe(b"hello", 2), None);
        assert_eq!(describe(b"", 0), None);
        assert_eq!(describe(b"PK\x03\x04PK\x05\x06", 2), None);
        assert_eq!(
            describe(&[b"\x7fELF\x02\x01".as_slice(), &[0xff; 90]].concat(), 7),
            None
        );
    }

    #[test]
    fn the_time_of_gzip_is_known() {
        let bytes = b"\x1f\x8b\x08\0\x01\x02\x03\x04\0\x03";
        let told = describe(bytes, 5).expect("the header");
        assert_eq!(told, "in the time of the gzip header");
        assert_eq!(describe(bytes, 9), None);
    }
}
