use super::*;

fn draft() -> Draft {
    Draft {
        ids: Ids {
            inside_uid: 0,
            inside_gid: 0,
            outside_uid: 1,
            outside_gid: 1,
        },
        namespaces: Namespaces::default(),
        steps: vec![],
        squashfuse: None,
        limits: vec![],
        cwd: "/".into(),
        stdin: Stdin::Inherit,
        argv: vec!["true".into()],
        env: vec![],
    }
}

fn view(destinations: &[&str]) -> Step {
    Step::MountView {
        destinations: destinations.iter().map(PathBuf::from).collect(),
        default_permissions: false,
        allow_other: false,
    }
}

#[test]
fn a_plain_draft_is_a_plan() {
    assert_eq!(draft().check().unwrap().contents(), &draft());
}

#[test]
fn a_command_is_needed() {
    for argv in [vec![], vec!["".into()], vec!["".into(), "x".into()]] {
        assert_eq!(Draft { argv, ..draft() }.check(), Err(PlanError::NoCommand));
    }
}

#[test]
fn nul_bytes_are_named() {
    let what = |draft: Draft| draft.check().unwrap_err().to_string();
    let argv = vec!["a".into(), "b\0c".into()];
    assert_eq!(
        what(Draft { argv, ..draft() }),
        "argument 2 contains a NUL byte"
    );
    let env = vec!["A=\0".into()];
    assert_eq!(
        what(Draft { env, ..draft() }),
        "environment entry 1 contains a NUL byte"
    );
    let stdin = Stdin::Open("\0".into());
    assert_eq!(
        what(Draft { stdin, ..draft() }),
        "standard input contains a NUL byte"
    );
    let cwd = "/\0".into();
    assert_eq!(
        what(Draft { cwd, ..draft() }),
        "working directory contains a NUL byte"
    );
    let steps = vec![view(&["/a", "/\0"])];
    assert_eq!(
        what(Draft { steps, ..draft() }),
        "destination contains a NUL byte"
    );
    let steps = vec![Step::Hide { path: "/\0".into() }];
    assert_eq!(
        what(Draft { steps, ..draft() }),
        "hidden path contains a NUL byte"
    );
}

#[test]
fn relative_paths_are_refused() {
    let what = |draft: Draft| draft.check().unwrap_err().to_string();
    let cwd = "x".into();
    assert_eq!(
        what(Draft { cwd, ..draft() }),
        "working directory \"x\" is not an absolute path"
    );
    let steps = vec![view(&["/a", "."])];
    assert_eq!(
        what(Draft { steps, ..draft() }),
        "destination \".\" is not an absolute path"
    );
    let steps = vec![Step::Hide { path: "b".into() }];
    assert_eq!(
        what(Draft { steps, ..draft() }),
        "hidden path \"b\" is not an absolute path"
    );
}

#[test]
fn an_environment_entry_has_an_equals_sign() {
    let env = vec!["A=1".into(), "B".into()];
    let error = Draft { env, ..draft() }.check().unwrap_err();
    assert_eq!(error.to_string(), "environment entry 2 (\"B\") has no '='");
}

#[test]
fn one_view_with_a_destination() {
    let check = |steps| Draft { steps, ..draft() }.check();
    assert_eq!(check(vec![view(&[])]), Err(PlanError::NoDestination));
    assert_eq!(
        check(vec![view(&["/a"]), view(&["/b"])]),
        Err(PlanError::ManyViews)
    );
    assert!(check(vec![view(&["/a", "/b"])]).unwrap().mounts_view());
    let again = || Step::AttachView {
        destination: "/b".into(),
    };
    assert_eq!(check(vec![again(), view(&["/a"])]), Err(PlanError::NoView));
    assert!(check(vec![view(&["/a"]), again()]).is_ok());
    assert!(
        !check(vec![Step::FreshProc { required: false }])
            .unwrap()
            .mounts_view()
    );
}

#[test]
fn mounts_are_checked() {
    let what = |step| {
        let steps = vec![step];
        let error = Draft { steps, ..draft() }.check().unwrap_err();
        error.to_string()
    };
    let bind = |source: &str, destination: &str| Step::Bind {
        source: source.into(),
        destination: destination.into(),
        read_only: false,
    };
    assert_eq!(
        what(bind("a", "/b")),
        "source \"a\" is not an absolute path"
    );
    assert_eq!(
        what(bind("/a", "b")),
        "destination \"b\" is not an absolute path"
    );
    let destination = PathBuf::from("/");
    assert_eq!(
        what(Step::CreateFile { destination }),
        "\"/\" is no path of a file"
    );
    let image = Step::Squashfs {
        source: "/i".into(),
        destination: "/d".into(),
    };
    assert_eq!(
        what(image),
        "an image is mounted, but there is no squashfuse to serve it"
    );
}

#[test]
fn names_are_strings_of_the_kernel() {
    let mut draft = draft();
    draft.namespaces.host_name = Some("a\0".into());
    let error = draft.check().unwrap_err().to_string();
    assert_eq!(error, "host name contains a NUL byte");
}
