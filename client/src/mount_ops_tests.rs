use super::*;

fn ops(text: &str) -> Result<Vec<MountOp>, String> {
    let typed: Vec<TypedOp> = json5::from_str(text).unwrap();
    read(&typed)
}

fn compiled(text: &str) -> Compiled {
    compile(&ops(text).unwrap(), Path::new("/w")).unwrap()
}

fn view(place: &str) -> Step {
    Step::MountView {
        destinations: vec![place.into()],
        default_permissions: false,
        allow_other: false,
    }
}

#[test]
fn every_type_is_understood() {
    let found = ops("[{type: 'workspace', destination: '.'},
        {type: 'bind', source: 'a', destination: '/b', read_only: true},
        {type: 'bind', source: 'a', destination: '/b', read_only: false},
        {type: 'tmpfs', source: '', destination: '/t', read_only: false},
        {type: 'create-dir', destination: '/d'}, {type: 'create-file', destination: '/f'},
        {type: 'squashfs', source: 'i'}, {type: 'squashfs', source: 'i', destination: '/i'}]")
    .unwrap();
    let bind = |read_only| MountOp::Bind {
        source: "a".into(),
        destination: "/b".into(),
        read_only,
    };
    let image = |destination: Option<&str>| MountOp::Squashfs {
        source: "i".into(),
        destination: destination.map(Into::into),
    };
    let destination = PathBuf::from;
    assert_eq!(
        found,
        [
            MountOp::Workspace {
                destination: destination(".")
            },
            bind(true),
            bind(false),
            MountOp::Tmpfs {
                destination: destination("/t")
            },
            MountOp::CreateDir {
                destination: destination("/d")
            },
            MountOp::CreateFile {
                destination: destination("/f")
            },
            image(None),
            image(Some("/i")),
        ]
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let wrong = [
        (
            "{type: 'nfs', source: 'x'}",
            "type: unknown mount type: 'nfs'",
        ),
        ("{type: 'tmpfs'}", "destination: is missing"),
        (
            "{type: 'workspace', destination: ''}",
            "destination: is missing",
        ),
        ("{type: 'bind', destination: '/x'}", "source: is missing"),
        (
            "{type: 'squashfs', destination: '/x'}",
            "source: is missing",
        ),
        (
            "{type: 'create-file', source: 'x', destination: '/x'}",
            "source: a create-file has none",
        ),
        (
            "{type: 'workspace', source: 'x', destination: '/x'}",
            "source: a workspace has none",
        ),
        (
            "{type: 'tmpfs', destination: '/x', read_only: true}",
            "read_only: a tmpfs has none",
        ),
    ];
    for (op, message) in wrong {
        let text = format!("[{{type: 'tmpfs', destination: '/ok'}}, {op}]");
        assert_eq!(ops(&text).unwrap_err(), format!("mount-ops[1].{message}"));
    }
}

#[test]
fn paths_are_relative_to_the_clients_directory() {
    let found = compiled(
        "[{type: 'bind', source: 'a/./b', destination: '../x'}, {type: 'workspace', destination: '.'},
          {type: 'workspace', destination: 'sub'}]",
    );
    let bind = Step::Bind {
        source: "/w/a/b".into(),
        destination: "/w/../x".into(),
        read_only: false,
    };
    let again = Step::AttachView {
        destination: "/w/sub".into(),
    };
    assert_eq!(found.steps, [bind, view("/w"), again]);
    assert_eq!(found.run_directory, Path::new("/w"));
    assert!(!found.new_root);
}

#[test]
fn the_job_starts_in_the_first_place_there_is() {
    let starts = |text: &str| compiled(text).run_directory.to_str().unwrap().to_owned();
    let (root, view) = (
        "{type: 'tmpfs', destination: '/'}",
        "{type: 'workspace', destination: '/v'}",
    );
    let here = "{type: 'bind', source: '.', destination: '/here'}";
    let other = "{type: 'bind', source: 'sub', destination: '/other'}";
    assert_eq!(starts("[]"), "/w");
    assert_eq!(starts(&format!("[{other}]")), "/w");
    assert_eq!(starts(&format!("[{root}, {other}]")), "/");
    assert_eq!(starts(&format!("[{root}, {other}, {here}]")), "/here");
    assert_eq!(starts(&format!("[{root}, {here}, {view}]")), "/v");
}

#[test]
fn a_root_is_mounted_or_else_empty() {
    let root = compiled(
        "[{type: 'create-dir', destination: '/'}, {type: 'create-dir', destination: '/x'}]",
    );
    let tmpfs = Step::Tmpfs {
        destination: "/".into(),
    };
    let directory = Step::CreateDir {
        destination: "/x".into(),
    };
    assert_eq!(root.steps, [tmpfs, directory]);
    assert!(root.new_root);
    let refused = |text| compile(&ops(text).unwrap(), Path::new("/w")).unwrap_err();
    assert_eq!(
        refused("[{type: 'create-file', destination: '/'}]"),
        "mount-ops[0].destination: is a directory"
    );
    assert_eq!(
        refused("[{type: 'squashfs', source: 'x'}]"),
        "mount-ops[0].destination: is missing"
    );
}
