//! What the original's own tests ask of a runner, asked in our own words: in every form that
//! inputs can have, and of root as of an ordinary user.

#[path = "reference/harness.rs"]
mod harness;

use harness::Case;
use serde_json::json;

#[test]
fn case_true() {
    Case::new("true").check(|ended| {
        assert_eq!(ended.result["usage"]["status"], 0);
        ended.expect_outputs(&[]);
    });
}

#[test]
fn case_false() {
    let case = Case::new("false").exits(1);
    case.check(|ended| assert_eq!(ended.result["usage"]["status"], 1));
}

#[test]
fn case_isolate_retcode() {
    let case = Case::new("exit 97").options("-I");
    case.check(|ended| assert_eq!(ended.result["usage"]["status"], 97));
}

#[test]
fn case_launched_cmd_result() {
    let case = Case::new("(sleep 1 &); exit 2")
        .with("isolate-pids", true)
        .with("command-timeout", 4)
        .exits(2);
    case.check(|ended| {
        assert_eq!(ended.result["usage"]["status"], 2);
        assert_eq!(ended.result["timed-out"], false);
    });
}

#[test]
fn case_loopback_up() {
    // The second line is of use only where ip(8) is; the first one says the same without.
    let script = "grep -q ' 127.0.0.1$' /proc/net/fib_trie
        ! command -v ip > /dev/null || ip addr show dev lo | grep -q '[<,]UP[,>]'";
    let case = Case::new(script).with("isolate-network", true);
    case.check(|ended| ended.expect_stdout(""));
}

#[test]
fn case_timeout_exceeded() {
    let case = Case::new("touch hello; sleep 20")
        .with("command-timeout", 1)
        .exits(124);
    case.check(|ended| {
        assert_eq!(ended.result["timed-out"], true);
        assert_eq!(ended.result["usage"]["status"], 124);
        ended.expect_outputs(&[("hello", "file")]);
    });
}

#[test]
fn case_timeout_met() {
    let case = Case::new("sleep 0.1").with("command-timeout", 5);
    case.check(|ended| assert_eq!(ended.result["timed-out"], false));
}

#[test]
fn case_hardlink() {
    let script = "touch a; ln a b; test ! -x a; chmod +x b; test -x a
        echo first > a; cat b; echo second >> b; cat a; ls -i a b | sort -u -k1,1 | wc -l";
    Case::new(script).check(|ended| {
        ended.expect_stdout("first\nfirst\nsecond\n1\n");
        ended.expect_outputs(&[("a", "file"), ("b", "file")]);
        assert_eq!(ended.content("a"), "first\nsecond\n");
        assert_eq!(ended.content("b"), "first\nsecond\n");
    });
}

#[test]
fn case_cas_file_write() {
    Case::new("echo content > out; cat out; ls out").check(|ended| {
        ended.expect_stdout("content\nout\n");
        ended.expect_outputs(&[("out", "file")]);
        assert_eq!(ended.content("out"), "content\n");
    });
}

#[test]
fn case_cas_directory() {
    Case::new("mkdir d; echo inside > d/f; ls d; cat d/f").check(|ended| {
        ended.expect_stdout("f\ninside\n");
        ended.expect_outputs(&[("d", "directory"), ("d/f", "file")]);
    });
}

#[test]
fn case_cas_nested() {
    let script = "mkdir -p a/b/c/d; for d in a a/b a/b/c a/b/c/d; do echo $d > $d/f; done
        find a -type f | sort; cat a/b/c/d/f";
    Case::new(script).check(|ended| {
        ended.expect_stdout("a/b/c/d/f\na/b/c/f\na/b/f\na/f\na/b/c/d\n");
        ended.expect_outputs(&[
            ("a", "directory"),
            ("a/b", "directory"),
            ("a/b/c", "directory"),
            ("a/b/c/d", "directory"),
            ("a/b/c/d/f", "file"),
            ("a/b/c/f", "file"),
            ("a/b/f", "file"),
            ("a/f", "file"),
        ]);
        assert_eq!(ended.content("a/b/f"), "a/b\n");
    });
}

#[test]
fn case_cas_overwrite() {
    Case::new("for n in 1 2 3; do echo version $n > f; cat f; done").check(|ended| {
        ended.expect_stdout("version 1\nversion 2\nversion 3\n");
        ended.expect_outputs(&[("f", "file")]);
        assert_eq!(ended.content("f"), "version 3\n");
    });
}

#[test]
fn case_cas_rename() {
    let script = "echo one > f; mv f g; cat g; mkdir d; echo two > d/f; mv d e; cat e/f
        test ! -e f; test ! -e d";
    Case::new(script).check(|ended| {
        ended.expect_stdout("one\ntwo\n");
        ended.expect_outputs(&[("e", "directory"), ("e/f", "file"), ("g", "file")]);
        assert_eq!(ended.content("e/f"), "two\n");
    });
}

#[test]
fn case_cas_symlink() {
    let script = "echo through > f; ln -s f l; cat l; readlink l";
    Case::new(script).check(|ended| {
        ended.expect_stdout("through\nf\n");
        ended.expect_outputs(&[("f", "file"), ("l", "symlink")]);
        assert_eq!(ended.result["staging_files"]["l"]["target"], "f");
    });
}

#[test]
fn case_cas_hardlink() {
    let script = "echo one > f; ln f l; cat f l; echo two >> f; cat l";
    Case::new(script).check(|ended| {
        ended.expect_stdout("one\none\none\ntwo\n");
        assert_eq!(ended.content("l"), "one\ntwo\n");
        let group = |path: &str| &ended.result["hashed_files"][path]["link-group"];
        assert!(group("f").is_number());
        assert_eq!(group("f"), group("l"), "they are one file");
    });
}

#[test]
fn case_visible_dir_writable() {
    let script = "test -w directory; echo x > directory/new; mkdir directory/sub; ls directory";
    Case::new(script).directory("directory").check(|ended| {
        ended.expect_stdout("new\nsub\n");
        ended.expect_outputs(&[("directory/new", "file"), ("directory/sub", "directory")]);
    });
}

#[test]
fn case_chmod_staging_mode() {
    let script = "umask 577; echo a > opened; echo b > closed; chmod 0644 opened
        stat -c %a opened closed";
    Case::new(script).check(|ended| {
        ended.expect_stdout("644\n200\n");
        let mode = |path: &str| &ended.result["staging_files"][path]["mode"];
        assert_eq!(
            (mode("opened"), mode("closed")),
            (&json!(0o644), &json!(0o200))
        );
        assert_eq!(ended.mode_on_disk("opened") & 0o400, 0o400);
        assert_eq!(ended.mode_on_disk("closed") & 0o400, 0o400);
    });
}

#[test]
fn case_mknod_fifo() {
    let script = "mkfifo pipe; stat -c %F pipe; echo through the pipe > pipe & cat pipe; wait";
    Case::new(script).fake_hash().check(|ended| {
        ended.expect_stdout("fifo\nthrough the pipe\n");
        ended.expect_outputs(&[]);
    });
}

#[test]
fn case_socket_bind() {
    let script = "$1 listen socket & until test -e socket; do sleep 0.01; done
        stat -c %F socket; $1 ask socket question; wait";
    let case = Case::new(script).argument(env!("CARGO_BIN_EXE_converse"));
    case.fake_hash().check(|ended| {
        ended.expect_stdout("socket\nQUESTION\n");
        ended.expect_outputs(&[]);
    });
}
