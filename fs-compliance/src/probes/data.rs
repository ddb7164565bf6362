//! Reading and writing.

use rustix::fs::{
    OFlags, SeekFrom, copy_file_range, fdatasync, fsync, ftruncate, seek, sendfile, syncfs,
};
use rustix::io::{Errno, pread, pwrite, read};

use super::Ground;
use super::check::{
    Outcome, content, get, holds, make, mkdir, must, offered, open, put, read_at, reads, refused,
    rewind, same, size, write_all, write_at,
};
use super::process::{Child, in_child};

probes! { "data":
    appending_descriptors_interleave "Two descriptors with O_APPEND write one after the other, none over the other",
    appending_processes_lose_nothing "Two processes that append 500 records each leave 1,000 whole ones",
    direct_input_and_output "O_DIRECT reads and writes whole aligned pages, coherent with other descriptors",
    direct_access_may_be_unaligned "What is not aligned works with O_DIRECT or is EINVAL, and never wrong data",
    range_is_copied "copy_file_range copies between offsets of two files and within one",
    file_is_sent "sendfile copies from one file to another, from its offset",
    written_data_is_synced "fsync and fdatasync of a file, fsync of a directory and syncfs succeed",
    reads_end_with_the_file "A read at the end gives nothing, one across the end what is there",
    seek_goes_past_the_end "Writing past the end fills the gap with zeros",
    truncation_cuts_and_extends "A file that is cut and extended again reads as zeros after the cut",
    other_process_sees_writes "What one process wrote is at once read, and its size seen, by another",
    old_reader_sees_new_writes "A descriptor opened to read before a file was changed reads the change",
    reading_needs_the_right_mode "Reading through a write-only descriptor and the other way are EBADF",
}

fn appending_descriptors_interleave(_: &Ground) -> Outcome {
    make("a", 0o600)?;
    let appending = || open("a", OFlags::WRONLY | OFlags::APPEND);
    let (one, two) = (appending()?, appending()?);
    for (file, text) in [
        (&one, "1one"),
        (&two, "2two"),
        (&one, "3one"),
        (&two, "4two"),
    ] {
        write_all(file, text.as_bytes())?;
    }
    holds("a", b"1one2two3one4two")
}

fn append_records(letter: u8) -> Outcome {
    let file = open("a", OFlags::WRONLY | OFlags::APPEND)?;
    for _ in 0..500 {
        write_all(&file, &[letter; 100])?;
    }
    Ok(())
}

fn appending_processes_lose_nothing(_: &Ground) -> Outcome {
    make("a", 0o600)?;
    let other = Child::start(|| append_records(b'x'))?;
    append_records(b'y')?;
    other.wait(None)?;
    let written = get("a")?;
    same("size", written.len(), 100_000)?;
    let whole = written
        .chunks(100)
        .all(|record| record.iter().all(|byte| *byte == record[0]));
    must(whole, "a record is torn")
}

const PAGE: usize = 4096;

#[repr(align(4096))]
struct Pages([u8; 2 * PAGE]);

fn direct(name: &str) -> Outcome<rustix::fd::OwnedFd> {
    offered(
        "O_DIRECT",
        open(name, OFlags::RDWR | OFlags::DIRECT),
        &[Errno::INVAL],
    )
}

fn direct_input_and_output(_: &Ground) -> Outcome {
    let plain = put("a", &[b'x'; 2 * PAGE])?;
    let file = direct("a")?;
    let mut pages = Pages([b'y'; 2 * PAGE]);
    write_at(&file, &pages.0[..PAGE], PAGE as u64)?;
    same(
        "a byte by the other descriptor",
        read_at(&plain, 1, PAGE as u64)?,
        vec![b'y'],
    )?;
    write_at(&plain, b"z", 0)?;
    let count = pread(&file, &mut pages.0[..], 0)?;
    same("count of bytes read", count, 2 * PAGE)?;
    same("first bytes", &pages.0[..2], b"zx")?;
    same("last byte", pages.0[2 * PAGE - 1], b'y')
}

fn direct_access_may_be_unaligned(_: &Ground) -> Outcome {
    put("a", &[b'x'; 2 * PAGE])?;
    let file = direct("a")?;
    let mut pages = Pages([0; 2 * PAGE]);
    match pread(&file, &mut pages.0[1..101], 3) {
        Ok(count) => same("bytes read", &pages.0[1..=count], &[b'x'; 100][..])?,
        result => refused("an unaligned read", result, Errno::INVAL)?,
    }
    match pwrite(&file, &[b'y'; 100], 3) {
        Ok(_) => same(
            "content",
            &get("a")?[2..104],
            &[&b"x"[..], &[b'y'; 100], b"x"].concat(),
        ),
        result => {
            refused("an unaligned write", result, Errno::INVAL)?;
            same("content", get("a")?, vec![b'x'; 2 * PAGE])
        }
    }
}

