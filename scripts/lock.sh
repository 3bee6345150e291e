#!/usr/bin/env bash
# Writes requirements.lock from requirements.txt; needs uv. Versions that the lock has already are kept where they fit.
#
# torch is left out, with the packages that its CUDA builds ask for: requirements.txt pins its version, and which build of it is
# right differs by machine. By hashes pip prefers the package index's build (CUDA) to a CPU wheel that lies beside it.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

lock=requirements.lock
new=$(mktemp)
trap 'rm -f "$new"' EXIT

cp $lock "$new" 2>/dev/null || true
uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header requirements.txt -o "$new" >/dev/null
{
  echo "# Every package of .venv but torch at one version, checked by its hash. Written by scripts/lock.sh."
  awk '/^[a-z]/ { keep = !/^(torch|triton|cuda-|nvidia-)/ } keep' "$new"
} > "$new.lock"
mv "$new.lock" $lock
