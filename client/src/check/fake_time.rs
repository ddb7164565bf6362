//! Other dates, by libfaketime: a library that is loaded into the job's programs.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where distributions put it. `*` is one directory.
const PLACES: [&str; 4] = ["/usr/lib/*", "/usr/lib", "/usr/lib64", "/usr/local/lib"];

const NAME: &str = "faketime/libfaketime.so.1";

/// The library, if it is installed.
pub(super) fn library() -> Option<PathBuf> {
    let places = PLACES
        .into_iter()
        .flat_map(|place| match place.strip_suffix("/*") {
            None => vec![PathBuf::from(place)],
            Some(parent) => {
                let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
                entries.map(|entry| entry.path()).collect()
            }
        });
    let mut libraries = places.map(|place| place.join(NAME));
    libraries.find(|library| library.is_file())
}

/// The variables that load it and move the date by an offset, beside what is loaded anyway. Clocks that
/// only measure are left alone: a job that waits for something would wait a year.
pub(super) fn variables(library: &Path, offset: &str, given: &[OsString]) -> Vec<OsString> {
    let mut preload = [b"LD_PRELOAD=", library.as_os_str().as_bytes()].concat();
    let loaded = given
        .iter()
        .find_map(|variable| variable.as_bytes().strip_prefix(b"LD_PRELOAD="));
    if let Some(loaded) = loaded {
        preload.push(b':');
        preload.extend_from_slice(loaded);
    }
    vec![
        OsString::from_vec(preload),
        format!("FAKETIME={offset}").into(),
        "DONT_FAKE_MONOTONIC=1".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_loaded_anyway_stays() {
        let given = ["PATH=/bin".into(), "LD_PRELOAD=/x.so".into()];
        let variables = variables(Path::new("/f.so"), "+1d", &given);
        assert_eq!(variables[0], "LD_PRELOAD=/f.so:/x.so");
        assert_eq!(variables[1], "FAKETIME=+1d");
    }
}
