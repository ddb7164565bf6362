//! The declared inputs of a spec. There may be 300,000, so each is read and understood in one go:
//! of its strings only the path is copied.

use std::borrow::Cow;
use std::fmt;

use cas::manifest::{Declared, DeclaredKind};
use cas::{Digest, RelPath};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Input;

/// What one entry of `visible` means, or what is wrong with it.
#[derive(Debug)]
pub(super) struct Meant(pub(super) Result<Input, String>);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VisibleObject<'t> {
    #[serde(borrow)]
    path: Option<Borrowed<'t>>,
    #[serde(borrow)]
    r#type: Option<Borrowed<'t>>,
    #[serde(borrow)]
    hash: Option<Borrowed<'t>>,
    mode: Option<u32>,
    mtime: Option<i64>,
    writable: bool,
}

/// A string that is part of the document, unless it had to be unescaped. A type of its own,
/// because within an `Option` serde always copies a `Cow`.
#[derive(Debug)]
struct Borrowed<'t>(Cow<'t, str>);

impl<'de: 't, 't> Deserialize<'de> for Borrowed<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.into()))
            }
        }
        deserializer.deserialize_str(Either).map(Self)
    }
}

/// By hand, because an untagged enum would copy every entry before it looks at it, and would say
/// only that nothing matched.
impl<'de> Deserialize<'de> for Meant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Meant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or an object with path and hash")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Meant, E> {
                Ok(Meant(path(name).map(Input::Named)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Meant, A::Error> {
                let object = de::value::MapAccessDeserializer::new(map);
                let object = VisibleObject::deserialize(object)?;
                Ok(Meant(object.mean().map(Input::Declared)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl VisibleObject<'_> {
    fn mean(self) -> Result<Declared, String> {
        let path = path(text(&self.path).ok_or("path: is missing")?)?;
        // The oldest form has a hash and nothing else. Any further key means the newer form,
        // of which every key is required.
        let oldest = self.r#type.is_none() && self.mode.is_none() && self.mtime.is_none();
        let missing = |key| format!("'{path}': {key}: is missing");
        let r#type = match text(&self.r#type) {
            None if oldest => "file",
            other => other.ok_or_else(|| missing("type"))?,
        };
        let mode = self
            .mode
            .or(oldest.then_some(0o444))
            .ok_or_else(|| missing("mode"))?;
        let mtime = self
            .mtime
            .or(oldest.then_some(0))
            .ok_or_else(|| missing("mtime"))?;
        let digest = || -> Result<Digest, String> {
            let hash = text(&self.hash).ok_or_else(|| missing("hash"))?;
            hash.parse()
                .map_err(|error| format!("'{path}': hash: {error}"))
        };
        let kind = match r#type {
            "file" if self.writable => DeclaredKind::WritableFile(digest()?),
            _ if self.writable => return Err(format!("'{path}': writable: is for files only")),
            "file" => DeclaredKind::File(digest()?),
            "symlink" => DeclaredKind::Symlink(digest()?),
            "directory" => DeclaredKind::Directory,
            other => return Err(format!("'{path}': type: unknown type {other:?}")),
        };
        Ok(Declared {
            mode: (mode & 0o7777) as u16,
            mtime,
            kind,
            path,
        })
    }
}

fn text<'s>(string: &'s Option<Borrowed<'_>>) -> Option<&'s str> {
    string.as_ref().map(|string| &*string.0)
}

pub(super) fn path(text: &str) -> Result<RelPath, String> {
    RelPath::parse(&cas::text::decode(text)).map_err(|reason| format!("path {text:?} {reason}"))
}
