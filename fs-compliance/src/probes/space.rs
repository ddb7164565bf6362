//! Space: holes, limits, extents and files to swap to.

use rustix::fd::OwnedFd;
use rustix::fs::{
    FallocateFlags, SeekFrom, fallocate, fstat, fsync, ftruncate, ioctl_ficlone, seek, statvfs,
};
use rustix::io::{Errno, pwrite};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::Ground;
use super::check::{
    Outcome, chmod, content, get, make, must, not_supported, offered, put, read_at, refused, same,
    size, write_at,
};
use super::raw::{extents, ignore, swap_on_and_off};

probes! { "space":
    file_system_tells_its_space "statfs gives blocks, free ones, inodes and names of 255 bytes that make sense",
    space_is_reserved "fallocate extends a file with zeros, and not its size with FALLOC_FL_KEEP_SIZE",
    hole_is_punched "FALLOC_FL_PUNCH_HOLE leaves zeros, frees blocks and keeps the size",
    range_is_zeroed "FALLOC_FL_ZERO_RANGE leaves zeros, also past the end",
    range_is_collapsed "FALLOC_FL_COLLAPSE_RANGE takes a range out of a file",
    range_is_inserted "FALLOC_FL_INSERT_RANGE puts a hole into a file",
    range_is_unshared "FALLOC_FL_UNSHARE_RANGE keeps the content",
    holes_are_found_exactly "SEEK_DATA and SEEK_HOLE find where data begins and ends, and ENXIO after the last",
    large_offsets_work "A byte at 4 TiB is written and read, and the hole before it takes no blocks",
    blocks_count_what_is_written "st_blocks covers what was written and shrinks when it is cut off",
    size_limit_is_kept "Writing at RLIMIT_FSIZE is EFBIG, and across it writes what fits",
    full_file_system_says_so "Writing to a full file system is ENOSPC, and works again when space is free",
    extents_are_told "FS_IOC_FIEMAP tells where data lies",
    file_is_cloned "FICLONE gives a file the content of another, and later writes touch one only",
    file_takes_the_swap "A file without holes can be swapped to",
}

const BLOCK: usize = 64 << 10;

/// A file of four blocks: `a`, `b`, `c`, `d`.
fn four_blocks() -> rustix::io::Result<OwnedFd> {
    put("a", &b"abcd".map(|letter| [letter; BLOCK]).concat())
}

/// Fails unless the file consists of such blocks.
fn consists_of(file: &OwnedFd, blocks: &[u8]) -> Outcome {
    let seen = content(file)?;
    same("size", seen.len(), blocks.len() * BLOCK)?;
    for (number, (seen, letter)) in seen.chunks(BLOCK).zip(blocks).enumerate() {
        must(
            seen.iter().all(|byte| byte == letter),
            format_args!(
                "block {number} begins with {:?}, not all {letter:?}",
                seen[0]
            ),
        )?;
    }
    Ok(())
}

fn change(file: &OwnedFd, flags: FallocateFlags, first: usize, count: usize) -> Outcome {
    let (start, length) = ((first * BLOCK) as u64, (count * BLOCK) as u64);
    offered("fallocate", fallocate(file, flags, start, length), &[])
}

fn file_system_tells_its_space(_: &Ground) -> Outcome {
    let seen = statvfs(".")?;
    must(seen.f_bsize > 0 && seen.f_frsize > 0, "blocks have no size")?;
    must(seen.f_blocks > 0, "there are no blocks")?;
    let ordered = seen.f_bavail <= seen.f_bfree && seen.f_bfree <= seen.f_blocks;
    must(
        ordered,
        format_args!(
            "{} available, {} free of {}",
            seen.f_bavail, seen.f_bfree, seen.f_blocks
        ),
    )?;
    must(
        seen.f_ffree <= seen.f_files,
        "more inodes are free than there are",
    )?;
    same("longest name", seen.f_namemax, 255)
}

