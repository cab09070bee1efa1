# Sourced by ./dev: builds the GPU build, runs its tests and benchmarks on this machine's GPU, writes what they found.

# require_nvcc, require_gpu: fail, before anything is built, where nvcc or a GPU is missing.
require_nvcc() {
  PATH="$PATH:/usr/local/cuda/bin"
  command -v nvcc >/dev/null || fail "no nvcc in PATH or /usr/local/cuda/bin: ./dev gpu needs the CUDA toolkit 13"
}
require_gpu() {
  command -v nvidia-smi >/dev/null || fail "no device: there is no nvidia-smi, so no driver of a GPU"
  nvidia-smi --list-gpus | grep --quiet '^GPU ' || fail "no device: nvidia-smi lists no GPU"
}

# gpu_facts: name, driver, memory, clocks now and at most, power limit of each GPU, as CSV.
gpu_facts() {
  nvidia-smi --format=csv \
    --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit
}

# build_gpu [TARGET...]: everything of the preset cuda, or these targets.
build_gpu() {
  install_packages "${build_packages[@]}"
  fetch_sources
  say "building ${*:-everything} in build/cuda"
  mkdir --parents build
  cmake --preset cuda >build/configure_cuda.log 2>&1 || { cat build/configure_cuda.log; fail "cmake failed"; }
  ninja -C build/cuda -j "$jobs" "$@"
}

# run_gpu --build-only: build/cuda/tessera, which needs no GPU to be made.
# run_gpu [FOLDER]: results go there, by default to benchmarks/results/<day>-<name of the GPU>.
run_gpu() {
  require_nvcc
  if [ "${1:-}" = --build-only ]; then
    build_gpu tessera
    return
  fi
  require_gpu
  local folder=${1:-} name
  name=$(nvidia-smi --query-gpu=name --format=csv,noheader | head --lines=1 | tr 'A-Z ' 'a-z-')
  folder=${folder:-benchmarks/results/$(date --utc +%F)-$name}
  make_venv
  build_gpu
  mkdir --parents "$folder"
  gpu_facts >"$folder/gpu.csv"
  git rev-parse HEAD >"$folder/commit.txt" 2>/dev/null || echo unknown >"$folder/commit.txt"
  say "GPU tests"
  # Everything runs although a test fails: what was measured is worth keeping.
  local failed=no
  ctest --test-dir build/cuda --label-regex '^gpu$' --output-on-failure --no-tests=error --parallel 1 \
    --output-junit "$PWD/$folder/tests.xml" 2>&1 | tee "$folder/tests.txt" || failed=yes
  ! grep --quiet 'Skipped' "$folder/tests.txt" || { say "a GPU test was skipped"; failed=yes; }
  say "benchmarks"
  build/cuda/benchmarks/kernels_bench --backend=cuda --benchmark_out_format=json \
    --benchmark_out="$folder/kernels.json" || failed=yes
  gpu_facts >"$folder/gpu_after.csv"
  "$(system_python)" tools/gpu_report.py "$folder" || failed=yes
  [ "$failed" = no ] || fail "a GPU test or benchmark failed: $folder"
  say "results are in $folder"
}
