use std::fs::File;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use super::*;

/// A workspace of empty files. A name that ends with '/' is a directory.
fn workspace(names: &[&[u8]]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in names {
        let path = directory.path().join(OsStr::from_bytes(name));
        if name.ends_with(b"/") {
            std::fs::create_dir_all(path).unwrap();
        } else {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap();
        }
    }
    directory
}

fn patterns<const N: usize>(patterns: [&[u8]; N]) -> Vec<OsString> {
    patterns
        .map(|pattern| OsStr::from_bytes(pattern).into())
        .into()
}

/// The selected paths, with spaces between them.
fn selected<const N: usize>(workspace: &Path, from: [&[u8]; N]) -> String {
    listed(&select(workspace, &patterns(from), &[]).unwrap())
}

fn listed(found: &[Found]) -> String {
    let paths: Vec<_> = found.iter().map(|found| found.path.to_string()).collect();
    paths.join(" ")
}

fn refusal(workspace: &Path, pattern: &[u8]) -> String {
    let error = select(workspace, &patterns([pattern]), &[]).unwrap_err();
    error.to_string()
}

#[test]
fn paths_stand_for_themselves_and_for_what_they_hold() {
    let directory = workspace(&[b"a/b/c", b"a/empty/", b"ab", b"x\xff/y"]);
    symlink("a", directory.path().join("link")).unwrap();
    let selected = |pattern: &[u8]| selected(directory.path(), [pattern]);
    assert_eq!(selected(b"a"), "a a/b a/b/c a/empty");
    assert_eq!(selected(b"./a//b/"), "a/b a/b/c");
    assert_eq!(selected(b"link"), "link");
    assert_eq!(
        selected(b"."),
        "a a/b a/b/c a/empty ab link x\u{fffd} x\u{fffd}/y"
    );
    let found = select(directory.path(), &patterns([b"x\xff/y"]), &[]).unwrap();
    assert_eq!(found[0].path.as_bytes(), b"x\xff/y");
    let absolute = directory.path().join("ab").into_os_string();
    assert_eq!(selected(absolute.as_bytes()), "ab");
}

#[test]
fn globs_match_by_component_and_take_directories_whole() {
    let directory = workspace(&[
        b"src/a.c",
        b"src/a.h",
        b"src/deep/b.c",
        b"src/.hidden.c",
        b"lib/x\xff.c",
        b"top.c",
        b"lib/d/e",
    ]);
    let selected = |pattern: &[u8]| selected(directory.path(), [pattern]);
    assert_eq!(selected(b"src/*.c"), "src/.hidden.c src/a.c");
    assert_eq!(
        selected(b"./src/**/*.c"),
        "src/.hidden.c src/a.c src/deep/b.c"
    );
    assert_eq!(selected(b"*.c"), "top.c");
    assert_eq!(
        selected(b"src/{a.?,deep}"),
        "src/a.c src/a.h src/deep src/deep/b.c"
    );
    assert_eq!(selected(b"lib/*"), "lib/d lib/d/e lib/x\u{fffd}.c");
    let absolute = directory.path().join("*.c").into_os_string();
    assert_eq!(selected(absolute.as_bytes()), "top.c");
}

#[test]
fn overlapping_patterns_give_each_path_once_in_order() {
    let directory = workspace(&[b"b/2", b"b/1", b"a"]);
    let selected = selected(directory.path(), [b"b", b"b/*", b".", b"a"]);
    assert_eq!(selected, "a b b/1 b/2");
}

#[test]
fn a_path_that_exists_is_no_glob() {
    let directory = workspace(&[b"a[1]", b"a1"]);
    assert_eq!(selected(directory.path(), [b"a[1]"]), "a[1]");
    std::fs::remove_file(directory.path().join("a[1]")).unwrap();
    assert_eq!(selected(directory.path(), [b"a[1]"]), "a1");
}

#[test]
fn unusable_patterns_are_named_with_the_reason() {
    let directory = workspace(&[b"d/f"]);
    symlink("d", directory.path().join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("s")).unwrap();
    let refusal = |pattern: &[u8]| refusal(directory.path(), pattern);
    assert_eq!(refusal(b"gone"), "input 'gone' does not exist");
    assert_eq!(refusal(b"d/f/x"), "input 'd/f/x' does not exist");
    assert_eq!(refusal(b"d/*.c"), "input 'd/*.c' matches nothing");
    assert_eq!(refusal(b"gone/*"), "input 'gone/*' matches nothing");
    assert_eq!(refusal(b"d/../d"), "input 'd/../d' contains '..'");
    assert_eq!(refusal(b"/etc"), "input '/etc' is outside of the workspace");
    assert_eq!(refusal(b""), "input '' names no entry of the workspace");
    assert!(refusal(b"[").starts_with("input '[' is not a glob: "));
    assert!(refusal(b"*\xff").contains("not UTF-8"));
    assert!(refusal(b"s").starts_with("input 's' is a socket"));
    for behind in [&b"link/f"[..], b"link/*"] {
        assert!(refusal(behind).contains("lies behind the symbolic link 'link'"));
    }
}

