//! Bytes: big files, read and written in every way.
#![expect(unsafe_code, reason = "memory maps")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Findings;
use crate::Result;
use crate::tree::scramble;

/// How much is written at once.
const CHUNK: usize = 1 << 20;
/// How much is read at once: what a CPU's own cache holds.
const READ: usize = 128 << 10;
const PAGE: usize = 4096;

/// Figures are per megabyte, so that they mean the same at every scale.
fn megabytes(bytes: usize) -> usize {
    bytes.div_ceil(CHUNK)
}

pub(super) fn read(found: &mut Findings, name: &str, reads: usize) -> Result<()> {
    let mut file = File::open(name)?;
    let bytes = file.metadata()?.len() as usize;
    let first = found.time("sequential read, per MB, first", megabytes(bytes), || {
        drain(&mut file)
    })?;
    let mut file = File::open(name)?;
    found.time("sequential read, per MB, warm", megabytes(bytes), || {
        drain(&mut file)
    })?;
    let sum = found.time("mmap and touch, per MB", megabytes(bytes), || touch(&file))?;
    let pages = (bytes / PAGE).max(1) as u64;
    let mixed = found.time("random read of 4 KB", reads, || {
        let mut buffer = [0; PAGE];
        let (mut state, mut mixed) = (1, 0_u64);
        for _ in 0..reads {
            state = scramble(state);
            file.read_exact_at(&mut buffer, state % pages * PAGE as u64)?;
            mixed = mixed.wrapping_mul(31).wrapping_add(u64::from(buffer[0]));
        }
        Ok(mixed)
    })?;
    found.saw(format_args!("{first} {sum} {mixed}"));
    Ok(())
}

fn drain(file: &mut File) -> Result<usize> {
    let mut buffer = vec![0; READ];
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(total),
            n => total += n,
        }
    }
}

/// One byte of every page.
fn touch(file: &File) -> Result<u64> {
    // SAFETY: nobody changes or cuts the file: it is an input of ours alone.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(map.iter().step_by(PAGE).map(|byte| u64::from(*byte)).sum())
}

pub(super) fn write(found: &mut Findings, bytes: usize) -> Result<()> {
    let chunk = vec![0x5a; CHUNK];
    found.time("sequential write, per MB", megabytes(bytes), || {
        let mut file = File::create("written")?;
        for _ in 0..megabytes(bytes) {
            file.write_all(&chunk)?;
        }
        Ok(())
    })?;
    found.saw(fs::metadata("written")?.len());
    fs::remove_file("written")?;
    Ok(())
}

pub(super) fn append(found: &mut Findings, times: usize) -> Result<()> {
    for (name, size) in [("append 4 KB", PAGE), ("append 200 bytes", 200)] {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open("appended")?;
        let piece = vec![7; size];
        found.time(name, times, || {
            for _ in 0..times {
                file.write_all(&piece)?;
            }
            Ok(())
        })?;
        found.saw(file.metadata()?.len());
        fs::remove_file("appended")?;
    }
    Ok(())
}

/// Writes `bytes` that no page has twice.
pub(crate) fn fill(path: &Path, bytes: usize, seed: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let mut chunk: Vec<u8> = (0..bytes.min(CHUNK))
        .map(|i| scramble(seed.wrapping_add(i as u64 / 8)) as u8)
        .collect();
    let mut left = bytes;
    while left > 0 {
        for (number, page) in chunk.chunks_mut(PAGE).enumerate() {
            let mark = scramble(seed ^ (left + number) as u64).to_le_bytes();
            let length = page.len().min(mark.len());
            page[..length].copy_from_slice(&mark[..length]);
        }
        let now = left.min(CHUNK);
        file.write_all(&chunk[..now])?;
        left -= now;
    }
    Ok(())
}

pub(super) fn hash(found: &mut Findings, bytes: usize) -> Result<()> {
    fill(Path::new("hashed"), bytes, 1)?;
    let file = File::open("hashed")?;
    let digest = found.time("one BLAKE3 pass", 1, || {
        Ok(blake3::Hasher::new().update_reader(file)?.finalize())
    })?;
    found.saw(digest);
    fs::remove_file("hashed")?;
    Ok(())
}
