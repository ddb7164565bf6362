//! Shared mappings.

use rustix::fs::{
    AtFlags, CWD, OFlags, StatxFlags, Timespec, Timestamps, ftruncate, futimens, statx,
};
use rustix::io::Errno;

use super::Ground;
use super::check::{Outcome, content, get, lstat, must, open, put, read_at, same, tick, write_at};
use super::process::{in_child, signal_of};
use super::raw::Mapping;

probes! { "mapping":
    mapping_and_calls_see_each_other "A store to a shared mapping is read by read, and a write is seen in the mapping",
    mapping_outlives_its_descriptor "A store after the descriptor was closed is in the file, without msync",
    mapping_outlives_its_name "A mapping of a file without a name keeps its content",
    mapping_moves_the_time "A store to a shared mapping moves the time of last change by the next msync",
    mapping_moves_the_time_that_was_known "A store to a shared mapping moves a time of last change that was told before the file was opened",
    mapping_is_shared_by_processes "A store by one process is seen in another's mapping of the same file",
    access_after_truncation_is_a_signal "Touching a page that was cut off is SIGBUS, and zeros when the file is extended again",
    two_mappings_are_one "Two mappings of a file by two names show one content",
}

const PAGE: usize = 4096;

fn mapped(name: &str) -> Outcome<Mapping> {
    Ok(Mapping::shared(open(name, OFlags::RDWR)?, 2 * PAGE)?)
}

fn mapping_and_calls_see_each_other(_: &Ground) -> Outcome {
    let file = put("a", &[b'x'; 2 * PAGE])?;
    let mapping = mapped("a")?;
    same("byte at first", mapping.load(PAGE), b'x')?;
    mapping.store(5, b'm');
    same("bytes read", read_at(&file, 3, 4)?, b"xmx".to_vec())?;
    write_at(&file, b"w", PAGE as u64)?;
    same("byte in the mapping", mapping.load(PAGE), b'w')
}

fn mapping_outlives_its_descriptor(_: &Ground) -> Outcome {
    drop(put("a", &[b'x'; 2 * PAGE])?);
    let mapping = mapped("a")?;
    mapping.store(7, b'm');
    drop(mapping);
    same("byte by another process' read", get("a")?[7], b'm')?;
    in_child(|| same("byte read by another process", get("a")?[7], b'm'))
}

fn mapping_outlives_its_name(_: &Ground) -> Outcome {
    drop(put("a", &[b'x'; 2 * PAGE])?);
    let mapping = mapped("a")?;
    rustix::fs::unlink("a")?;
    put("a", &[b'n'; 2 * PAGE])?;
    mapping.store(0, b'm');
    same("bytes", [mapping.load(0), mapping.load(PAGE)], [b'm', b'x'])?;
    same("byte of the new file", get("a")?[0], b'n')
}

fn mapping_moves_the_time(_: &Ground) -> Outcome {
    let file = put("a", &[b'x'; 2 * PAGE])?;
    let mapping = mapped("a")?;
    let long_ago = Timespec {
        tv_sec: 1_000_000,
        tv_nsec: 0,
    };
    futimens(
        &file,
        &Timestamps {
            last_access: long_ago,
            last_modification: long_ago,
        },
    )?;
    same("time at first", lstat("a")?.st_mtime, 1_000_000)?;
    mapping.store(0, b'm');
    mapping.sync()?;
    must(lstat("a")?.st_mtime > 1_000_000, "it did not move")
}

fn mapping_moves_the_time_that_was_known(_: &Ground) -> Outcome {
    drop(put("a", &[b'x'; 2 * PAGE])?);
    // Nothing else is asked for: what comes along could make a cache ask for all.
    let time = || {
        let seen = statx(CWD, "a", AtFlags::empty(), StatxFlags::MTIME)?;
        Ok::<_, Errno>((seen.stx_mtime.tv_sec, seen.stx_mtime.tv_nsec))
    };
    let first = time()?;
    tick();
    mapped("a")?.store(0, b'm');
    must(time()? > first, "it did not move")
}

fn mapping_is_shared_by_processes(_: &Ground) -> Outcome {
    put("a", &[b'x'; 2 * PAGE])?;
    let mapping = mapped("a")?;
    in_child(|| {
        mapped("a")?.store(9, b'm');
        Ok(())
    })?;
    same("byte in the mapping", mapping.load(9), b'm')
}

fn access_after_truncation_is_a_signal(_: &Ground) -> Outcome {
    let file = put("a", &[b'x'; 2 * PAGE])?;
    let mapping = mapped("a")?;
    mapping.store(PAGE, b'm');
    ftruncate(&file, PAGE as u64)?;
    same("first page", mapping.load(0), b'x')?;
    let touch = || {
        mapping.load(PAGE);
    };
    same("signal", signal_of(touch)?, Some(libc::SIGBUS))?;
    ftruncate(&file, 2 * PAGE as u64)?;
    same("byte after the file was extended", mapping.load(PAGE), 0)?;
    same("byte read then", content(&file)?[PAGE], 0)
}

fn two_mappings_are_one(_: &Ground) -> Outcome {
    put("a", &[b'x'; 2 * PAGE])?;
    rustix::fs::link("a", "b")?;
    let (one, two) = (mapped("a")?, mapped("b")?);
    one.store(11, b'1');
    two.store(12, b'2');
    same("bytes", [two.load(11), one.load(12)], [b'1', b'2'])
}