#[test]
fn sockets_are_passed_over_by_a_walk() {
    let directory = workspace(&[b"f"]);
    let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("s")).unwrap();
    assert_eq!(selected(directory.path(), [b"."]), "f");
    assert_eq!(selected(directory.path(), []), "f");
}

#[test]
fn excluded_directories_are_never_entered() {
    let directory = workspace(&[b".build/cas/blobs/x", b".build/y"]);
    let store = directory.path().join(".build/cas").metadata().unwrap();
    let exclude = [(store.dev(), store.ino())];
    let select = |pattern: &str| select(directory.path(), &[pattern.into()], &exclude);
    assert_eq!(listed(&select(".").unwrap()), ".build .build/y");
    for pattern in [".build/cas", ".build/cas/blobs", ".build/cas/*"] {
        let message = select(pattern).unwrap_err().to_string();
        assert!(
            message.ends_with("is the store, or lies in it"),
            "{message}"
        );
    }
}

#[test]
fn outside_of_a_checkout_everything_but_git_directories_is_an_input() {
    let directory = workspace(&[b"f", b"nested/.git/config", b"nested/g"]);
    assert_eq!(selected(directory.path(), []), "f nested nested/g");
    let named = selected(directory.path(), [b"nested/.git"]);
    assert_eq!(named, "nested/.git nested/.git/config");
}

/// Runs a test in a thread that permission bits apply to, as they do not to root.
fn without_privileges<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let run = || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective = rustix::thread::CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets).unwrap();
        run()
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn a_directory_that_cannot_be_read_is_named() {
    let directory = workspace(&[b"d/secret/f"]);
    let secret = directory.path().join("d/secret");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o0);
    std::fs::set_permissions(&secret, mode).unwrap();
    let expected = format!("cannot list {}: ", secret.display());
    for from in [&patterns([b"."])[..], &patterns([b"d/*"]), &[]] {
        let result = without_privileges(|| select(directory.path(), from, &[]));
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with(&expected), "{message}");
        assert!(message.contains("Permission denied"), "{message}");
    }
}

/// Runs git in a directory, with an identity and without anybody's configuration.
fn git(directory: &Path, arguments: &[&str]) {
    let status = Command::new("git")
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(status.status.success(), "{arguments:?}: {status:?}");
}

fn commit(directory: &Path) {
    git(directory, &["init", "-q"]);
    git(directory, &["add", "--force", "."]);
    git(directory, &["commit", "-q", "-m", "all"]);
}

#[test]
fn a_checkout_gives_what_git_does_not_ignore() {
    let directory = workspace(&[b"tracked", b"deleted", b"tracked.o", b"was/file", b"x\xff"]);
    commit(directory.path());
    let path = |name: &str| directory.path().join(name);
    std::fs::remove_file(path("deleted")).unwrap();
    std::fs::rename(path("was"), path("is")).unwrap();
    symlink("is", path("was")).unwrap();
    File::create(path("untracked")).unwrap();
    File::create(path("ignored.o")).unwrap();
    std::os::unix::fs::symlink("*.o", path("link")).unwrap();
    std::io::Write::write_all(&mut File::create(path(".gitignore")).unwrap(), b"*.o\n").unwrap();
    let expected = ".gitignore is/file link tracked tracked.o untracked was x\u{fffd}";
    assert_eq!(selected(directory.path(), []), expected);
    assert_eq!(selected(&path("is"), []), "file");
    let store = path("is").metadata().unwrap();
    let found = select(directory.path(), &[], &[(store.dev(), store.ino())]).unwrap();
    assert!(!listed(&found).contains("is/file"));
}

#[test]
fn submodules_and_nested_checkouts_are_searched_too() {
    let inner = workspace(&[b"inside", b"d/deep"]);
    commit(inner.path());
    let outer = workspace(&[b"file"]);
    commit(outer.path());
    let url = inner.path().to_str().unwrap();
    git(outer.path(), &["submodule", "add", "-q", url, "sub"]);
    git(outer.path(), &["submodule", "add", "-q", url, "bare"]);
    git(outer.path(), &["clone", "-q", url, "nested"]);
    git(outer.path(), &["submodule", "deinit", "-q", "-f", "bare"]);
    File::create(outer.path().join("sub/new")).unwrap();
    let expected = ".gitmodules bare file nested nested/d/deep nested/inside \
                    sub sub/d/deep sub/inside sub/new";
    assert_eq!(selected(outer.path(), []), expected);
}

#[test]
fn when_git_fails_the_way_out_is_said() {
    let directory = workspace(&[b".git/nothing", b"f"]);
    let message = select(directory.path(), &[], &[]).unwrap_err().to_string();
    assert!(
        message.starts_with("cannot ask git for the files in /"),
        "{message}"
    );
    assert!(message.contains("fatal: not a git repository"), "{message}");
    assert!(message.ends_with("; name the inputs with -i"), "{message}");
}
