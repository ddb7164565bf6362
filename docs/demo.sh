#!/usr/bin/env bash
# Builds wakebox and runs its main job on real input: bzip2, a C program with a Makefile, is
# compiled, linked and tested in a sandbox, at a shell and as a build tool would do it.
# The sources come from the crate registry (the bzip2-sys crate carries them). Everything
# happens in a temporary directory, which is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

say "Building wakebox"
cargo build --release --package wakebox
wakebox=$PWD/target/release/wakebox
source=$(cargo metadata --format-version 1 --quiet | grep -o '"[^"]*/bzip2-sys-[^"]*/Cargo.toml"' | head -n 1 | tr -d '"')
source=${source%/Cargo.toml}/bzip2-1.0.8

place=$(mktemp -d)
trap '"$wakebox" daemon --stop --store "$place/store" 2>/dev/null || true; rm -rf "$place"' EXIT
mkdir "$place/bzip2"
cp -r "$source/." "$place/bzip2"
cd "$place/bzip2"
PATH=${wakebox%/*}:$PATH

say "1. At a shell: all files are inputs, two outputs are wanted"
show wakebox run --store "$place/store" -o bzip2 -o libbz2.a -- make --quiet CFLAGS=-O2 bzip2 libbz2.a
show ls -l bzip2 libbz2.a
echo "hello from the sandbox" | ./bzip2 | ./bzip2 -d

say "2. What is not declared does not exist"
show wakebox run --store "$place/store" -i compress.c -- cc -c compress.c || echo "exit code $?, as the compiler says"

say "3. As a build tool: a spec names each input by hash"
rm -f bzip2 libbz2.a
{
  printf '{ "label": "bzip2", "command": ["make", "--quiet", "CFLAGS=-O2", "bzip2", "libbz2.a"], "environment": ["PATH=%s"],\n' "$PATH"
  printf '  "cas-dir": ".build/cas", "mount-ops": [{ "type": "workspace", "destination": "." }],\n  "visible": [\n'
  find . -type f ! -path './.build/*' | sort | while read -r file; do
    hash=$(wakebox cas --store .build/cas put "$file" | cut -d ' ' -f 1)
    printf '    { "path": "%s", "type": "file", "hash": "%s", "mode": %d, "mtime": %s },\n' \
      "${file#./}" "$hash" "0$(stat -c %a "$file")" "$(stat -c %Y "$file")000000000"
  done
  printf '  ] }\n'
} > "$place/spec.json"
show wakebox -p "$place/spec.json" -o "$place/result.json"
show wakebox status
echo
echo "Inputs that were read and outputs that were made, from result.json:"
grep -o '"inputs":\[[^]]*\]' "$place/result.json"
grep -o '"outputs":\[[^]]*\]' "$place/result.json"
grep -o '"bzip2":{"type":"file","hash":"[^}]*}' "$place/result.json"
wakebox cas --store .build/cas verify | tail -n 1
wakebox daemon --stop --store .build/cas
say "Done."
