#!/usr/bin/env bash
# Builds with the CUDA kernels, then runs the tests tagged [cuda] and benchmarks/train_gpu.py: every log in one folder.
#
#   pip install nvidia-cutlass==4.2.0.0
#   TORCH_CUDA_ARCH_LIST=9.0a benchmarks/gpu.sh OUTPUT_FOLDER [build | run]      (both without a third word)
set -uo pipefail
out=$(realpath "$1")
what=${2:-both}
cd "$(dirname "$0")/.."
python=$(command -v python3)

build() {
  cmake -G Ninja -B build-gpu -DAFM_CUDA=ON -DAFM_PYTHON_EXECUTABLE="$python" -DAFM_BUILD_EXAMPLES=OFF \
    > "$out/configure.txt" 2>&1 || tail -20 "$out/configure.txt"
  SECONDS=0
  timeout 400 ninja -C build-gpu -k 0 afm_core_python nn_tests train_tests > "$out/build.txt" 2>&1
  local status=$?
  echo "built in $SECONDS s, status $status"
  grep -E "error|undefined reference|fatal" "$out/build.txt" | cut -c1-240 | sort | uniq -c | sort -rn | head -30
}

cpp_tests() {
  local room=$1 tests=build-gpu/tests/$1/${1}_tests
  timeout 40 "$tests" "[cuda]" > "$out/tests_$room.txt" 2>&1
  echo "$room: status $?, $(tail -2 "$out/tests_$room.txt" | head -1)"
  grep -E -A12 "FAILED:|terminate|error:" "$out/tests_$room.txt" | cut -c1-200 | head -40
}

python_tests() {
  timeout 40 "$python" -m pytest -q --noconftest -p no:cacheprovider tests/python/test_training_gpu.py > "$out/tests_python.txt" 2>&1
  echo "python: status $?"
  grep -E "^E  |^FAILED|passed|failed|Error" "$out/tests_python.txt" | cut -c1-200 | head -30
}

run() {
  export PYTHONPATH=$PWD/build-gpu/python PYTHONUNBUFFERED=1
  SECONDS=0
  cpp_tests nn > "$out/digest_nn.txt" &
  cpp_tests train > "$out/digest_train.txt" &
  python_tests > "$out/digest_python.txt" &
  wait
  cat "$out"/digest_{nn,train,python}.txt
  rm "$out"/digest_{nn,train,python}.txt
  echo "tested in $SECONDS s"
  timeout 100 "$python" benchmarks/train_gpu.py --profile DeepFM DCN 2>&1 | tee "$out/train_gpu.txt"
}

if [ "$what" != run ]; then build; fi
if [ "$what" != build ]; then run; fi
