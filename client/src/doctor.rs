//! `wakebox doctor`: whether jobs can run here, and how well. Every probe does the real thing.

mod probes;

use std::path::Path;

use cas::Store;
use cas::manifest::{Declared, DeclaredKind, Manifest};
use cas::protocol::CopyOnWrite;
use cas::record::Recording;
use cas::report::DataPath;
use cas::{Digest, RelPath};
use serde::Serialize;

use crate::cli::{DoctorArguments, Environment};
use crate::commands::print;
use crate::daemon::Daemons;
use crate::declaration::Declaration;
use crate::error::{Error, Result};
use crate::exec::Status;
use crate::exit_code::NO;
use crate::mount_ops::{MountOp, compile};
use crate::result::Isolation;
use crate::run::{self, Job};
use crate::sandbox::plan::{Namespaces, Stdin};

/// What was found out about one thing.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The thing.
    pub what: &'static str,
    /// Whether it is there, or as it should be.
    pub ok: bool,
    /// Whether no job can run without it.
    pub needed: bool,
    /// What was found: a figure, or why not.
    pub found: String,
    /// If it is not there: what that costs, and how to get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

impl Finding {
    fn new(what: &'static str, found: std::result::Result<String, String>) -> Self {
        let ok = found.is_ok();
        let found = found.unwrap_or_else(|why| why);
        Self {
            what,
            ok,
            needed: false,
            found,
            advice: None,
        }
    }

    fn needed(self) -> Self {
        Self {
            needed: true,
            ..self
        }
    }

    fn or(self, advice: &'static str) -> Self {
        let advice = (!self.ok).then_some(advice);
        Self { advice, ..self }
    }
}

/// Prints a line for each probe. 0 if jobs can run here, else 1.
///
/// # Errors
/// A store that cannot be opened or made; output that cannot be written.
pub fn run(arguments: &DoctorArguments, environment: &Environment) -> Result<u8> {
    let mut findings = vec![
        probes::kernel(),
        probes::user_namespaces(),
        probes::pid_namespaces(),
        probes::device(),
        probes::mount(),
        probes::overlay(),
        probes::descriptors(),
        probes::watches(),
    ];
    match arguments
        .store
        .resolve(environment)
        .and_then(|root| Ok(Store::open_own(&root)?))
    {
        Err(error) => findings.push(Finding::new("store", Err(error.to_string())).needed()),
        Ok(store) => {
            findings.extend(probes::store(&store));
            let daemons = Daemons::from_environment(environment)?;
            findings.extend(probes::daemons(&daemons)?);
            findings.extend(trial(&store, &daemons));
        }
    }
    let able = findings.iter().all(|finding| finding.ok || !finding.needed);
    if arguments.json {
        let document = serde_json::json!({ "able": able, "findings": findings });
        print(format_args!("{document}"))?;
    } else {
        findings.iter().try_for_each(tell)?;
        let verdict = if able {
            "jobs can run here"
        } else {
            "jobs cannot run here"
        };
        print(format_args!("{verdict}"))?;
    }
    Ok(if able { 0 } else { NO })
}

fn tell(finding: &Finding) -> Result<()> {
    let answer = match (finding.ok, finding.needed) {
        (true, _) => "yes",
        (false, true) => "NO ",
        (false, false) => "no ",
    };
    let Finding { what, found, .. } = finding;
    let advice = finding.advice.map(|advice| format!("; {advice}"));
    print(format_args!(
        "{answer}  {what:<16}  {found}{}",
        advice.unwrap_or_default()
    ))
}

/// A job that reads an input and makes an output, and how its data moved.
fn trial(store: &Store, daemons: &Daemons) -> [Finding; 2] {
    let advice = "reads and writes go through the daemon, several times slower; needs Linux 6.9 and \
                  root in the first user namespace";
    match try_job(store, daemons) {
        Err(error) => {
            let why = error.to_string();
            let unknown = "not known: the trial job failed".into();
            [
                Finding::new("trial job", Err(why)).needed(),
                Finding::new("passthrough", Err(unknown)).or(advice),
            ]
        }
        Ok(data_path) => {
            let passes = match data_path {
                DataPath::Passthrough => Ok("the kernel reads backing files itself".into()),
                DataPath::Cached => Err("the kernel takes no backing files from us".into()),
            };
            let ran = "ran, read its input and left its output".into();
            [
                Finding::new("trial job", Ok(ran)).needed(),
                Finding::new("passthrough", passes).or(advice),
            ]
        }
    }
}

fn try_job(store: &Store, daemons: &Daemons) -> Result<DataPath> {
    let hold = store.hold()?;
    let content = b"wakebox doctor\n";
    let staging = store.new_staging("doctor")?;
    let digest = store.put_bytes(content, &staging)?;
    drop(staging);
    let place = tempfile::tempdir().map_err(|e| Error::io("make", "a temporary directory", e))?;
    let finished = run::run(job(digest, place.path())?, store, daemons, hold)?;
    let failed = |why: String| Err(Error::Outcome(why));
    let Some(view) = finished.view else {
        return failed("the trial job had no view".into());
    };
    let (inputs, outputs) = (view.report.inputs.len(), view.report.outputs.len());
    match (finished.ended.status, inputs, outputs) {
        (Status::Exited(0), 1, 1) => Ok(view.report.data_path),
        (status, ..) => failed(format!(
            "the trial job ended with {status:?}, {inputs} inputs and {outputs} outputs; 0, 1 and 1 \
             were expected"
        )),
    }
}

fn job(digest: Digest, workspace: &Path) -> Result<Job> {
    let view = MountOp::Workspace {
        destination: workspace.into(),
    };
    let path = RelPath::parse(b"in").map_err(|error| Error::Outcome(error.to_string()))?;
    let input = Declared {
        path,
        mode: 0o444,
        mtime: 0,
        kind: DeclaredKind::File(digest),
    };
    let user = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    Ok(Job {
        label: "doctor".into(),
        manifest: Declaration::from(&Manifest {
            input_root: None,
            entries: vec![input],
        }),
        copy_on_write: CopyOnWrite::Nothing,
        mounts: compile(&[view], workspace).map_err(Error::Usage)?,
        squashfuse: None,
        namespaces: Namespaces::default(),
        needs_proc: false,
        limits: Vec::new(),
        directory: workspace.into(),
        stdin: Stdin::Open("/dev/null".into()),
        command: ["/bin/sh", "-c", "read line < in && echo \"$line\" > out"]
            .map(Into::into)
            .into(),
        environment: Vec::new(),
        listing_seed: None,
        record: Recording::default(),
        isolation: Isolation::Host,
        user,
        limit: Some(std::time::Duration::from_secs(20)),
    })
}