fn space_is_reserved(_: &Ground) -> Outcome {
    let file = put("a", b"content")?;
    offered(
        "fallocate",
        fallocate(&file, FallocateFlags::empty(), 0, 100_000),
        &[],
    )?;
    let seen = content(&file)?;
    same("size", seen.len(), 100_000)?;
    must(&seen[..7] == b"content", "the content is lost")?;
    must(
        seen[7..].iter().all(|byte| *byte == 0),
        "the rest is not zeros",
    )?;
    let result = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20);
    offered("FALLOC_FL_KEEP_SIZE", result, &[])?;
    same("size kept", size(&file)?, 100_000)?;
    let blocks = fstat(&file)?.st_blocks;
    must(
        blocks * 512 >= 1 << 20,
        format_args!("it has {blocks} blocks of 512 bytes"),
    )
}

fn hole_is_punched(_: &Ground) -> Outcome {
    let file = four_blocks()?;
    fsync(&file)?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    change(&file, punch, 1, 2)?;
    consists_of(&file, b"a\0\0d")?;
    let blocks = fstat(&file)?.st_blocks;
    must(
        blocks * 512 < 4 * BLOCK as i64,
        format_args!("it has {blocks} blocks of 512 bytes, as if it had no hole"),
    )
}

fn range_is_zeroed(_: &Ground) -> Outcome {
    let file = four_blocks()?;
    change(&file, FallocateFlags::ZERO_RANGE, 1, 1)?;
    consists_of(&file, b"a\0cd")?;
    change(&file, FallocateFlags::ZERO_RANGE, 3, 2)?;
    consists_of(&file, b"a\0c\0\0")
}

fn range_is_collapsed(_: &Ground) -> Outcome {
    let file = four_blocks()?;
    change(&file, FallocateFlags::COLLAPSE_RANGE, 1, 1)?;
    consists_of(&file, b"acd")
}

fn range_is_inserted(_: &Ground) -> Outcome {
    let file = four_blocks()?;
    change(&file, FallocateFlags::INSERT_RANGE, 1, 1)?;
    consists_of(&file, b"a\0bcd")
}

fn range_is_unshared(_: &Ground) -> Outcome {
    let file = four_blocks()?;
    change(&file, FallocateFlags::UNSHARE_RANGE, 1, 2)?;
    consists_of(&file, b"abcd")
}

fn holes_are_found_exactly(_: &Ground) -> Outcome {
    let file = make("a", 0o600)?;
    write_at(&file, &[b'x'; BLOCK], 4 * BLOCK as u64)?;
    ftruncate(&file, 16 * BLOCK as u64)?;
    let (start, end) = (4 * BLOCK as u64, 5 * BLOCK as u64);
    let find = |from| seek(&file, from);
    same("start of the data", find(SeekFrom::Data(0))?, start)?;
    same("first hole", find(SeekFrom::Hole(0))?, 0)?;
    same("end of the data", find(SeekFrom::Hole(start))?, end)?;
    refused("more data", find(SeekFrom::Data(end)), Errno::NXIO)?;
    refused(
        "a hole after the end",
        find(SeekFrom::Hole(16 * BLOCK as u64)),
        Errno::NXIO,
    )
}

fn large_offsets_work(_: &Ground) -> Outcome {
    let file = make("a", 0o600)?;
    let far = 4 << 40;
    write_at(&file, b"x", far)?;
    same("size", size(&file)?, (4 << 40) + 1)?;
    same("byte read", read_at(&file, 2, far - 1)?, b"\0x".to_vec())?;
    fsync(&file)?;
    let blocks = fstat(&file)?.st_blocks;
    must(
        blocks < 1 << 14,
        format_args!("it takes {blocks} blocks of 512 bytes"),
    )
}

