#!/usr/bin/env bash
# tessera trace as a user runs it: the same bytes at any sharding, in process and as MPI jobs, and at any
# chunking; typed errors for nonsense. Usage: trace_command_test.sh TESSERA_BINARY
set -euo pipefail

tessera=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
ids="[0, 312, 45, 99, 1024, 7, 7, 7, 2048, 511, 300, 41, 9, 12, 13, 14, 15, 16, 17, 18]"

run() {
  local out=$1
  shift
  "$tessera" trace models/demo --ids "$ids" --max-tokens 8 --out "$dir/$out" "$@" > /dev/null
}

same() {
  run "$1.safetensors" "${@:2}"
  cmp "$dir/base.safetensors" "$dir/$1.safetensors"
  echo "same bytes: ${*:2}"
}

run base.safetensors
same tp2 -tp 2
same tp8dp2 -tp 8 -dp 2
same chunk3 --max-num-batched-tokens 3
same threads --threads-per-rank 3
same interleave --numa interleave
same pinned --pin-threads
if command -v mpirun > /dev/null; then
  same mpi2 --workers 2 --comm mpi
  same mpi4 --workers 4 -tp 2 --comm mpi
  same mpi2bound --workers 2 --comm mpi --numa bind
  if [ "$(nproc)" -ge 2 ]; then
    same mpi2pinned --workers 2 -tp 2 --comm mpi --pin-threads
  fi
else
  echo "skipped: mpirun is not installed"
fi

refuse() {
  local expected=$1
  shift
  if "$tessera" trace "$@" > "$dir/out" 2> "$dir/err"; then
    echo "accepted: $*" && exit 1
  fi
  grep -qF -- "$expected" "$dir/err" || { echo "unexpected error for $*:"; cat "$dir/err"; exit 1; }
}

refuse "is not a token id" models/demo --ids "[0, 4096]" --out "$dir/x"
refuse "expected a JSON list" models/demo --ids "[]" --out "$dir/x"
refuse "neither a list" models/demo --ids nothing --out "$dir/x"
refuse "expected 1, 2, 4 or 8" models/demo -tp 3 --ids "[1]" --out "$dir/x"
refuse "float64 runs on --backend reference" models/demo --dtype float64 --ids "[1]" --out "$dir/x"
refuse "expected tp 2 x dp 1" models/demo --workers 3 -tp 2 --comm mpi --ids "[1]" --out "$dir/x"
refuse "--numa bind with 2 ranks that are threads" models/demo -tp 2 --numa bind --ids "[1]" --out "$dir/x"
refuse "--dump bones" models/demo --dump bones --ids "[1]" --out "$dir/x"
refuse "does not exist" no/such/model --ids "[1]" --out "$dir/x"
test ! -e "$dir/x"
echo "refused: 9 kinds of nonsense"
