//! One case in all circumstances: every form that inputs can have, and every kind of user.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Output};

use serde_json::{Value, json};
use wakebox_tests::{Outcome, Place, needs_fuse, say_skipped};

/// How inputs are declared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// With all attributes.
    Objects,
    /// By path and hash. A directory cannot be said so, and is an object here, too.
    Hashes,
    /// By the path of a file of the workspace.
    Strings,
}

const FORMS: [Form; 3] = [Form::Objects, Form::Hashes, Form::Strings];

/// The file that every case is in: an input, so that each case has one.
const SCRIPT: &str = "case.sh";

/// A name in the store that no content has.
const FAKE: &str = "fa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4efa4e";

/// What to run, and which exit code to expect.
#[derive(Debug)]
pub(super) struct Case {
    script: &'static str,
    arguments: Vec<String>,
    options: &'static str,
    extra: Vec<(&'static str, Value)>,
    directory: Option<&'static str>,
    fake: bool,
    code: i32,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) place: &'a Place,
    pub(super) outcome: Outcome,
    pub(super) result: Value,
}

impl Case {
    pub(super) fn new(script: &'static str) -> Self {
        Self {
            script,
            arguments: Vec::new(),
            options: "",
            extra: Vec::new(),
            directory: None,
            fake: false,
            code: 0,
        }
    }

    /// An argument of the script.
    pub(super) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Options of the call.
    pub(super) fn options(mut self, options: &'static str) -> Self {
        self.options = options;
        self
    }

