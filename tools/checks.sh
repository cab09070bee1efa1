# Sourced by ./dev: the checks beyond the plain test run.

# What the builds of `test --all` run, by label: the optimised build has run everything before, so
# each of them runs what it can say something about. "script" is every test that starts programs of
# its own, "rpc" every test that talks through gRPC, which the thread sanitizer cannot follow. Nothing in the folders
# model and routing knows of threads, so their own tests are not built with that sanitizer.
asan_tests='unit|simulation|conformance|parity|integration'
tsan_tests='unit|simulation|conformance|integration'
tsan_cases='-*/Grpc:StepStream.*:*OverGrpc:*/SharedMemory:*/*Remote*:RemoteFaultTest.*'

# sanitizer_environment: what the sanitizers need to know about libraries that we do not build.
sanitizer_environment() {
  export ASAN_OPTIONS="strict_string_checks=1"
  export UBSAN_OPTIONS="print_stacktrace=1"
  export LSAN_OPTIONS="suppressions=$PWD/tools/lsan_suppressions.txt:print_suppressions=0"
  export TSAN_OPTIONS="suppressions=$PWD/tools/tsan_suppressions.txt:second_deadlock_stack=1"
}

# check_preset NAME LABELS WITHOUT [everything]: builds its tests with one of LABELS and none of WITHOUT, or the whole
# tree, and runs these tests. A test that is no script has the name of its program.
check_preset() {
  say "preset $1: build, then the tests labelled $2, without $3"
  # Not --preset: a label that a preset excludes replaces --label-exclude.
  local tests=(ctest --test-dir "build/$1" --label-regex "^($2)$" --label-exclude "^(gpu|$3)$") programs=()
  cmake --preset "$1" >/dev/null
  if [ "${4:-}" != everything ]; then
    mapfile -t programs < <("${tests[@]}" --show-only | sed --quiet 's/^ *Test *#[0-9]*: //p')
    [ "${#programs[@]}" -gt 0 ] || fail "preset $1 has no test labelled $2"
  fi
  ninja -C "build/$1" -j "$jobs" "${programs[@]}"
  "${tests[@]}" --parallel "$jobs" --output-on-failure --no-tests=error
}

# simulate [--seed=N | --seeds=N]: every simulation of build/cpu; each prints the seed that fails.
simulate() {
  local program
  for program in build/cpu/tests/simulation/*_test; do
    "$program" "$@"
  done
}

# long_script NAME PROGRAM: the long version of a Python test, without the time limit of the short one.
long_script() {
  TESSERA_LONG_TESTS=1 build/venv/bin/python3 -B "tests/integration/$1.py" "build/cpu/$2"
}

# check_all: everything that ./dev test leaves out, cheap to dear.
check_all() {
  install_packages "${clang_packages[@]}"
  sanitizer_environment
  # One build for clang's analysis of locks and for its sanitizers: the sources compile with both compilers.
  check_preset asan "$asan_tests" 'mpi|script' everything
  say "10,000 connections, thousands of generated requests per route, every JSON schema"
  long_script connections_test tessera
  long_script openapi_test tessera
  long_script grammar_validity_test tests/integration/grammar_sampler
  say "a bit of every byte of the goldens' headers"
  TESSERA_LONG_TESTS=1 build/cpu/model/tensors/tensor_inventory_test --gtest_filter='DamagedHeader.*'
  say "1,000 foreign hits against misses, by their first tokens"
  long_script tenant_timing_test tessera
  say "1,000 prefix trees"
  TESSERA_LONG_TESTS=1 build/cpu/tests/integration/prefix_tree_test
  say "every op under 100 schedules of the simulated GPU, and every recording on it"
  TESSERA_LONG_TESTS=1 build/cpu/tests/parity/cuda_parity_test
  TESSERA_LONG_TESTS=1 build/cpu/tests/parity/model_golden_test --gtest_filter='*Cuda*'
  say "long simulations"
  simulate --seeds=10000
  # Suites that run in process and over gRPC: here the former alone.
  GTEST_FILTER="$tsan_cases" check_preset tsan "$tsan_tests" 'mpi|script|rpc|model|routing'
}

# format_sources [--check]
format_sources() {
  install_packages git clang-format
  local mode=(-i)
  [ "${1:-}" = --check ] && mode=(--dry-run -Werror)
  git ls-files -z --cached --others --exclude-standard '*.cc' '*.h' '*.cu' '*.cuh' |
    xargs --null --no-run-if-empty clang-format "${mode[@]}"
}

# lint_sources [FILE...]: clang-tidy on these, or on the .cc files that differ from the main branch.
lint_sources() {
  install_packages git "${clang_packages[@]}"
  configure_and_build tessera
  local files=("$@") base
  if [ "${#files[@]}" -eq 0 ]; then
    base=$(git merge-base HEAD main 2>/dev/null || git rev-parse HEAD)
    mapfile -t files < <(
      { git diff --name-only --diff-filter=d "$base" -- '*.cc'
        git ls-files --others --exclude-standard '*.cc'; } | sort --unique)
  fi
  [ "${#files[@]}" -gt 0 ] || { say "no .cc file differs from main"; return 0; }
  say "clang-tidy on ${#files[@]} files"
  printf '%s\0' "${files[@]}" |
    xargs --null --max-args=1 --max-procs="$jobs" clang-tidy -p build/cpu --quiet
}
