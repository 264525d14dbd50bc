#!/usr/bin/env bash
# Everything that needs a GPU, in one command: build, tests with the CUDA ones, kernel benchmarks, sanitizer, and the
# whole method on CIFAR-10. No network. Results go to benchmarks/results/; a table comes last.
# The pack of CIFAR-10 is looked for as data/cifar10_jpeg.npz, or in the folder that DLP_FAST_TEST_DATA names.
set -uo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
if ! nvidia-smi -L > /dev/null 2>&1; then
  echo "make gpu: no usable NVIDIA GPU here (nvidia-smi finds none). Run it on a machine that has one." >&2
  exit 5
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
day=$(date +%F)
device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr -c 'A-Za-z0-9\n' '_' | tr 'A-Z' 'a-z')
results=benchmarks/results
failed=()
step() { # name, command...
  local name=$1; shift
  echo "== $name"
  "$@" || failed+=("$name")
}
step build "$PYTHON" setup.py -q build_ext --inplace
tests() { "$PYTHON" -m pytest -q -rf 2>&1 | tee "$log"; return "${PIPESTATUS[0]}"; }
log=$(mktemp)
step tests tests
# which failed, and with what, is gone with a machine that is lent
tail -c 60000 "$log" > "$results/tests_${device}_$day.txt"
step "kernel benchmarks" "$PYTHON" -m pytest benchmarks/kernels -o addopts=-q --benchmark-only \
  --benchmark-json="$results/kernels_${device}_$day.json"
step "kernels by events" "$PYTHON" -m benchmarks.kernels.cuda_events --out "$results/kernels_events_${device}_$day.json"
step "kernel table" "$PYTHON" -m benchmarks.kernels.summarize "$results/kernels_${device}_$day.json" --write
if command -v compute-sanitizer > /dev/null; then
  sanitized() { # tool; its output is kept
    compute-sanitizer --tool "$1" --error-exitcode 1 "$PYTHON" -m pytest -q tests/ops -k cuda 2>&1 |
      tail -c 60000 > "$results/sanitizer_$1_${device}_$day.txt"
    return "${PIPESTATUS[0]}"
  }
  for tool in memcheck racecheck initcheck; do step "compute-sanitizer $tool" sanitized "$tool"; done
fi
step "idle share, with and without graphs" "$PYTHON" -m benchmarks.system.idle_share \
  --out "$results/idle_share_${device}_$day.json"
pack=data/cifar10_jpeg.npz
[ -f "$pack" ] || pack="${DLP_FAST_TEST_DATA:-.}/cifar10_jpeg.npz"
if [ -f "$pack" ]; then
  images=$(mktemp -d)
  step "unpack CIFAR-10" "$PYTHON" -m benchmarks.system.unpack_pack "$pack" "$images"
  step "whole method" "$PYTHON" -m benchmarks.system.end_to_end --data "$images" \
    --out "$results/end_to_end_cifar10_${device}_$day.json" --paper-steps 16384
  cat "$results/end_to_end_cifar10_${device}_$day.md"
  # twelve small networks at once fill a GPU that each alone does not, given a server that runs them side by side
  if command -v nvidia-cuda-mps-control > /dev/null; then
    CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d)
    export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY
    nvidia-cuda-mps-control -d
  fi
  # what is done is kept, so that the next loan goes on
  step "Table 3 at full scale, as far as it gets" "$PYTHON" -m studies.full_scale.run --data "$images" --workers 12 \
    --out "$results/reproduce/cifar10_full" --seconds "${CELL_SECONDS:-3600}"
  if [ -n "${CUDA_MPS_PIPE_DIRECTORY:-}" ]; then
    echo quit | nvidia-cuda-mps-control
    unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
  fi
else
  failed+=("CIFAR-10 runs: $pack is not there")
fi
tiny=data/tinyimagenet20_jpeg.npz
[ -f "$tiny" ] || tiny="${DLP_FAST_TEST_DATA:-.}/tinyimagenet20_jpeg.npz"
if [ -f "$tiny" ] && "$PYTHON" -c "import nvidia.dali" 2> /dev/null; then
  files=$(mktemp -d)
  step "unpack the ImageNet subset" "$PYTHON" -m benchmarks.system.unpack_pack "$tiny" "$files"
  step "ImageNet subset, 224 px, JPEG files through DALI" "$PYTHON" -m dlp_fast.run --data "$files" --out "$files/run" \
    --loader dali --dataset.image-size 224 --model torchvision:resnet18 --attack badnets
  cp "$files/run/results.json" "$results/imagenet_subset_dali_${device}_$day.json"
else
  failed+=("ImageNet subset through DALI: $tiny or DALI is not there")
fi
if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
