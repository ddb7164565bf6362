//! What a learned spec has besides: keys that a plain run ignores.

use std::collections::BTreeMap;

use cas::{Digest, RelPath};
use serde::Deserialize;

use super::{parse_slowly, visible};

/// What a job made, what it looked for in vain and what it listed.
#[derive(Debug, Default)]
pub struct Learned {
    /// Paths that it made.
    pub outputs: Vec<RelPath>,
    /// Paths that were not there.
    pub probes: Vec<RelPath>,
    /// Digests of what was in directories. `None` is the workspace.
    pub listed: BTreeMap<Option<RelPath>, Digest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    outputs: Vec<String>,
    probes: Vec<String>,
    listed: BTreeMap<String, String>,
}

impl Learned {
    /// Reads these keys of a spec. The message of a refusal names the key.
    ///
    /// # Errors
    /// A key that makes no sense.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys: Keys = match serde_json::from_str(text) {
            Ok(keys) => keys,
            Err(_) => parse_slowly(text)?,
        };
        let listed = keys.listed.iter().map(|(path, digest)| {
            let wrong = |problem: String| format!("listed: {problem}");
            let directory = match path.as_str() {
                "." => None,
                path => Some(visible::path(path).map_err(wrong)?),
            };
            let digest = digest.parse::<Digest>();
            Ok((
                directory,
                digest.map_err(|e| wrong(format!("'{path}': {e}")))?,
            ))
        });
        Ok(Self {
            outputs: paths("outputs", &keys.outputs)?,
            probes: paths("probes", &keys.probes)?,
            listed: listed.collect::<Result<_, String>>()?,
        })
    }
}

fn paths(key: &str, texts: &[String]) -> Result<Vec<RelPath>, String> {
    let paths = texts.iter().enumerate();
    paths
        .map(|(i, text)| visible::path(text).map_err(|problem| format!("{key}[{i}]: {problem}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learned_keys_are_read_and_refused_by_name() {
        let hash = Digest::of(b"").to_string();
        let text = format!(
            "{{command: ['x'], outputs: ['o'], probes: ['a/b'], listed: {{'.': '{hash}', d: '{hash}'}}}}"
        );
        let learned = Learned::parse(&text).expect("a spec");
        assert_eq!((learned.outputs.len(), learned.probes.len()), (1, 1));
        assert!(learned.listed.contains_key(&None));
        assert_eq!(learned.listed.len(), 2);
        for (text, key) in [
            ("{probes: ['/a']}", "probes[0]"),
            ("{outputs: 1}", "outputs"),
            ("{listed: {d: 'x'}}", "listed"),
            ("{listed: {'..': ''}}", "listed"),
        ] {
            let refused = Learned::parse(text).expect_err(text);
            assert!(refused.contains(key), "{refused}");
        }
    }
}
