use super::*;

fn read(words: &[&str]) -> Result<Asked, String> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    parse(&words)
}

fn spec() -> Batch {
    Batch {
        params: "s".into(),
        ..Batch::default()
    }
}

fn program(words: &[&str]) -> Interactive {
    Interactive {
        command: words.iter().map(OsString::from).collect(),
        ..Interactive::default()
    }
}

fn bind(source: &str, destination: &str) -> Bind {
    let (source, destination) = (source.into(), destination.into());
    Bind {
        source,
        destination,
    }
}

#[test]
fn batch_calls() {
    let result = Batch {
        output_stats: Some("r".into()),
        isolate_retcode: true,
        ..spec()
    };
    let shell = Batch {
        force_shell: true,
        interactive: true,
        ..spec()
    };
    let terminal = Batch {
        interactive: true,
        ..spec()
    };
    let binds = Batch {
        binds: vec![bind("/a", "/b"), bind("c", "d:e")],
        ..spec()
    };
    let dashes = Batch {
        output_stats: Some("--".into()),
        ..spec()
    };
    let equals = Batch {
        params: "=s".into(),
        ..spec()
    };
    let cases: &[(&[&str], Batch)] = &[
        (&["-p", "s"], spec()),
        (&["-ps"], spec()),
        (&["--params", "s"], spec()),
        (&["--params=s"], spec()),
        (&["--PARAMS", "s"], spec()),
        (&["--pAr=s"], spec()),
        (&["-p", "s", "--"], spec()),
        (&["-I", "-p", "s", "-o", "r"], result.clone()),
        (&["-Ips", "-or"], result.clone()),
        (&["-p", "s", "--isolate", "--out", "r"], result),
        (&["-p", "s", "-s"], shell.clone()),
        (&["-p", "s", "--force-shell", "-i"], shell),
        (&["-ip", "s"], terminal.clone()),
        (&["-p", "s", "--interactive"], terminal.clone()),
        (&["-p", "s", "--allow-interactive"], terminal.clone()),
        (&["-p", "s", "--allow"], terminal),
        (&["-p", "s", "-b", "/a:/b", "-bc:d:e"], binds.clone()),
        (&["--bind=/a:/b", "-p", "s", "--bind", "c:d:e"], binds),
        (&["-p", "s", "-o", "--"], dashes),
        (&["-p=s"], equals),
    ];
    for (words, wanted) in cases {
        assert_eq!(read(words), Ok(Asked::Batch(wanted.clone())), "{words:?}");
    }
}

#[test]
fn calls_of_a_command() {
    let full = Interactive {
        rootfs: Some("r".into()),
        toolchains: vec!["t".into(), "u".into()],
        bind_cwd: true,
        binds: vec![bind("a", "b")],
        ..program(&["make", "-p", "x"])
    };
    let cwd = Interactive {
        bind_cwd: true,
        ..program(&["make"])
    };
    let cases: &[(&[&str], Interactive)] = &[
        (&["make"], program(&["make"])),
        (&["-"], program(&["-"])),
        (&["--", "run"], program(&["run"])),
        (&["--", "-p"], program(&["-p"])),
        (&["--", "--"], program(&["--"])),
        (&["make", "--", "-h"], program(&["make", "--", "-h"])),
        (
            &["make", "-x", "--help"],
            program(&["make", "-x", "--help"]),
        ),
        (&["-x", "make"], cwd.clone()),
        (&["--bind-cwd", "make"], cwd.clone()),
        (&["--BIND-", "--", "make"], cwd),
        (
            &[
                "-xr", "r", "-t", "t", "--tool=u", "-b", "a:b", "make", "-p", "x",
            ],
            full,
        ),
    ];
    for (words, wanted) in cases {
        let wanted = Ok(Asked::Interactive(wanted.clone()));
        assert_eq!(read(words), wanted, "{words:?}");
    }
}

