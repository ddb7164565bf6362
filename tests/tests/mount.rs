//! Mounts that last: `wakebox mount`, and the same as mount(8) calls it.
//!
//! Every mount here is made in a mount namespace of its own, with which it goes.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use wakebox_tests::job::{comes_true, wait_for};
use wakebox_tests::{Outcome, Place, needs_fuse, skip};

/// What scripts know of their mounts: `shown NAME` prints type and options of the mount with this
/// source, `server NAME` the number of the process that serves it.
const WORDS: &str = "cd \"$ROOT/home\"
    shown() { awk -v name=\"$1\" '$1 == name { print $3, $4 }' /proc/self/mounts; }
    server() {
        for process in /proc/[0-9]*; do
            words=$(tr '\\0' ' ' 2>/dev/null <$process/cmdline) || continue
            case $words in
            wakebox-mount*\"$ROOT\"*\" -- $1 \"*) echo ${process#/proc/};;
            esac
        done
    }
    gone() { # waits until a process is
        for try in $(seq 500); do
            case $(cat /proc/$1/stat 2>/dev/null) in '' | *') Z '*) return 0;; esac
            sleep 0.01
        done
        echo process $1 lives on; return 1
    }
    mkdir -p m m2
";

/// Processes that serve mounts of a place.
fn servers(place: &Place) -> Vec<Pid> {
    let needle = place.root().as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let serves = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(b"wakebox-mount")
            && words.windows(needle.len()).any(|part| part == needle)
    };
    pids.filter(serves).filter_map(Pid::from_raw).collect()
}

/// Ends what a test that failed has left.
struct Cleared<'p>(&'p Place);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        for pid in servers(self.0) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Runs a script in a mount namespace of its own, and insists that all it mounted has gone with
/// it; `None` without the right to mount.
fn in_namespace(place: &Place, script: &str) -> Option<Outcome> {
    let cleared = Cleared(place);
    let outcome = place.in_mount_namespace(&format!("{WORDS}\n{script}"))?;
    let ended = comes_true(Duration::from_secs(10), || servers(place).is_empty());
    let (code, told, complained) = (outcome.code(), outcome.stdout(), outcome.stderr());
    assert!(
        ended,
        "left: {:?}; {code} {told} {complained}",
        servers(place)
    );
    drop(cleared);
    Some(outcome)
}

/// The same for a test that has nothing else to do: what the script prints and complains of.
macro_rules! run {
    ($place:expr, $script:expr) => {{
        needs_fuse!();
        match in_namespace(&$place, $script) {
            Some(outcome) => {
                let outcome = outcome.expect(0);
                (outcome.stdout(), outcome.stderr())
            }
            None => skip!("cannot mount here"),
        }
    }};
}

#[test]
fn a_mount_is_ready_at_return_and_its_state_is_free_after_the_unmount() {
    let place = Place::new();
    let script = "
        mkdir -p in/d && echo declared >in/d/f
        $WAKEBOX mount word m -o state=s/deep,inputs=in
        cat m/d/f; echo made >m/d/new; cat m/d/new
        shown word; stat -c %a s/deep; df m | grep -c ^word
        umount m
        for try in 1 2 3; do
            $WAKEBOX mount word m -o state=s/deep && cat m/d/f && umount m
        done";
    let (told, complained) = run!(place, script);
    let lines: Vec<_> = told.lines().collect();
    let [declared, made, shown, mode, df, again @ ..] = &lines[..] else {
        panic!("{told}");
    };
    assert_eq!(
        (*declared, *made, *mode, *df),
        ("declared", "made", "700", "1")
    );
    assert!(shown.starts_with("fuse.wakebox rw,relatime,"), "{shown}");
    assert!(
        !shown.contains("nodev") && !shown.contains("nosuid"),
        "{shown}"
    );
    assert!(shown.contains("default_permissions,allow_other"), "{shown}");
    assert_eq!(again, ["declared"; 3]);
    assert_eq!(complained, "");
}

