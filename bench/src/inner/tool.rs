//! Programs that everybody uses, started and timed inside.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::{Findings, Seen};
use crate::Result;

/// The first run touches everything for the first time, and reads all directories, which changes
/// their times of access: so the second may have to ask for their attributes again. The others find
/// everything known.
pub(super) fn run(found: &mut Findings, name: &str, seen: Seen, command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    for time in ["first", "second", "warm", "warm"] {
        let mut output = Vec::new();
        let mut bytes = 0;
        found.time(format!("{name}, {time}"), 1, || {
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| format!("{program}: {error}"))?;
            bytes = drain(&mut child, matches!(seen, Seen::Bytes), &mut output)?;
            let status = child.wait()?;
            // grep says 1 if nothing matches.
            match status.code() {
                Some(0 | 1) => Ok(()),
                _ => Err(format!("{program}: {status}").into()),
            }
        })?;
        found.saw(summary(seen, bytes, &output));
    }
    Ok(())
}

/// Reads all that the child prints; how many bytes that was. With `forget` they are not kept.
fn drain(child: &mut Child, forget: bool, output: &mut Vec<u8>) -> Result<usize> {
    let mut pipe = child.stdout.take().ok_or("a pipe")?;
    if !forget {
        return Ok(pipe.read_to_end(output)?);
    }
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        match pipe.read(&mut buffer)? {
            0 => return Ok(total),
            n => total += n,
        }
    }
}

fn summary(seen: Seen, bytes: usize, output: &[u8]) -> String {
    let mut lines: Vec<_> = output.split(|byte| *byte == b'\n').collect();
    match seen {
        Seen::Bytes => bytes.to_string(),
        Seen::Lines => lines.len().to_string(),
        Seen::Sorted => {
            lines.sort_unstable();
            let digest = blake3::hash(&lines.join(&b'\n'));
            digest.to_hex()[..16].to_owned()
        }
    }
}