#[test]
fn answers() {
    let cases: &[(&[&str], Asked)] = &[
        (&[], Asked::Nothing),
        (&["--"], Asked::Nothing),
        (&["-h"], Asked::Help),
        (&["--he"], Asked::Help),
        (&["-xh", "make"], Asked::Help),
        (&["-p", "s", "--help"], Asked::Help),
        (&["-V"], Asked::Version),
        (&["--VERSION"], Asked::Version),
    ];
    for (words, wanted) in cases {
        assert_eq!(read(words), Ok(wanted.clone()), "{words:?}");
    }
}

#[test]
fn mistakes() {
    let cases: &[(&[&str], &str)] = &[
        (&["-q"], "unknown option -q"),
        (&["--foo"], "unknown option --foo"),
        (&["-h", "--foo"], "unknown option --foo"),
        (&["--i", "-p", "s"], "ambiguous"),
        (&["--bi", "a:b", "make"], "ambiguous"),
        (&["--=x"], "ambiguous"),
        (&["-p"], "--params needs a value"),
        (
            &["-p", "s", "--output-stats"],
            "--output-stats needs a value",
        ),
        (&["-p", "s", "--force-shell=yes"], "takes no value"),
        (&["-p", "s", "-p", "s"], "--params is given twice"),
        (&["-II", "-p", "s"], "--isolate-retcode is given twice"),
        (
            &["-p", "s", "-i", "--allow"],
            "--interactive is given twice",
        ),
        (&["-xx", "make"], "--bind-cwd is given twice"),
        (&["-p", "s", "make"], "give one of the two"),
        (&["-p", "s", "run"], "give one of the two"),
        (&["-p", "s", "-x"], "--bind-cwd is for a command"),
        (&["-p", "s", "-r", "f"], "--rootfs is for a command"),
        (&["-p", "s", "-t", "f"], "--toolchain is for a command"),
        (&["-I", "make"], "--isolate-retcode needs --params"),
        (&["-s", "make"], "--force-shell needs --params"),
        (&["-i", "make"], "--interactive needs --params"),
        (&["-o", "r", "make"], "--output-stats needs --params"),
        (&["-o", "r"], "--output-stats needs --params"),
        (&["-x"], "--bind-cwd needs a command"),
        (&["-b", "a:b"], "nothing to run"),
        (&["-b", "a", "make"], "Invalid bind: a"),
        (&["-b", ":a", "make"], "Invalid bind: :a"),
        (&["-p", "s", "-b", "a:"], "Invalid bind: a:"),
        (&["--bind=", "make"], "Invalid bind: "),
        (&["--", ""], "no name"),
    ];
    for (words, wanted) in cases {
        let error = read(words).expect_err(&format!("{words:?}"));
        assert!(error.contains(wanted), "{words:?}: {error}");
    }
}

#[test]
fn mounts_come_in_a_fixed_order() {
    let words = ["-b", "a:b", "-x", "-t", "t", "-r", "r", "make"];
    let Ok(Asked::Interactive(asked)) = read(&words) else {
        panic!("a call of a command");
    };
    let squashfs = |source: &str, destination: Option<&str>| MountOp::Squashfs {
        source: source.into(),
        destination: destination.map(PathBuf::from),
    };
    let bind = |source: &str, destination: &str| MountOp::Bind {
        source: source.into(),
        destination: destination.into(),
        read_only: false,
    };
    let wanted = [
        squashfs("r", Some("/")),
        squashfs("t", None),
        MountOp::CreateDir {
            destination: "/w".into(),
        },
        bind("/w", "/w"),
        bind("a", "b"),
    ];
    assert_eq!(asked.operations(Path::new("/w")), wanted);
}

#[test]
fn every_name_and_letter_is_one_options_only() {
    let mut letters: Vec<_> = OPTIONS.iter().map(|option| option.short).collect();
    let mut names: Vec<_> = OPTIONS.iter().flat_map(|option| option.long).collect();
    letters.sort_unstable();
    names.sort_unstable();
    assert!(letters.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}
