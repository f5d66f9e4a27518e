#!/usr/bin/env bash
# The kernels for GPUs (docs/cuda.md) on a GPU: what they compute, and how fast.
#
#     bench/device.sh build [sm_90]   # the program, build/device; wherever nvcc is, with or without a GPU
#     bench/device.sh run FOLDER      # every stage, each of which writes its file as soon as it is done
#     bench/device.sh run FOLDER steps cudnn
#
# Stages: facts, barriers (what it costs that blocks meet), tests (float64 within 1e-12 of plain loops;
# the same bits twice), steps (microseconds a step of LSTM and GRU), cudnn (the same by PyTorch,
# with TF32 on and off, where it is installed), backend (tests/test_cuda_on_gpu.py, and the same times by
# bptt.forward and Tape.backward), sanitizer (the tests under compute-sanitizer, few cases).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=build/device

build() {
  mkdir -p build
  nvcc -std=c++20 -O2 --fmad=false --expt-relaxed-constexpr "-arch=${1:-native}" \
    -Icsrc -Itests/cpp tests/cpp/test_cuda_device.cu -o "$program"
}

facts() {
  nvidia-smi --query-gpu=name,compute_cap,driver_version,clocks.max.sm,memory.total --format=csv &&
    git log -1 --format=%H
}

barriers() { "$program" barriers; }

tests() { "$program" tests; }

steps() { "$program" steps; }

sanitizer() {
  local tool
  for tool in memcheck racecheck synccheck; do
    BPTT_TEST_CASES=pairwise timeout 240 compute-sanitizer --tool "$tool" --error-exitcode 9 "$program" tests ||
      return
  done
}

# A line of JSON for each figure; products over all steps are included.
cudnn() { "${PYTHON:-python3}" -m bench.on_gpu cudnn; }

# The backend cuda by the public functions, of an installation with the extra `cuda`, beside its plan.
backend() {
  "${PYTHON:-python3}" -m pytest -n0 -q -rs tests/test_cuda_on_gpu.py &&
    "${PYTHON:-python3}" -m bench.on_gpu backend
}

run() {
  local folder=$1 stage failed=0
  shift
  (( $# )) || set -- facts barriers tests steps cudnn backend sanitizer
  mkdir -p "$folder"
  if command -v nvcc >/dev/null; then
    build  # what is there may be of other sources
  fi
  [[ -x $program ]] || { echo "bench/device.sh: no $program, and nvcc did not build it" >&2; return 2; }
  for stage in "$@"; do
    if "$stage" >"$folder/$stage.txt" 2>&1; then
      echo "$stage: $folder/$stage.txt"
    else
      echo "$stage: failed with $?: $(tail -n 1 "$folder/$stage.txt")"
      failed=1
    fi
  done
  return "$failed"
}

case ${1:-} in
  build) build "${2:-}" ;;
  run) [[ -n ${2:-} ]] && run "${@:2}" ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
