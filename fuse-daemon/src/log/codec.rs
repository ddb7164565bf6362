//! Facts as bytes.
//!
//! Written by hand: five kinds of facts take fewer lines this way than a second set of types for a
//! serialisation crate, and the view need not know of either. All numbers are little-endian;
//! lengths have 32 bits, far above what the kernel lets through (names 255 bytes, targets 4 KiB,
//! values 64 KiB).

use cas::Name;

use crate::view::{Content, Fact, InodeFlags, InodeId, Meta, SpecialKind, Time};

/// Appends facts to `out`; `number` says which staging file it is.
pub(super) fn encode<S>(facts: &[Fact<S>], number: impl Fn(&S) -> u64, out: &mut Vec<u8>) {
    for fact in facts {
        encode_fact(fact, &number, out);
    }
}

fn encode_fact<S>(fact: &Fact<S>, number: impl Fn(&S) -> u64, out: &mut Vec<u8>) {
    match fact {
        Fact::Inode {
            id,
            meta,
            born,
            flags,
            content,
        } => {
            out.push(b'I');
            out.extend(id.0.to_le_bytes());
            put_meta(meta, out);
            put_time(*born, out);
            out.extend(flags.0.to_le_bytes());
            put_content(content, number, out);
        }
        Fact::Gone(id) => {
            out.push(b'G');
            out.extend(id.0.to_le_bytes());
        }
        Fact::Name {
            directory,
            name,
            id,
        } => {
            out.push(if id.is_some() { b'N' } else { b'n' });
            out.extend(directory.0.to_le_bytes());
            put_bytes(name.as_bytes(), out);
            out.extend(id.iter().flat_map(|id| id.0.to_le_bytes()));
        }
        Fact::Extended { id, name, value } => {
            out.push(if value.is_some() { b'X' } else { b'x' });
            out.extend(id.0.to_le_bytes());
            put_bytes(name, out);
            value.iter().for_each(|value| put_bytes(value, out));
        }
        Fact::Next(next) => {
            out.push(b'+');
            out.extend(next.to_le_bytes());
        }
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

fn put_time(time: Time, out: &mut Vec<u8>) {
    out.extend(time.seconds.to_le_bytes());
    out.extend(time.nanoseconds.to_le_bytes());
}

fn put_meta(meta: &Meta, out: &mut Vec<u8>) {
    out.extend(meta.perm.to_le_bytes());
    out.extend(meta.uid.to_le_bytes());
    out.extend(meta.gid.to_le_bytes());
    [meta.atime, meta.mtime, meta.ctime]
        .into_iter()
        .for_each(|time| put_time(time, out));
}

fn put_content<S>(content: &Content<S>, number: impl Fn(&S) -> u64, out: &mut Vec<u8>) {
    match content {
        Content::Input => out.push(b'i'),
        Content::Staged(staged) => {
            out.push(b's');
            out.extend(number(staged).to_le_bytes());
        }
        Content::Symlink(target) => {
            out.push(b'l');
            put_bytes(target, out);
        }
        Content::Special(kind, rdev) => {
            out.push(match kind {
                SpecialKind::Fifo => b'f',
                SpecialKind::Socket => b'k',
                SpecialKind::Character => b'c',
                SpecialKind::Block => b'b',
            });
            out.extend(rdev.to_le_bytes());
        }
        Content::Directory => out.push(b'd'),
    }
}

/// Reads facts back. `None` if the bytes are not what [`encode`] writes.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Fact<u64>>> {
    let mut reader = Reader(bytes);
    let mut facts = Vec::new();
    while !reader.0.is_empty() {
        facts.push(reader.fact()?);
    }
    Some(facts)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn id(&mut self) -> Option<InodeId> {
        self.u64().map(InodeId)
    }

    fn bytes(&mut self) -> Option<&[u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn time(&mut self) -> Option<Time> {
        Some(Time {
            seconds: self.array().map(i64::from_le_bytes)?,
            nanoseconds: self.u32()?,
        })
    }

    fn meta(&mut self) -> Option<Meta> {
        Some(Meta {
            perm: self.array().map(u16::from_le_bytes)?,
            uid: self.u32()?,
            gid: self.u32()?,
            atime: self.time()?,
            mtime: self.time()?,
            ctime: self.time()?,
        })
    }

    fn content(&mut self) -> Option<Content<u64>> {
        Some(match self.u8()? {
            b'i' => Content::Input,
            b's' => Content::Staged(self.u64()?),
            b'l' => Content::Symlink(self.bytes()?.into()),
            b'f' => Content::Special(SpecialKind::Fifo, self.u32()?),
            b'k' => Content::Special(SpecialKind::Socket, self.u32()?),
            b'c' => Content::Special(SpecialKind::Character, self.u32()?),
            b'b' => Content::Special(SpecialKind::Block, self.u32()?),
            b'd' => Content::Directory,
            _ => return None,
        })
    }

    fn fact(&mut self) -> Option<Fact<u64>> {
        Some(match self.u8()? {
            b'I' => Fact::Inode {
                id: self.id()?,
                meta: self.meta()?,
                born: self.time()?,
                flags: InodeFlags(self.u32()?),
                content: self.content()?,
            },
            b'G' => Fact::Gone(self.id()?),
            kind @ (b'N' | b'n') => Fact::Name {
                directory: self.id()?,
                name: Name::new(self.bytes()?).ok()?.to_owned(),
                id: if kind == b'N' { Some(self.id()?) } else { None },
            },
            kind @ (b'X' | b'x') => Fact::Extended {
                id: self.id()?,
                name: self.bytes()?.into(),
                value: if kind == b'X' {
                    Some(self.bytes()?.into())
                } else {
                    None
                },
            },
            b'+' => Fact::Next(self.u64()?),
            _ => return None,
        })
    }
}