fn blocks_count_what_is_written(_: &Ground) -> Outcome {
    // Not of one letter: a file system may compress or find holes.
    let bytes: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let file = put("a", &bytes)?;
    fsync(&file)?;
    let blocks = fstat(&file)?.st_blocks;
    must(
        blocks * 512 >= 1 << 20,
        format_args!("1 MiB takes {blocks} blocks of 512 bytes"),
    )?;
    must(
        blocks * 512 < 8 << 20,
        format_args!("1 MiB takes {blocks} blocks of 512 bytes"),
    )?;
    ftruncate(&file, 0)?;
    fsync(&file)?;
    same("blocks of an empty file", fstat(&file)?.st_blocks, 0)
}

fn size_limit_is_kept(_: &Ground) -> Outcome {
    ignore(libc::SIGXFSZ);
    let limit = 1 << 20;
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        },
    )?;
    let file = make("a", 0o600)?;
    let bytes = [b'x'; 8192];
    same(
        "bytes written across it",
        pwrite(&file, &bytes, limit - 100)?,
        100,
    )?;
    refused("writing at it", pwrite(&file, &bytes, limit), Errno::FBIG)?;
    refused(
        "extending over it",
        ftruncate(&file, limit + 1),
        Errno::FBIG,
    )?;
    same("size", size(&file)?, 1 << 20)
}

fn full_file_system_says_so(ground: &Ground) -> Outcome {
    let Some(small) = &ground.small else {
        return not_supported("needs a small file system");
    };
    let space = statvfs(small)?;
    let free = space.f_bavail * space.f_frsize;
    if free > Ground::SMALL {
        return not_supported(format_args!("{free} bytes are free, too many to be filled"));
    }
    let name = small.join("fills").to_string_lossy().into_owned();
    let file = make(&name, 0o600)?;
    let found = fill(&file, free);
    rustix::fs::unlink(name.as_str())?;
    found
}

fn fill(file: &OwnedFd, free: u64) -> Outcome {
    let bytes = vec![b'x'; 1 << 20];
    let mut offset = 0;
    let result = loop {
        match pwrite(file, &bytes, offset) {
            Ok(count) if offset < 2 * free + (1 << 20) => offset += count as u64,
            result => break result,
        }
    };
    refused("writing on and on", result, Errno::NOSPC)?;
    fsync(file)?;
    same("size", size(file)? as u64, offset)?;
    ftruncate(file, 0)?;
    write_at(file, &bytes[..4096], 0)?;
    Ok(fsync(file)?)
}

fn extents_are_told(_: &Ground) -> Outcome {
    let file = make("a", 0o600)?;
    write_at(&file, &[b'x'; BLOCK], 4 * BLOCK as u64)?;
    let told = offered("FS_IOC_FIEMAP", extents(&file), &[])?;
    let length: u64 = told.iter().map(|extent| extent.length).sum();
    same(
        "start",
        told.first().map(|extent| extent.logical),
        Some(4 * BLOCK as u64),
    )?;
    same("length", length, BLOCK as u64)?;
    must(
        told.iter().all(|extent| extent.physical > 0),
        "an extent lies nowhere",
    )
}

fn file_is_cloned(_: &Ground) -> Outcome {
    let from = four_blocks()?;
    let to = make("b", 0o600)?;
    offered(
        "FICLONE",
        ioctl_ficlone(&to, &from),
        &[Errno::INVAL, Errno::XDEV],
    )?;
    consists_of(&to, b"abcd")?;
    write_at(&to, b"x", 0)?;
    same("first byte of the other", get("a")?[0], b'a')
}

/// The first page of an empty swap area of 16 pages, as mkswap writes it.
fn swap_header(page: usize) -> Vec<u8> {
    let mut header = vec![0; page];
    header[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
    header[1028..1032].copy_from_slice(&15_u32.to_ne_bytes());
    header[page - 10..].copy_from_slice(b"SWAPSPACE2");
    header
}

fn file_takes_the_swap(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    let page = rustix::param::page_size();
    let file = put("a", &vec![0; 16 * page])?;
    chmod("a", 0o600)?;
    write_at(&file, &swap_header(page), 0)?;
    fsync(&file)?;
    drop(file);
    offered("swapon", swap_on_and_off("a"), &[Errno::PERM, Errno::INVAL])
}
