#!/usr/bin/env bash
# run.sh BUILD SECONDS [FUZZER...]: runs the fuzzers of BUILD, one after the other, each for so many seconds. Inputs that
# reached something new are kept in BUILD/corpus, those that fail in BUILD/crashes. Without names: all of them.
set -euo pipefail
build=$(realpath "$1")
seconds=$2
shift 2
here=$(dirname "$(realpath "$0")")
fuzzers=("$@")
[ $# -gt 0 ] || fuzzers=(json safetensors requests scorer dataset model)

# A file that asks for more memory than there is meets a failed allocation, as it would on a small machine.
export ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=1024
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

mkdir -p "$build/crashes"
"$build/tests/fuzz/write_seeds" "$build/seeds"
failed=0
for name in "${fuzzers[@]}"; do
  mkdir -p "$build/corpus/$name"
  log=$build/fuzz_$name.log
  if ! "$build/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=120 -rss_limit_mb=4096 -malloc_limit_mb=8192 \
    -print_final_stats=1 -dict="$here/files.dict" -artifact_prefix="$build/crashes/$name-" "$build/corpus/$name" \
    "$build/seeds/$name" > "$log" 2>&1; then
    failed=1
    echo "fuzz_$name: FAILED, see $log"
  fi
  echo "fuzz_$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions in $seconds s"
done
exit $failed
