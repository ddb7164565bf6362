//! Gives the binary a build id: a hash of every source file that goes into it. Client and daemon
//! of different builds never talk to each other, and equal sources have equal ids.

use std::path::{Path, PathBuf};

fn main() {
    let workspace = Path::new("..");
    let mut files = vec![workspace.join("Cargo.lock")];
    for folder in ["cas", "fuse-daemon", "client"] {
        println!("cargo::rerun-if-changed=../{folder}/src");
        collect(&workspace.join(folder).join("src"), &mut files);
    }
    println!("cargo::rerun-if-changed=../Cargo.lock");
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(file.as_os_str().as_encoded_bytes());
        hasher.update(&std::fs::read(&file).unwrap_or_default());
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how cargo tells a build script its settings"
    )]
    for setting in ["TARGET", "PROFILE"] {
        hasher.update(std::env::var(setting).unwrap_or_default().as_bytes());
    }
    println!(
        "cargo::rustc-env=WAKEBOX_BUILD_ID={}",
        &hasher.finalize().to_hex()[..16]
    );
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
