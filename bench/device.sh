#!/usr/bin/env bash
# The kernels for GPUs (docs/cuda.md) on a GPU: what they compute, and how fast.
#
#     bench/device.sh build [sm_90]   # build/device; before, wherever nvcc is, with or without a GPU
#     bench/device.sh first FOLDER    # are they right, and what does a barrier cost: facts barriers tests backend sanitizer
#     bench/device.sh second FOLDER   # how fast are they: cudnn sweep steps
#     bench/device.sh run FOLDER STAGE...
#
# Each of the two ends within ten minutes (BPTT_DEVICE_SECONDS says otherwise), and each stage has a file of its own,
# FOLDER/STAGE.json, which is written while it runs (bench/stages.py): a call that is cut loses nothing.
#
# facts      the GPU, versions, and what the backend thinks of the chip
# barriers   what it costs that blocks meet, on which all plans rest
# tests      the kernels alone: float64 within 1e-12 of plain loops; the same bits twice
# backend    tests/test_cuda_on_gpu.py
# sanitizer  the tests under compute-sanitizer, few cases
# cudnn      training steps of modules by PyTorch and by bptt.torch, with TF32 on and off
# sweep      steps of each layer in every way that the chip has room for: how many blocks hold it, and how they meet
# steps      microseconds a step of LSTM and GRU by the program alone, without Python
#
# Nothing has to be installed: bptt runs from here. It needs PyTorch, cuda-core and NVRTC; `tests`, `barriers` and `steps`
# need the program alone.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=build/device
python=${PYTHON:-python3}
budget=${BPTT_DEVICE_SECONDS:-580}

# The seconds that a stage may take at most.
declare -A limits=(
  [facts]=60 [barriers]=60 [tests]=120 [backend]=200 [sanitizer]=300
  [cudnn]=300 [sweep]=215 [steps]=60
)

build() {
  mkdir -p build
  nvcc -std=c++20 -O2 --fmad=false --expt-relaxed-constexpr "-arch=${1:-native}" \
    -Icsrc -Itests/cpp tests/cpp/test_cuda_device.cu -o "$program" && sources >"$program.sources"
}

# What the program is made of, in a word.
sources() { find csrc tests/cpp -name '*.[ch]*' -type f | LC_ALL=C sort | xargs cat | sha256sum; }

facts() {
  nvidia-smi --query-gpu=name,compute_cap,driver_version,clocks.max.sm,memory.total --format=csv
  git log -1 --format='commit %H' || true
  "$python" -m bench.on_gpu facts
}

barriers() { "$program" barriers; }

tests() { "$program" tests; }

steps() { "$program" steps; }

sanitizer() {
  local tool status failed=0
  for tool in memcheck racecheck synccheck; do
    echo "--- $tool"
    BPTT_TEST_CASES=pairwise timeout 95 compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" tests
    status=$?
    printf '{"tool": "%s", "returncode": %d}\n' "$tool" "$status"
    ((status == 0)) || failed=$status
  done
  return "$failed"
}

backend() {
  "$python" -c 'import sys, bptt; found = bptt.backends()["cuda"]; print(found); sys.exit(not found.available)' &&
    "$python" -m pytest -n0 -q -rs -p no:cacheprovider tests/test_cuda_on_gpu.py
}

cudnn() { "$python" -m bench.on_gpu cudnn; }

sweep() { "$python" -m bench.on_gpu sweep; }

# One after the other, none beyond the time that the call has.
run() {
  local folder=$1 stage limit failed=0
  shift
  for stage in "$@"; do
    if [[ -z ${limits[$stage]:-} ]]; then
      echo "bench/device.sh: no stage $stage; there are ${!limits[*]}" >&2
      return 2
    fi
  done
  if [[ ! -x $program || $(sources) != "$(cat "$program.sources")" ]] && command -v nvcc >/dev/null; then
    build || echo "bench/device.sh: nvcc did not build $program" >&2
  fi
  for stage in "$@"; do
    limit=$((budget - SECONDS))
    if ((limit < 5)); then
      echo "$stage: no time is left" >&2
      failed=1
      continue
    fi
    ((limit < limits[$stage])) || limit=${limits[$stage]}
    "$python" bench/stages.py "$folder/$stage.json" "$limit" \
      bash bench/device.sh stage "$stage" || failed=1
  done
  return "$failed"
}

export PYTHONPATH=$PWD/python${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
case ${1:-} in
  build) build "${2:-}" ;;
  first) [[ -n ${2:-} ]] && run "$2" facts barriers tests backend sanitizer ;;
  second) [[ -n ${2:-} ]] && run "$2" cudnn sweep steps ;;
  run) [[ -n ${3:-} ]] && run "${@:2}" ;;
  stage) [[ -n ${limits[${2:-none}]:-} ]] && "$2" ;;
  *) sed -n '2,25s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
