//! A command as the original runs one: `wakebox [OPTIONS] COMMAND`, without spec or view.

use std::ffi::{OsStr, OsString};

use crate::cli::Environment;
use crate::error::{Error, Result, say};
use crate::exec;
use crate::exit_code;
use crate::images;
use crate::mount_ops;
use crate::original::Interactive;
use crate::run;
use crate::sandbox::plan::{Draft, Ids, Namespaces, Stdin, Step};

/// Runs the command and returns the exit code.
pub fn run(arguments: &Interactive, environment: &Environment) -> Result<u8> {
    let here = std::env::current_dir()
        .map_err(|error| Error::io("find", "the current directory", error))?;
    let path = environment.variables.get(OsStr::new("PATH"));
    let operations = arguments.operations(&here);
    let expanded = images::expand(operations, &here, path.map(OsString::as_os_str))?;
    let mounts = mount_ops::compile(&expanded.ops, &here).map_err(Error::Usage)?;
    let mut steps = vec![Step::FreshProc { required: false }];
    steps.extend(mounts.steps);
    if mounts.new_root {
        steps.push(Step::FreshProc { required: false });
    }
    let plan = Draft {
        ids: Ids {
            inside_uid: 0,
            inside_gid: 0,
            outside_uid: rustix::process::geteuid().as_raw(),
            outside_gid: rustix::process::getegid().as_raw(),
        },
        namespaces: Namespaces::default(),
        steps,
        squashfuse: expanded.squashfuse.clone(),
        limits: Vec::new(),
        cwd: mounts.run_directory,
        stdin: Stdin::Inherit,
        argv: expanded.command(arguments.command.clone()),
        env: variables(arguments, environment),
    };
    let plan = plan
        .check()
        .map_err(|error| Error::Usage(error.to_string()))?;
    let ended = exec::start(&plan, None)?.wait(None, None)?;
    if let Some(line) = run::explain(&ended, &arguments.command[0]) {
        say(line);
    }
    Ok(exit_code::of_job(&ended))
}

/// Who the user is only where his files are; a variable that the caller has not is no variable.
fn variables(arguments: &Interactive, environment: &Environment) -> Vec<OsString> {
    let names: &[&str] = match arguments.rootfs {
        Some(_) => &["TERM"],
        None => &["HOME", "USER", "TERM"],
    };
    let variable = |name: &&str| {
        let value = environment.variables.get(OsStr::new(name))?;
        let mut variable = OsString::from(name);
        variable.push("=");
        variable.push(value);
        Some(variable)
    };
    names.iter().filter_map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_passed_on() {
        let environment = |pairs: &[(&str, &str)]| Environment {
            variables: pairs
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            ..Environment::default()
        };
        let all = [("HOME", "/h"), ("PATH", "/p"), ("TERM", "t"), ("USER", "")];
        let plain = Interactive::default();
        let image = Interactive {
            rootfs: Some("r".into()),
            ..Interactive::default()
        };
        assert_eq!(
            variables(&plain, &environment(&all)),
            ["HOME=/h", "USER=", "TERM=t"]
        );
        assert_eq!(variables(&image, &environment(&all)), ["TERM=t"]);
        assert!(variables(&plain, &environment(&[])).is_empty());
    }
}
