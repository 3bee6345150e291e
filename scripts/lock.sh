#!/usr/bin/env bash
# Writes requirements.lock from requirements.txt; needs uv. Versions that the lock has already are kept where they fit.
#
#   scripts/lock.sh [WHEEL...]    wheels: other builds of the pinned torch, whose hashes are accepted too
#
# The packages that a CUDA build of torch asks for are left out: torch pins them itself, and a CPU build has none.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

lock=requirements.lock
new=$(mktemp)
trap 'rm -f "$new"' EXIT
compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header "$@"; }

cp $lock "$new" 2>/dev/null || true
compile requirements.txt -o "$new" >/dev/null
{
  echo "# Every package of .venv at one version, checked by its hash. Written by scripts/lock.sh."
  awk '/^[a-z]/ { keep = !/^(torch|triton|cuda-|nvidia-)/ } keep' "$new"
  grep '^torch==' requirements.txt | compile --no-deps -
  for wheel in "$@"; do echo "    --hash=sha256:$(sha256sum "$wheel" | cut -d' ' -f1)"; done
} | awk 'NR > 1 { print line (line !~ /\\$/ && /^    --hash/ ? " \\" : "") } { line = $0 } END { print line }' > "$new.lock"
mv "$new.lock" $lock
