//! POSIX access control lists, as `system.posix_acl_access` and `system.posix_acl_default` hold
//! them (linux/posix_acl_xattr.h, version 2).
//!
//! The kernel obeys them (`FUSE_POSIX_ACL`); what it leaves to the file system is to keep a list
//! and the permission bits in step, and to hand default lists down. The rules are those of acl(5).

/// The list that is obeyed.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The list that a directory hands down.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: [u8; 4] = 2u32.to_le_bytes();
const ENTRY: usize = 8;

const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// A list, valid as far as the kernel has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: [u8; 4],
}

impl Acl {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let entries = bytes.strip_prefix(&VERSION)?;
        if entries.len() % ENTRY != 0 {
            return None;
        }
        let entry = |bytes: &[u8]| Entry {
            tag: u16::from_le_bytes([bytes[0], bytes[1]]),
            perm: u16::from_le_bytes([bytes[2], bytes[3]]),
            id: [bytes[4], bytes[5], bytes[6], bytes[7]],
        };
        Some(Self(entries.chunks_exact(ENTRY).map(entry).collect()))
    }

    pub(super) fn to_bytes(&self) -> Box<[u8]> {
        let entry = |entry: &Entry| {
            let Entry { tag, perm, id } = entry;
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), id].concat()
        };
        let entries = self.0.iter().flat_map(entry);
        VERSION.into_iter().chain(entries).collect()
    }

    fn of(&mut self, tag: u16) -> Option<&mut u16> {
        let found = self.0.iter_mut().find(|entry| entry.tag == tag);
        found.map(|entry| &mut entry.perm)
    }

    /// Whether permission bits say it all.
    pub(super) fn is_minimal(&self) -> bool {
        let minimal = [USER_OBJ, GROUP_OBJ, OTHER];
        self.0.iter().all(|entry| minimal.contains(&entry.tag))
    }

    /// The three entries that permission bits stand for, and how far they are shifted. The bits of
    /// the group are those of the mask, where there is one.
    fn classes(&mut self) -> [(u32, Option<&mut u16>); 3] {
        let group = match self.of(MASK) {
            Some(_) => MASK,
            None => GROUP_OBJ,
        };
        let mut classes = [(6, None), (3, None), (0, None)];
        for entry in &mut self.0 {
            match entry.tag {
                USER_OBJ => classes[0].1 = Some(&mut entry.perm),
                OTHER => classes[2].1 = Some(&mut entry.perm),
                tag if tag == group => classes[1].1 = Some(&mut entry.perm),
                _ => {}
            }
        }
        classes
    }

    /// The permission bits that go with the list.
    pub(super) fn perm(&mut self) -> u16 {
        let bits = self.classes();
        bits.into_iter().fold(0, |all, (shift, perm)| {
            all | perm.map_or(0, |perm| (*perm & 7) << shift)
        })
    }

    /// Follows a chmod.
    pub(super) fn set_perm(&mut self, to: u16) {
        for (shift, perm) in self.classes() {
            if let Some(perm) = perm {
                *perm = to >> shift & 7;
            }
        }
    }

    /// Takes from the list what a new file's mode does not ask for, and returns that mode less
    /// what the list does not grant.
    pub(super) fn restrict(&mut self, mode: u16) -> u16 {
        for (shift, perm) in self.classes() {
            if let Some(perm) = perm {
                *perm &= mode >> shift & 7;
            }
        }
        mode & !0o777 | self.perm()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Acl {
        let entry = |&(tag, perm): &(u16, u16)| Entry {
            tag,
            perm,
            id: [0xff; 4],
        };
        Acl(entries.iter().map(entry).collect())
    }

    /// A named user or group.
    const USER: u16 = 0x02;

    #[test]
    fn bytes_come_back_and_nonsense_is_refused() {
        let list = acl(&[
            (USER_OBJ, 6),
            (USER, 7),
            (GROUP_OBJ, 5),
            (MASK, 5),
            (OTHER, 0),
        ]);
        assert_eq!(Acl::parse(&list.to_bytes()), Some(list));
        assert_eq!(Acl::parse(b"\x01\0\0\0"), None);
        assert_eq!(Acl::parse(b"\x02\0\0\0\x01"), None);
        assert_eq!(Acl::parse(b""), None);
    }

    #[test]
    fn the_mask_stands_for_the_group() {
        let mut list = acl(&[
            (USER_OBJ, 6),
            (USER, 7),
            (GROUP_OBJ, 1),
            (MASK, 5),
            (OTHER, 0),
        ]);
        assert!(!list.is_minimal());
        assert_eq!(list.perm(), 0o650);
        list.set_perm(0o731);
        assert_eq!(list.of(MASK), Some(&mut 3));
        assert_eq!(list.of(GROUP_OBJ), Some(&mut 1));
        assert_eq!(list.perm(), 0o731);
    }

    #[test]
    fn a_new_file_gets_what_both_its_mode_and_the_default_list_grant() {
        let mut list = acl(&[
            (USER_OBJ, 7),
            (USER, 7),
            (GROUP_OBJ, 7),
            (MASK, 6),
            (OTHER, 4),
        ]);
        assert_eq!(list.restrict(0o4666), 0o4664);
        assert_eq!(list.of(USER_OBJ), Some(&mut 6));
        assert_eq!(list.of(GROUP_OBJ), Some(&mut 7));
        let mut minimal = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 5)]);
        assert_eq!(minimal.restrict(0o777), 0o755);
        assert!(minimal.is_minimal());
    }
}
