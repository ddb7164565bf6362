use cas::Digest;
use cas::manifest::DeclaredKind;

use super::*;

const HASH: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

fn refusal(text: &str) -> String {
    Spec::parse(text).expect_err(text)
}

#[test]
fn json5_and_the_first_of_equal_keys_count() {
    let spec = Spec::parse("{ // note\n command: ['a', 'b',], command: ['c'], unknown: {x: 1}, }");
    assert_eq!(spec.unwrap().command, ["a", "b"]);
}

#[test]
fn all_three_forms_of_an_input_are_understood() {
    let spec = Spec::parse(&format!(
        r#"{{"command":["x"],"visible":["./a//b",
            {{"path":"p","hash":"{HASH}"}},
            {{"path":"q","type":"symlink","hash":"{HASH}","mode":511,"mtime":-1}},
            {{"path":"d","type":"directory","mode":33261,"mtime":5}}]}}"#
    ))
    .unwrap();
    let digest: Digest = HASH.parse().unwrap();
    let declared = |path: &str, mode, mtime, kind| {
        let path = RelPath::parse(path.as_bytes()).unwrap();
        Input::Declared(Declared {
            path,
            mode,
            mtime,
            kind,
        })
    };
    assert_eq!(
        spec.visible,
        [
            Input::Named(RelPath::parse(b"a/b").unwrap()),
            declared("p", 0o444, 0, DeclaredKind::File(digest)),
            declared("q", 0o777, -1, DeclaredKind::Symlink(digest)),
            declared("d", 0o755, 5, DeclaredKind::Directory),
        ]
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let cases = [
        (
            r#"{"command":[]}"#.into(),
            "command: no command was provided",
        ),
        (
            r#"{"command":[""]}"#.into(),
            "command: no command was provided",
        ),
        (
            r#"{"command":["x"],"command-timeout":0}"#.into(),
            "command-timeout: must be an integer",
        ),
        (
            r#"{"command":["x"],"command-timeout":"5"}"#.into(),
            "command-timeout: must be an integer",
        ),
        (
            r#"{"command":["x"],"visible":["a/../b"]}"#.into(),
            "visible[0]: path \"a/../b\" contains '..'",
        ),
        (
            r#"{"command":["x"],"visible":["ok","/etc"]}"#.into(),
            "visible[1]: path \"/etc\" is absolute",
        ),
        (
            r#"{"command":["x"],"visible":["a\u0000"]}"#.into(),
            "contains a NUL byte",
        ),
        (
            r#"{"command":["x"],"visible":[""]}"#.into(),
            "names no entry",
        ),
        (
            r#"{"command":["x"],"visible":[7]}"#.into(),
            "visible[0]: invalid type: integer `7`, expected a path",
        ),
        (
            format!(r#"{{"command":["x"],"visible":[{{"path":"a","hash":"{HASH}","mode":4}}]}}"#),
            "'a': type: is missing",
        ),
        (
            r#"{"command":["x"],"visible":[{"path":"a","hash":"12"}]}"#.into(),
            "'a': hash: \"12\" is not a BLAKE3 hash",
        ),
        (
            format!(
                r#"{{"command":["x"],"visible":[{{"path":"a","type":"fifo","hash":"{HASH}","mode":4,"mtime":0}}]}}"#
            ),
            "unknown type \"fifo\"",
        ),
        (
            r#"{"command":["x"],"mount-ops":[{"type":"nfs"}]}"#.into(),
            "mount-ops[0].type: unknown mount type: 'nfs'",
        ),
        (
            r#"{"command":["x"],"mount-ops":[{"type":"tmpfs","destination":"/t","source":"x"}]}"#
                .into(),
            "mount-ops[0].source: a tmpfs has none",
        ),
        (r#"{"command":"x"}"#.into(), "command: invalid type: string"),
    ];
    for (text, expected) in cases {
        let message = refusal(&text);
        assert!(
            message.contains(expected),
            "{text}\n  {message}\n  {expected}"
        );
    }
    assert!(!refusal("{").is_empty());
}

#[test]
fn an_input_root_is_a_hash_with_or_without_a_size() {
    let root = |text: &str| {
        let spec = format!(r#"{{"command":["x"],"input-root":{text}}}"#);
        Spec::parse(&spec).map(|spec| spec.input_root.expect("a root").to_string())
    };
    for text in [HASH.to_owned(), format!("{HASH}/1210")] {
        assert_eq!(root(&format!("{text:?}")), Ok(text));
    }
    let wrong = [
        (r#""""#.to_owned(), "input-root: \"\" is not a BLAKE3 hash"),
        (
            r#""12""#.to_owned(),
            "input-root: \"12\" is not a BLAKE3 hash",
        ),
        (
            format!("\"{HASH}/big\""),
            "input-root: \"big\" is not a size",
        ),
        (format!("\"{HASH}/-1\""), "input-root: \"-1\" is not a size"),
        ("7".to_owned(), "input-root: invalid type: integer `7`"),
    ];
    for (text, expected) in wrong {
        let message = root(&text).unwrap_err();
        assert!(message.starts_with(expected), "{message}");
    }
}

/// As written by wake v44 (strings, the last usage), v49.0 (objects, without and with mode) and
/// v50 (`mtime`, every option given).
#[test]
fn specs_of_all_wakes_are_accepted() {
    let head = r#""label":"l","command":["x"],"environment":["A=b"]"#;
    let usage =
        r#""usage":{"status":0,"runtime":0.1,"cputime":0.1,"membytes":1,"inbytes":2,"outbytes":3}"#;
    let old = r#""directory":".","stdin":"","resources":["r"],"version":"44","isolate-network":false,"isolate-pids":false,"mount-ops":[{"type":"workspace","destination":"."}]"#;
    let objects = format!(
        r#"[{{"path":"p","type":"file","hash":"{HASH}","mode":420,"mtime":1}},{{"path":"q","hash":"{HASH}"}}]"#
    );
    let specs = [
        format!(r#"{{{head},"visible":["a","b/c"],{old},{usage}}}"#),
        format!(r#"{{{head},"visible":{objects},{old},"cas-dir":".build/cas",{usage}}}"#),
        format!(
            r#"{{{head},"directory":".","stdin":"","cas-dir":".build/cas","isolate-network":true,
            "isolate-pids":true,"hostname":"h","domainname":"d","user-id":1000,"group-id":"100",
            "command-timeout":5,"version":"50.1.0","runner":"wakebox","mount-ops":[
            {{"type":"workspace","destination":"."}},
            {{"type":"bind","source":"/usr","destination":"/usr","read_only":true}}],
            "visible":{objects}}}"#
        ),
    ];
    for text in &specs {
        Spec::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    let newest = Spec::parse(&specs[2]).unwrap();
    let names = Namespaces {
        host_name: Some("h".into()),
        domain_name: Some("d".into()),
        network: true,
        last_pid: None,
        ipc: false,
    };
    assert_eq!((newest.namespaces, newest.isolate_pids), (names, true));
    assert_eq!(
        (newest.user, newest.mount_ops.len()),
        ((Some(1000), Some(100)), 2)
    );
}

#[test]
fn limits_are_numbers_or_pairs() {
    let spec = Spec::parse(
        r#"{"command":["x"],"limits":{"nofile":[64,128],"core":0,"stack":[1,"unlimited"]}}"#,
    );
    let limit = |what, soft, hard| Limit { what, soft, hard };
    assert_eq!(
        spec.unwrap().limits,
        [
            limit(Limited::Core, Some(0), Some(0)),
            limit(Limited::Nofile, Some(64), Some(128)),
            limit(Limited::Stack, Some(1), None),
        ]
    );
    let refusal = |limits| refusal(&format!(r#"{{"command":["x"],"limits":{limits}}}"#));
    let wrong = [
        (
            r#"{"files":1}"#,
            "limits.files: is no limit; these are: as, core,",
        ),
        (
            r#"{"core":[2,1]}"#,
            "limits.core: the soft limit is above the hard one",
        ),
        (
            r#"{"core":["unlimited",1]}"#,
            "limits.core: the soft limit is above",
        ),
        (
            r#"{"core":-1}"#,
            "limits.core: expected a number, \"unlimited\", or a pair",
        ),
    ];
    for (limits, message) in wrong {
        assert!(refusal(limits).starts_with(message), "{}", refusal(limits));
    }
}

/// What a plain spec means, both ways.
#[track_caller]
fn assert_plain(text: &str) {
    let Plain { spec, manifest, .. } = Spec::parse_plain(text).expect("plain");
    let expected = Spec::parse(text).expect("a spec");
    let declared = expected.visible.iter().map(|input| match input {
        Input::Declared(declared) => declared.clone(),
        Input::Named(path) => panic!("{path} is known by name"),
    });
    let declared: Vec<_> = declared.collect();
    let entries = cas::manifest::Manifest::decode(&manifest).unwrap().entries;
    assert_eq!(entries, declared, "{text}");
    let rest = Spec {
        visible: Vec::new(),
        ..expected
    };
    assert_eq!(format!("{spec:?}"), format!("{rest:?}"));
}

/// One input, with these keys in place of its own or besides.
fn plain_with(keys: &str) -> String {
    format!(
        r#"{{"note":{{"n":["],}}",1]}},"command":["true"],"visible":[{{{keys}}}],"label":"visible"}}"#
    )
}

#[test]
fn a_plain_spec_means_the_same_read_quickly() {
    let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_plain(r#"{"command":["true"],"visible":[]}"#);
    assert_plain("{\"visible\" : [ ] ,\n\"command\":[\"a\\u0062\"]}");
    for keys in [
        r#""path":"a/b.c","type":"file","mode":420,"mtime":-5,"hash":"HASH""#,
        r#""hash":"HASH","path":"ä/日本"  , "mtime" : -1700000000000000000,"mode":0,"type":"symlink""#,
        r#""path":"d","type":"directory","mode":4294967295,"mtime":9223372036854775807"#,
        r#""path":"d","type":"directory","mode":1,"mtime":1,"hash":"none""#,
        r#""path":"a","hash":"HASH""#,
        r#""path":"a","hash":"HASH"},{"path":"b/c","hash":"HASH"},{"path":"b/d","hash":"HASH""#,
    ] {
        assert_plain(&plain_with(&keys.replace("HASH", hash)));
    }
}

#[test]
fn what_is_not_plain_is_left_to_the_ordinary_way() {
    let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let entry =
        r#""path":"a","type":"file","mode":420,"mtime":5,"hash":"HASH""#.replace("HASH", hash);
    assert_plain(&plain_with(&entry));
    for (from, to) in [
        (r#""a""#, r#""""#),
        (r#""a""#, r#""/a""#),
        (r#""a""#, r#""./a""#),
        (r#""a""#, r#""a/..""#),
        (r#""a""#, r#""\u0061""#),
        (r#""a""#, "\"a\tb\""),
        (r#""a""#, "\"\u{10FE80}\""),
        (r#""a""#, "1"),
        ("420", "-1"),
        ("420", "0420"),
        ("420", "420.0"),
        ("420", "4294967296"),
        ("420", "\"420\""),
        (":5", ":-0"),
        (":5", ":5e3"),
        (":5", ":9223372036854775808"),
        (":5", ":"),
        (r#","mtime":5"#, ""),
        (r#""file""#, r#""pipe""#),
        (r#""file","#, r#""file","type":"file","#),
        (r#""file","#, r#""file","writable":true,"#),
        (r#""file","#, r#""file","other":1,"#),
        (r#""file","#, r#""file",,"#),
        ("af13", "xf13"),
        (&format!("\"{hash}\""), "\"af13\""),
        (&format!(":\"{hash}\""), ":null"),
        ("[{", "["),
        ("[{", "[[{"),
        ("}]", "},]"),
        ("}]", "}}]"),
        ("}]", "},\"b\"]"),
        ("\"visible\"", "visible"),
        ("\"visible\"", "\"visible\":[],\"visible\""),
        ("\"visible\"", "\"\\u0076isible\":[],\"visible\""),
        ("\"visible\"", "\"note\":0,\"not visible\""),
        ("\"command\"", "\"x\":{\"visible\":[]},\"command\""),
        ("\"true\"", ""),
        ("\"label\":\"visible\"}", "\"label\":\"visible\"}}"),
        ("\"label\"", "/* */ \"label\""),
        ("\"label\":", "\"input-root\":\"HASH\",\"label\":"),
    ] {
        let text = plain_with(&entry).replacen(from, &to.replace("HASH", hash), 1);
        assert_ne!(text, plain_with(&entry), "{from:?} is not there");
        assert!(Spec::parse_plain(&text).is_none(), "{text}");
    }
}

proptest::proptest! {
    /// Whatever is done to the bytes of a plain spec: what is read quickly is read the same slowly.
    #[test]
    fn what_is_read_quickly_is_read_the_same(
        edits in proptest::collection::vec((0..400usize, 0..3u8, "[\\[\\]{}\",:0-9a\\\\ ./-]|visible"), 0..3),
    ) {
        let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        let keys = r#""path":"a/b","type":"file","mode":420,"mtime":5,"hash":"HASH"},
            {"path":"a/c","hash":"HASH"},{"path":"d","type":"directory","mode":1,"mtime":-1"#;
        let mut text = plain_with(&keys.replace("HASH", hash));
        for (at, length, new) in edits {
            let at = at % text.len();
            let end = (at + usize::from(length)).min(text.len());
            text.replace_range(at..end, &new);
        }
        if Spec::parse_plain(&text).is_some() {
            assert_plain(&text);
        }
    }
}

/// So long that two threads read it, and where the second begins is a guess.
#[test]
fn a_long_plain_spec_means_the_same_read_quickly() {
    let long = |path: &dyn Fn(usize) -> String, behind: &str| {
        let input = |i| format!(r#"{{"path":"{}","hash":"{HASH}"}}"#, path(i));
        let inputs: Vec<_> = (0..12_000).map(input).collect();
        let inputs = inputs.join(",\n");
        format!(r#"{{"command":["true"],"visible":[{inputs}],"note":"{behind}"}}"#)
    };
    let plain = long(&|i| format!("directory/{i}"), "");
    assert_plain(&plain);
    // In the middle of a string, and behind the list.
    assert_plain(&long(&|i| format!("directory/}},{{/{i}"), ""));
    let much = "},".repeat(1 << 20);
    assert_plain(&long(&|i| format!("directory/{i}"), &much));
    for wrong in ["directory/100", "directory/11900"] {
        assert!(Spec::parse_plain(&plain.replace(wrong, "../x")).is_none());
        let wrong = format!("{wrong}\"");
        assert!(Spec::parse_plain(&plain.replace(&wrong, "x\",")).is_none());
    }
}
