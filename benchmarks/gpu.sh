#!/usr/bin/env bash
# Builds with the CUDA kernels, runs the tests tagged [cuda], then benchmarks/train_gpu.py: every log in one folder.
#
#   TORCH_CUDA_ARCH_LIST=9.0a benchmarks/gpu.sh OUTPUT_FOLDER [rows of the table ...]
set -uo pipefail
out=$(realpath "$1")
shift
cd "$(dirname "$0")/.."
python=$(command -v python3)
jobs=$(nproc)

echo "== build"
timeout 60 cmake -G Ninja -B build-gpu -DAFM_CUDA=ON -DAFM_PYTHON_EXECUTABLE="$python" -DAFM_BUILD_EXAMPLES=OFF \
  > "$out/configure.txt" 2>&1 || tail -20 "$out/configure.txt"
SECONDS=0
timeout 280 ninja -C build-gpu -j "$jobs" -k 0 afm_core_python nn_tests train_tests data_tests > "$out/build.txt" 2>&1
status=$?
echo "built in $SECONDS s, status $status"
grep -E "error|undefined reference|fatal" "$out/build.txt" | cut -c1-240 | sort | uniq -c | sort -rn | head -30

echo "== tests"
for room in data nn train; do
  tests=build-gpu/tests/$room/${room}_tests
  [ -x "$tests" ] || continue
  timeout 60 "$tests" $([ "$room" = data ] || echo "[cuda]") > "$out/tests_$room.txt" 2>&1
  echo "$room: status $?, $(tail -2 "$out/tests_$room.txt" | head -1)"
  grep -E -A12 "FAILED:|terminate|error:" "$out/tests_$room.txt" | cut -c1-200 | head -40
done
export PYTHONPATH=$PWD/build-gpu/python PYTHONUNBUFFERED=1
timeout 90 "$python" -m pytest -q -p no:cacheprovider tests/python/test_training_gpu.py > "$out/tests_python.txt" 2>&1
echo "python: status $?"
grep -E "^E  |^FAILED|passed|failed|Error" "$out/tests_python.txt" | cut -c1-200 | head -40

echo "== benchmark"
timeout 60 "$python" benchmarks/train_gpu.py --profile 2>&1 | tee "$out/profile.txt" | tail -90
timeout 200 "$python" benchmarks/train_gpu.py ${1:+--rows "$@"} 2>&1 | tee "$out/train_gpu.txt" | tail -60
