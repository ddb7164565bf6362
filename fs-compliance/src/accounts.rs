//! The accounts that suites demand. They exist inside the run only: copies of the account files are
//! bound over the machine's own in the run's mount namespace.

use crate::outcome::{At as _, Trouble};
use crate::work::place;
use rustix::mount::mount_bind;
use std::fs;
use std::path::Path;

/// xfstests wants these three by name; the others want any two.
pub const NAMES: [&str; 3] = ["fsgqa", "fsgqa2", "123456-fsgqa"];
/// The first number tried for them, as user and as group.
const FIRST: u32 = 31_415;

/// Makes the accounts that are missing, each with a group of its name.
///
/// # Errors
/// When the account files cannot be read, copied or bound.
pub fn provide(work: &Path) -> Result<(), Trouble> {
    let mut users = read("/etc/passwd")?;
    let mut groups = read("/etc/group")?;
    let home = work.join("home");
    for name in NAMES {
        add(&mut users, &mut groups, name, &home);
        fs::create_dir_all(home.join(name)).at(home.display())?;
    }
    cover(work, "/etc/passwd", &users)?;
    cover(work, "/etc/group", &groups)
}

fn read(path: &str) -> Result<String, Trouble> {
    fs::read_to_string(path).at(path)
}

/// Adds what is missing, under a number that neither file has.
fn add(users: &mut String, groups: &mut String, name: &str, home: &Path) {
    let number = group_number(groups, name).unwrap_or_else(|| free_number(users, groups));
    let start = format!("{name}:");
    if !groups.lines().any(|line| line.starts_with(&start)) {
        groups.push_str(&format!("{name}:x:{number}:\n"));
    }
    if !users.lines().any(|line| line.starts_with(&start)) {
        let home = home.join(name);
        // With an `x` PAM would look for it in the shadow file, find nothing and refuse su.
        users.push_str(&format!(
            "{name}:*:{number}:{number}::{}:/bin/bash\n",
            home.display()
        ));
    }
}

fn group_number(groups: &str, name: &str) -> Option<u32> {
    let mut fields = groups.lines().map(|line| line.split(':'));
    let mut line = fields.find(|fields| fields.clone().next() == Some(name))?;
    line.nth(2)?.parse().ok()
}

fn free_number(users: &str, groups: &str) -> u32 {
    let numbers = |text: &str, at: usize| -> Vec<u32> {
        let field = |line: &str| line.split(':').nth(at)?.parse().ok();
        text.lines().filter_map(field).collect()
    };
    let taken = [numbers(users, 2), numbers(users, 3), numbers(groups, 2)].concat();
    let mut free = (FIRST..).filter(|number| !taken.contains(number));
    free.next().unwrap_or(FIRST)
}

fn cover(work: &Path, path: &str, text: &str) -> Result<(), Trouble> {
    let copy = work.join(path.trim_start_matches('/').replace('/', "-"));
    place(&copy, text)?;
    mount_bind(&copy, path).at(format_args!("bind a copy over {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_added_once_with_free_numbers() {
        let mut users = "root:x:0:0:root:/root:/bin/sh\nsome:x:31415:7::/:/bin/sh\n".to_owned();
        let mut groups = "root:x:0:\nother:x:31416:\nfsgqa2:x:50:\n".to_owned();
        for _ in 0..2 {
            for name in NAMES {
                add(&mut users, &mut groups, name, Path::new("/h"));
            }
        }
        let added: Vec<_> = users.lines().skip(2).collect();
        assert_eq!(
            added,
            [
                "fsgqa:*:31417:31417::/h/fsgqa:/bin/bash",
                "fsgqa2:*:50:50::/h/fsgqa2:/bin/bash",
                "123456-fsgqa:*:31418:31418::/h/123456-fsgqa:/bin/bash",
            ]
        );
        assert_eq!(groups.lines().count(), 5);
    }
}