    /// One more key of the spec.
    pub(super) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.extra.push((key, value.into()));
        self
    }

    /// A declared directory with nothing in it.
    pub(super) fn directory(mut self, path: &'static str) -> Self {
        self.directory = Some(path);
        self
    }

    /// The script's blob has the name of other content.
    pub(super) fn fake_hash(mut self) -> Self {
        self.fake = true;
        self
    }

    pub(super) fn exits(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// Runs the case in all circumstances and looks at each end.
    #[track_caller]
    pub(super) fn check(&self, look: impl Fn(&Ended<'_>)) {
        needs_fuse!();
        let place = Place::new();
        let script = self.prepare(&place);
        let output = place.other("sh").args(["-ec", &script]).output();
        Outcome(output.expect("a shell")).expect(0);
        self.look(&place, &look);

        let place = Place::new();
        let script = self.prepare(&place);
        match place.as_ordinary_user_with_fuse(&script) {
            Some(outcome) => {
                outcome.expect(0);
                self.look(&place, &look);
            }
            None => say_skipped(file!(), line!(), "not root, who alone can become another"),
        }
    }

    /// Specs in all forms, and a script that runs them all at once.
    fn prepare(&self, place: &Place) -> String {
        let mut script = String::new();
        for form in FORMS {
            let stem = place.root().join(format!("{form:?}"));
            let spec = self.spec(place, form).to_string();
            std::fs::write(stem.with_extension("spec"), spec).expect("a spec");
            let (stem, options) = (stem.display(), self.options);
            script += &format!(
                "(code=0; $WAKEBOX {options} -p {stem}.spec -o {stem}.result \
                    > {stem}.out 2> {stem}.err || code=$?; echo $code > {stem}.code) &\n"
            );
        }
        script + "wait"
    }

    fn spec(&self, place: &Place, form: Form) -> Value {
        let mut spec = place.spec_of(&["/bin/sh", "-e", SCRIPT]);
        let command = spec["command"].as_array_mut().expect("an array");
        command.extend(self.arguments.iter().map(|argument| json!(argument)));
        let mut visible = vec![self.script_entry(place, form)];
        visible.extend(
            self.directory
                .map(|path| directory_entry(place, path, form)),
        );
        spec["visible"] = visible.into();
        for (key, value) in &self.extra {
            spec[key] = value.clone();
        }
        spec
    }

    fn script_entry(&self, place: &Place, form: Form) -> Value {
        let store = place.workspace().join(wakebox_tests::job::BATCH_STORE);
        let store = cas::Store::open(&store).expect("a store");
        let hash = match (form, self.fake) {
            (Form::Strings, _) => {
                place.write(SCRIPT, self.script);
                return json!(SCRIPT);
            }
            (_, true) => {
                let blob = store.path(FAKE.parse().expect("a hash"));
                std::fs::create_dir_all(blob.parent().expect("a folder")).expect("a folder");
                std::fs::write(blob, self.script).expect("a blob");
                FAKE.to_owned()
            }
            (_, false) => {
                let staging = store.new_staging("test").expect("a staging directory");
                let digest = store.put_bytes(self.script.as_bytes(), &staging);
                digest.expect("a blob").to_string()
            }
        };
        match form {
            Form::Hashes => json!({"path": SCRIPT, "hash": hash}),
            _ => json!({"path": SCRIPT, "type": "file", "hash": hash, "mode": 0o755, "mtime": 5}),
        }
    }

    #[track_caller]
    fn look(&self, place: &Place, look: impl Fn(&Ended<'_>)) {
        for form in FORMS {
            let stem = place.root().join(format!("{form:?}"));
            let read = |extension| {
                let path = stem.with_extension(extension);
                std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            };
            let code: i32 = String::from_utf8_lossy(&read("code"))
                .trim()
                .parse()
                .expect("a code");
            let outcome = Outcome(Output {
                status: ExitStatus::from_raw(code << 8),
                stdout: read("out"),
                stderr: read("err"),
            });
            let ended = Ended {
                place,
                outcome: outcome.expect(self.code),
                result: serde_json::from_slice(&read("result")).expect("a result"),
            };
            assert_eq!(ended.result["inputs"], json!([SCRIPT]), "{form:?}");
            ended.expect_workspace_untouched();
            look(&ended);
        }
    }
}

fn directory_entry(place: &Place, path: &str, form: Form) -> Value {
    if form == Form::Strings {
        std::fs::create_dir(place.workspace().join(path)).expect("a directory");
        return json!(path);
    }
    json!({"path": path, "type": "directory", "mode": 0o755, "mtime": 5})
}

impl Ended<'_> {
    #[track_caller]
    pub(super) fn expect_stdout(&self, expected: &str) {
        assert_eq!(self.outcome.stdout(), expected);
        assert_eq!(self.outcome.stderr(), "");
    }

    /// Insists on the outputs, each with its type in `staging_files`.
    #[track_caller]
    pub(super) fn expect_outputs(&self, expected: &[(&str, &str)]) {
        let paths: Vec<_> = expected.iter().map(|(path, _)| *path).collect();
        assert_eq!(self.result["outputs"], json!(paths));
        for (path, kind) in expected {
            let staged = &self.result["staging_files"][path];
            assert_eq!(staged["type"], json!(kind), "{path}");
            assert_eq!(*kind == "file", staged["staging_path"].is_string());
        }
    }

    /// The content of an output.
    pub(super) fn content(&self, path: &str) -> String {
        let staged = self.place.staged(&self.result["staging_files"][path]);
        std::fs::read_to_string(staged).expect("a staged file")
    }

    /// The permission bits of a staged file on disk, whatever the result says of them.
    pub(super) fn mode_on_disk(&self, path: &str) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        let staged = self.place.staged(&self.result["staging_files"][path]);
        let metadata = std::fs::metadata(staged).expect("a staged file");
        metadata.permissions().mode() & 0o7777
    }

    #[track_caller]
    fn expect_workspace_untouched(&self) {
        let is_ours = |name: &str| [".build", SCRIPT, "directory"].contains(&name);
        for name in names(&self.place.workspace()) {
            assert!(is_ours(&name), "{name} is left in the workspace");
        }
        let directory = self.place.workspace().join("directory");
        assert!(!directory.exists() || names(&directory).is_empty());
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