fn range_is_copied(_: &Ground) -> Outcome {
    let from = put("a", b"0123456789")?;
    let to = put("b", b"abcdefghij")?;
    let (mut start, mut end) = (2, 4);
    let count = offered(
        "copy_file_range",
        copy_file_range(&from, Some(&mut start), &to, Some(&mut end), 3),
        &[],
    )?;
    same("count of bytes", count, 3)?;
    same("offsets afterwards", (start, end), (5, 7))?;
    holds("b", b"abcd234hij")?;
    let (mut start, mut end) = (0, 10);
    copy_file_range(&to, Some(&mut start), &to, Some(&mut end), 4)?;
    holds("b", b"abcd234hijabcd")
}

fn file_is_sent(_: &Ground) -> Outcome {
    let bytes: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
    let from = put("a", &bytes)?;
    let to = make("b", 0o600)?;
    let mut offset = 1_000;
    while offset < bytes.len() as u64 {
        let count = sendfile(&to, &from, Some(&mut offset), bytes.len())?;
        must(count > 0, format_args!("ended at {offset}"))?;
    }
    must(get("b")? == bytes[1_000..], "what arrived differs")
}

fn written_data_is_synced(_: &Ground) -> Outcome {
    mkdir("d")?;
    let file = put("d/a", b"content")?;
    let directory = open("d", OFlags::RDONLY | OFlags::DIRECTORY)?;
    fdatasync(&file)?;
    fsync(&file)?;
    fsync(&directory)?;
    Ok(syncfs(&directory)?)
}

fn reads_end_with_the_file(_: &Ground) -> Outcome {
    let file = put("a", b"content")?;
    let mut buffer = [0; 100];
    same("count across the end", pread(&file, &mut buffer, 4)?, 3)?;
    same("count at the end", pread(&file, &mut buffer, 7)?, 0)?;
    same(
        "count after the end",
        pread(&file, &mut buffer, 1 << 40)?,
        0,
    )
}

fn seek_goes_past_the_end(_: &Ground) -> Outcome {
    let file = put("a", b"x")?;
    same("offset", seek(&file, SeekFrom::End(9_999))?, 10_000)?;
    write_all(&file, b"y")?;
    let seen = content(&file)?;
    same("size", seen.len(), 10_001)?;
    must(
        seen[1..10_000].iter().all(|byte| *byte == 0),
        "the gap is not zeros",
    )
}

fn truncation_cuts_and_extends(_: &Ground) -> Outcome {
    let file = put("a", &[b'x'; 10_000])?;
    ftruncate(&file, 5_000)?;
    ftruncate(&file, 10_000)?;
    let seen = content(&file)?;
    same("size", seen.len(), 10_000)?;
    must(
        seen[..5_000].iter().all(|byte| *byte == b'x'),
        "content before the cut is lost",
    )?;
    must(
        seen[5_000..].iter().all(|byte| *byte == 0),
        "old content came back after the cut",
    )
}

fn other_process_sees_writes(_: &Ground) -> Outcome {
    let file = put("a", b"old")?;
    in_child(|| holds("a", b"old"))?;
    write_at(&file, b"longer", 0)?;
    in_child(|| {
        same("size", super::check::lstat("a")?.st_size, 6)?;
        holds("a", b"longer")
    })?;
    in_child(|| write_at(open("a", OFlags::WRONLY)?, b"even longer", 0))?;
    same("size here", size(&file)?, 11)?;
    reads(&file, b"even longer")
}

fn old_reader_sees_new_writes(_: &Ground) -> Outcome {
    put("a", b"old")?;
    let reader = open("a", OFlags::RDONLY)?;
    reads(&reader, b"old")?;
    in_child(|| {
        Ok(write_all(
            open("a", OFlags::WRONLY | OFlags::TRUNC)?,
            b"newer",
        )?)
    })?;
    reads(&reader, b"newer")
}

fn reading_needs_the_right_mode(_: &Ground) -> Outcome {
    let file = put("a", b"content")?;
    rewind(&file)?;
    let (to_read, to_write) = (open("a", OFlags::RDONLY)?, open("a", OFlags::WRONLY)?);
    refused("reading", read(&to_write, &mut [0_u8; 8]), Errno::BADF)?;
    refused("writing", pwrite(&to_read, b"x", 0), Errno::BADF)?;
    refused("cutting", ftruncate(&to_read, 0), Errno::INVAL)
}
