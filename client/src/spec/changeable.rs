//! Which inputs a job may change: `inputs` and `copy-on-write` of a spec, `--cow` of a call.

use cas::RelPath;
use cas::protocol::{COPY_ON_WRITE_MAX, CopyOnWrite};
use serde::Deserialize;

use super::visible;

/// What holds for all inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum InputsChoice {
    #[default]
    ReadOnly,
    CopyOnWrite,
}

pub(super) fn mean(all: InputsChoice, paths: &[String]) -> Result<CopyOnWrite, String> {
    let paths = paths.iter().enumerate().map(|(i, path)| {
        visible::path(path).map_err(|problem| format!("copy-on-write[{i}]: {problem}"))
    });
    let below = below(paths.collect::<Result<_, _>>()?)?;
    Ok(match all {
        InputsChoice::ReadOnly => below,
        InputsChoice::CopyOnWrite => CopyOnWrite::Everything,
    })
}

/// The rule for some paths. Refuses more than can be told to a daemon.
pub fn below(mut paths: Vec<RelPath>) -> Result<CopyOnWrite, String> {
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        return Ok(CopyOnWrite::Nothing);
    }
    let bytes: usize = paths.iter().map(|path| path.as_bytes().len()).sum();
    if bytes > COPY_ON_WRITE_MAX {
        return Err(format!(
            "copy-on-write: the paths have {bytes} bytes, and at most {COPY_ON_WRITE_MAX} can be \
             told; name directories above them"
        ));
    }
    Ok(CopyOnWrite::Below(paths))
}