#[test]
fn the_type_is_plain_where_that_is_asked() {
    let place = Place::new();
    let script = "
        $WAKEBOX mount one m -o state=s,nosubtype,ro,nodev,nosuid,noexec,strictatime,nodiratime
        shown one; touch m/x 2>&1 || true";
    let (told, _) = run!(place, script);
    let flags = "fuse ro,nosuid,nodev,noexec,nodiratime,";
    assert!(told.starts_with(flags), "{told}");
    assert!(
        !told.contains("relatime") && !told.contains("noatime"),
        "{told}"
    );
    assert!(told.contains("Read-only file system"), "{told}");
}

#[test]
fn two_mounts_are_served_at_once_by_a_process_each() {
    let place = Place::new();
    let script = "
        $WAKEBOX mount test m -o state=s & first=$!
        $WAKEBOX mount scratch m2 -o state=s2; wait $first
        echo 1 >m/f; echo 2 >m2/f; cat m/f m2/f
        [ \"$(server test)\" != \"$(server scratch)\" ]
        umount test; cat m2/f; ls m; umount scratch";
    let (told, complained) = run!(place, script);
    assert_eq!((told.as_str(), complained.as_str()), ("1\n2\n2\n", ""));
}

#[test]
fn a_remount_changes_what_it_names_and_read_only_holds_everywhere() {
    let place = Place::new();
    let script = "
        $WAKEBOX mount w m -o state=s,nodev; echo 1 >m/f
        exec 5>>m/f; $WAKEBOX mount w m -o remount,ro && exit 1; exec 5>&-
        $WAKEBOX mount w m -o remount,ro; shown w
        for call in 'touch m/x' 'mkdir m/x' 'rm m/f' 'mv m/f m/g' 'ln m/f m/g' 'chmod 600 m/f' 'truncate -s0 m/f'; do
            $call 2>&1 | grep -c 'Read-only file system'
        done
        mount --bind m m2; mount -i -o remount,bind,rw m2; touch m2/x 2>&1 | grep -c Read-only
        umount m2
        $WAKEBOX mount w m -o remount,rw,noatime; shown w; echo 2 >>m/f; cat m/f
        mkdir none; $WAKEBOX mount w none -o remount,ro || echo $?";
    let (told, complained) = run!(place, script);
    let lines: Vec<_> = told.lines().collect();
    assert!(
        lines[0].starts_with("fuse.wakebox ro,nodev,relatime,"),
        "{told}"
    );
    assert_eq!(lines[1..9], ["1"; 8], "{told}");
    assert!(
        lines[9].starts_with("fuse.wakebox rw,nodev,noatime,"),
        "{told}"
    );
    assert_eq!(lines[10..], ["1", "2", "32"], "{told}");
    let complaints: Vec<_> = complained.lines().collect();
    assert_eq!(complaints.len(), 2, "{complained}");
    assert!(complaints[0].contains("open for writing"), "{complained}");
    assert!(
        complaints[1].ends_with("is anything mounted there?"),
        "{complained}"
    );
}

#[test]
fn mount_finds_its_helper() {
    let place = Place::new();
    // mount(8) looks for helpers in /sbin; nobody else's is to change.
    let script = "
        helpers=$(readlink -f /sbin); mkdir over
        mount -t tmpfs none over; mkdir over/upper over/work
        ln -s $WAKEBOX over/upper/mount.fuse.wakebox
        mount -t overlay o $helpers -o lowerdir=$helpers,upperdir=over/upper,workdir=over/work ||
            { echo no overlay; exit; }
        mount -v -t fuse.wakebox w m -o state=$PWD/s,dev,suid,lazytime,_netdev,x-me=1
        shown w; mount -o remount,ro m; touch m/x 2>&1 | grep -c Read-only; shown w
        mount -o remount,rw m; touch m/x; umount w
        mount -f -t fuse.wakebox w m -o state=$PWD/other; ls -d other || shown w
        mount -t fuse.wakebox w m || echo $?
        over/upper/mount.fuse.wakebox w m -s -o state=$PWD/s,lazytime,comment=c; umount m";
    let (told, complained) = run!(place, script);
    if told.starts_with("no overlay") {
        skip!("no overlay over /sbin");
    }
    let lines: Vec<_> = told.lines().collect();
    assert!(lines[0].starts_with("fuse.wakebox rw,relatime,"), "{told}");
    assert_eq!(lines[1], "1");
    assert!(lines[2].starts_with("fuse.wakebox ro,relatime,"), "{told}");
    assert_eq!(lines[3..], ["1"], "{told}");
    let complaints: Vec<_> = complained.lines().collect();
    assert!(
        complaints[0].ends_with("'lazytime' is not known, and ignored"),
        "{complained}"
    );
    assert!(
        complaints[1].contains("'other'"),
        "a fake mount makes nothing: {complained}"
    );
    assert!(complaints[2].contains("give -o state=DIR"), "{complained}");
    assert_eq!(complaints.len(), 3, "{complained}");
}

#[test]
fn inputs_are_a_union_taken_once() {
    let place = Place::new();
    let script = "
        mkdir -p a/both b/both b/only u w
        echo pure >u/f; echo a >a/both/f; echo b >b/both/f; echo b >b/both/g; echo b >b/only/h
        ln -s both/f b/link; chmod 750 a/both; touch -d '1999-01-02 03:04:05.678901234Z' a/both/f
        mount() { $WAKEBOX mount w m -o lowerdir=a:b,upperdir=u,workdir=w; }
        mount; cd m; find . | sort | tr '\\n' ' '; cat f both/f both/g link | tr '\\n' ' '
        stat -c '%a' both; stat -c %.9Y both/f; cd ..; umount m; ls -A u | tr '\\n' ' '
        echo changed >a/both/f; mount; cat m/both/f; umount m
        $WAKEBOX mount w m -o lowerdir=b,upperdir=u; cat m/both/f; umount m";
    let (told, complained) = run!(place, script);
    let expected = ". ./both ./both/f ./both/g ./f ./link ./only ./only/h pure a b a 750\n\
        915246245.678901234\n.wakebox f a\na\n";
    assert_eq!(told, expected);
    assert_eq!(complained.lines().count(), 1, "{complained}");
    assert!(
        complained.contains("stay what they were at its first mount"),
        "{complained}"
    );
}

#[test]
fn a_state_has_one_file_system() {
    let place = Place::new();
    let script = "
        $WAKEBOX mount w m -o state=s; start=$(date +%s)
        $WAKEBOX mount other m2 -o state=s || echo $? after $(($(date +%s) - start))
        shown w | wc -l
        { sleep 1; umount m; } & $WAKEBOX mount other m2 -o state=s; wait; touch m2/x
        shown w | wc -l; shown other | wc -l";
    let (told, complained) = run!(place, script);
    let lines: Vec<_> = told.lines().collect();
    let seconds: u64 = lines[0]
        .strip_prefix("32 after ")
        .expect(&told)
        .parse()
        .expect(&told);
    assert!((9..20).contains(&seconds), "{told}");
    assert_eq!(lines[1..], ["1", "0", "1"]);
    assert!(
        complained.contains("is in use by another mount"),
        "{complained}"
    );
    assert_eq!(complained.lines().count(), 1, "{complained}");
}

#[test]
fn the_same_source_and_state_are_mounted_at_several_places() {
    let place = Place::new();
    let script = "
        $WAKEBOX mount w m -o state=s; echo one >m/f
        $WAKEBOX mount w m2 -o state=s,ro; cat m2/f; touch m2/x 2>/dev/null || echo refused
        echo two >m/f; cat m2/f; test m/f -ef m2/f && echo same; server w | wc -l
        umount m; cat m2/f; mount -i -o remount,bind,rw m2; echo three >m2/f; umount m2
        $WAKEBOX mount w m -o state=s; cat m/f";
    let (told, complained) = run!(place, script);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(
        lines,
        ["one", "refused", "two", "same", "1", "two", "three"]
    );
    assert_eq!(complained, "");
}

#[test]
fn a_full_disk_is_told_to_whoever_writes_and_not_to_its_log() {
    let place = Place::new();
    // Neither room for a file nor for the line that says so: the log is in the state.
    let script = "
        mkdir small; mount -t tmpfs -o size=4m,nr_inodes=100 small small
        $WAKEBOX mount w m -o state=small/s; echo before >m/f
        touch $(seq -f small/%g 100) 2>/dev/null || cat /dev/zero 2>/dev/null >small/1 || true
        for try in 1 2 3; do timeout 10 touch m/x 2>&1 || echo $?; done
        rm small/*[0-9]; timeout 10 cat m/f; echo after >m/x; cat m/x; umount m";
    let (told, _) = run!(place, script);
    let lines: Vec<_> = told.lines().collect();
    let refused = "touch: cannot touch 'm/x': No space left on device";
    let expected = [refused, "1", refused, "1", refused, "1", "before", "after"];
    assert_eq!(lines, expected);
}

/// Regression: the daemon truncated a running program, which died of that, before the kernel looked
/// whether it ran.
#[test]
fn a_running_program_is_not_truncated_by_who_only_reads() {
    let place = Place::new();
    let script = "
        $WAKEBOX mount word m -o state=s
        cp $(command -v sleep) m/program
        before=$(stat -c %s m/program)
        m/program 60 & running=$!
        until [ $(readlink /proc/$running/exe) = $(realpath m/program) ]; do sleep 0.01; done
        truncated='import os; os.open(\"m/program\", os.O_RDONLY | os.O_TRUNC)'
        python3 -c \"$truncated\" 2>&1 | grep -o 'Text file busy'
        [ $(stat -c %s m/program) = $before ] && kill $running && echo it ran on
        wait $running || :
        python3 -c \"$truncated\"; stat -c %s m/program
        umount m";
    let (told, _) = run!(place, script);
    assert_eq!(told, "Text file busy\nit ran on\n0\n");
}

#[test]
fn the_process_that_serves_has_nothing_of_its_callers() {
    let place = Place::new();
    let script = "
        echo >mark; exec 7<mark; export SECRET=1
        $WAKEBOX mount w m -o state=s | cat # which ends: nobody holds the pipe
        process=/proc/$(server w)
        cat $process/comm; readlink $process/cwd
        readlink $process/fd/0 $process/fd/1; ls -l $process/fd | grep -c mark || true
        tr '\\0' '\\n' <$process/environ | wc -l
        awk '/open files/ { print ($4 == $5) }' $process/limits
        awk '{ print $5 }' $process/mountinfo | sort | tr '\\n' ' '
        [ $(cut -d' ' -f6 $process/stat) = ${process#/proc/} ] && echo session";
    let (told, _) = run!(place, script);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[..2], ["wakebox-mount", "/"], "{told}");
    // Its file system has no /dev/null, so the kernel shows it from its old place.
    assert!(
        lines[2].ends_with("null") && lines[3].ends_with("null"),
        "{told}"
    );
    assert_eq!(lines[5..], ["0", "1", "/ /dev/fuse session"], "{told}");
}

#[test]
fn told_to_end_it_unmounts_everywhere() {
    let place = Place::new();
    let script = "
        mkdir 'a b'; $WAKEBOX mount w 'a b' -o state=s; mount --bind 'a b' m
        shown w | wc -l; pid=$(server w); kill $pid; gone $pid; shown w | wc -l
        $WAKEBOX mount w m -o state=s; exec 5>m/open; pid=$(server w); kill $pid; gone $pid
        shown w | wc -l; grep -c 'while files were open' s/log
        $WAKEBOX mount w m -o state=s; touch m/x; umount m";
    let (told, complained) = run!(place, script);
    assert_eq!((told.as_str(), complained.as_str()), ("2\n0\n0\n1\n", ""));
}

#[test]
fn a_dead_mount_is_told_as_such_and_its_state_serves_again() {
    let place = Place::new();
    let script = "
        $WAKEBOX mount w m -o state=s; touch m/x; pid=$(server w); kill -9 $pid; gone $pid
        # A zombie's other threads may still hold what it had.
        for try in $(seq 500); do ls m 2>&1 | grep 'not connected' >told && break; sleep 0.01; done
        wc -l <told; $WAKEBOX mount w m -o state=s || echo $?
        umount m; $WAKEBOX mount w m -o state=s; touch m/y; umount m";
    let (told, complained) = run!(place, script);
    assert_eq!(told, "1\n32\n");
    assert!(complained.contains("unmount it first"), "{complained}");
}

#[test]
fn a_mount_in_the_foreground_lasts_as_long_as_its_call() {
    let place = Place::new();
    let script = "
        mounted() { for try in $(seq 500); do [ \"$(shown w)\" ] && return; sleep 0.01; done; exit 9; }
        $WAKEBOX mount -f w m -o state=s & call=$!; mounted; pid=$(server w)
        touch m/x; umount m; wait $call; echo $?
        for signal in TERM INT KILL; do
            $WAKEBOX mount -f w m -o state=s & call=$!; mounted; pid=$(server w)
            kill -$signal $call; wait $call && echo 0 || echo $?; gone $pid; shown w
        done";
    let (told, complained) = run!(place, script);
    assert_eq!(told, "0\n0\n0\n137\n", "{complained}");
}

#[test]
fn what_makes_no_sense_is_one_line_and_a_code() {
    needs_fuse!();
    let place = Place::new();
    place.write("file", "");
    place.write("dir/f", "");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["w", "dir"], 1, "no place for changes: give -o state=DIR"),
        (
            &["w", "dir", "-o", "state="],
            1,
            "option state= names no directory",
        ),
        (
            &["w", "dir", "-o", "lowerdir=a:,state=s"],
            1,
            "lowerdir= names no directory",
        ),
        (&["w", "dir", "-o", "state=s,upperdir=dir"], 1, "give one"),
        (
            &["w", "none", "-o", "state=s"],
            32,
            "cannot mount on none: No such file",
        ),
        (
            &["w", "dir", "-o", "upperdir=none,workdir=dir"],
            2,
            "use the directory none",
        ),
        (
            &["w", "dir", "-o", "upperdir=dir,workdir=none"],
            2,
            "use the directory none",
        ),
        (
            &["w", "dir", "-o", "state=s,inputs=file"],
            2,
            "use the directory file: ",
        ),
    ];
    for (arguments, code, line) in cases {
        let outcome = place.call([&["mount"], *arguments].concat()).expect(*code);
        let told = outcome.stderr();
        assert!(
            told.starts_with("wakebox: ") && told.contains(line),
            "{arguments:?}: {told}"
        );
        assert_eq!(
            (told.lines().count(), outcome.stdout()),
            (1, String::new()),
            "{told}"
        );
    }
    let usage: [&[&str]; 4] = [
        &["mount"],
        &["mount", "w"],
        &["mount", "w", "m", "-z"],
        &["mount", "w", "m", "n"],
    ];
    for arguments in usage {
        let told = place.call(arguments).expect(1).stderr();
        assert!(told.starts_with("error: "), "{told}");
    }
    assert!(!place.workspace().join("s").exists(), "nothing is made");
    assert!(servers(&place).is_empty());
}

#[test]
fn a_mount_that_fails_late_leaves_nothing() {
    let place = Place::new();
    let script = "
        touch file; $WAKEBOX mount w m -o state=file || echo $?
        $WAKEBOX mount w file -o state=s || echo $?
        mkdir in; echo 1 >in/f; $WAKEBOX mount w m -o state=s,inputs=in; umount m
        rm -r s/store/blobs/*; $WAKEBOX mount w m -o state=s || echo $?
        echo damaged >s/manifest; $WAKEBOX mount w m -o state=s || echo $?
        shown w";
    let (told, complained) = run!(place, script);
    assert_eq!(told, "2\n32\n32\n32\n", "{complained}");
    let lines: Vec<_> = complained.lines().collect();
    assert!(lines[0].contains("state directory file"), "{complained}");
    assert!(lines[1].contains("Not a directory"), "{complained}");
    assert!(lines[2].contains("input 'f': blob "), "{complained}");
    assert!(lines[3].contains("the manifest is damaged"), "{complained}");
    assert_eq!(lines.len(), 4, "{complained}");
}

/// Runs a script as an ordinary user in namespaces of that user, after `before`; `None` without the
/// right to. There no file passes through: the daemon reads and writes them all.
fn as_ordinary_user(place: &Place, before: &str, script: &str) -> Option<Outcome> {
    let inner = place.root().join("inner");
    std::fs::write(inner, format!("{WORDS}\n{script}")).expect("a script");
    let call = "unshare --user --map-root-user --mount sh -e $ROOT/inner";
    let cleared = Cleared(place);
    let outcome = place.as_ordinary_user_with_fuse(&format!("{before}\n{call}"))?;
    wait_for("the last to end", || servers(place).is_empty());
    drop(cleared);
    Some(outcome)
}

#[test]
fn more_files_may_be_open_than_the_process_that_serves_may_open() {
    needs_fuse!();
    let place = Place::new();
    let script = "
        await() { for try in $(seq 400); do eval $1 && return; sleep 0.05; done; exit 9; }
        mkdir in; for n in $(seq 40); do echo declare >in/$n; done
        $WAKEBOX mount w m -o state=s,inputs=in
        for n in $(seq 40); do
            ( exec 3>m/made$n 4<>m/$n; echo early >&3
              await '[ -e go ]'; echo late >&3; echo written >&4 ) &
        done
        await '[ $(cat m/made* | wc -l) = 40 ]'
        ls /proc/$(server w)/fd | wc -l; echo >go; wait
        cat m/made* m/[0-9]* | sort | uniq -c | sed 's/  *//'; umount m";
    let Some(outcome) = as_ordinary_user(&place, "ulimit -n 64", script) else {
        skip!("no right to become an ordinary user");
    };
    let outcome = outcome.expect(0);
    let (told, complained) = (outcome.stdout(), outcome.stderr());
    let (descriptors, content) = told.split_once('\n').expect(&told);
    assert_eq!(content, "40 early\n40 late\n40 written\n", "{complained}");
    let descriptors: u32 = descriptors.parse().expect(&told);
    assert!((32..60).contains(&descriptors), "{descriptors} are open");
    assert_eq!(complained, "");
}

#[test]
fn what_fits_on_a_full_file_system_is_told() {
    needs_fuse!();
    let place = Place::new();
    let script = "
        mkdir small; mount -t tmpfs -o size=8m none small
        $WAKEBOX mount w m -o state=$PWD/small/s
        yes | dd of=m/f bs=1M iflag=fullblock 2>told || tail -1 told | cut -d' ' -f1
        grep -o 'No space left' told; stat -c %s m/f; umount m";
    let Some(outcome) = as_ordinary_user(&place, "", script) else {
        skip!("no right to become an ordinary user");
    };
    let told = outcome.expect(0).stdout();
    let [copied, error, size] = told.lines().collect::<Vec<_>>()[..] else {
        panic!("{told}");
    };
    assert_eq!((copied, error), (size, "No space left"));
}

#[test]
fn an_ordinary_user_mounts_in_a_namespace_and_is_told_so() {
    needs_fuse!();
    let place = Place::new();
    let inner = "
        $WAKEBOX mount w m -o state=s; shown w | wc -l; echo made >m/f; cat m/f; stat -c %U m/f
        $WAKEBOX mount w m -o remount,ro; touch m/g 2>&1 | grep -c Read-only
        $WAKEBOX mount w m -o remount,rw; pid=$(server w); umount m; gone $pid
        $WAKEBOX mount w m -o state=s; pid=$(server w); kill $pid; gone $pid; shown w | wc -l";
    std::fs::write(place.root().join("inner"), format!("{WORDS}\n{inner}")).expect("a script");
    let script = "cd $ROOT/home; mkdir -p m; $WAKEBOX mount w m -o state=s || echo $?
        unshare --user --map-root-user --mount sh -e $ROOT/inner";
    let cleared = Cleared(&place);
    let Some(outcome) = place.as_ordinary_user_with_fuse(script) else {
        skip!("no right to become an ordinary user");
    };
    let outcome = outcome.expect(0);
    assert_eq!(
        outcome.stdout(),
        "32\n1\nmade\nroot\n1\n0\n",
        "{}",
        outcome.stderr()
    );
    let told = outcome.stderr();
    assert!(
        told.contains("unshare --user --map-root-user --mount wakebox mount"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");
    wait_for("the last to end", || servers(&place).is_empty());
    drop(cleared);
}
