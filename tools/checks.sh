# Sourced by ./dev: the checks beyond the plain test run.

# What the builds of `test --all` run, by label: the optimised build has run everything before, so
# each of them runs what it can say something about. "script" is every test that starts programs of
# its own, "rpc" every test that talks through gRPC, which the thread sanitizer cannot follow.
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

# starts_threads NAME: whether this program can start a thread at all. Asked of the optimised build.
starts_threads() {
  local program
  program=$(find build/cpu -type f -name "$1" -perm -u+x -print -quit)
  [ -n "$program" ] || fail "build/cpu has no program $1"
  # No --quiet: nm would end by SIGPIPE, and so the pipe.
  nm --dynamic --undefined-only "$program" | grep -E '_M_start_thread|pthread_create' >/dev/null
}

# check_preset NAME LABELS WITHOUT everything|threaded: builds the whole tree, or only the tests to run: those with one
# of LABELS and none of WITHOUT, and of programs that start threads; runs them. A test that is no script has the name
# of its program.
check_preset() {
  say "preset $1: build, then the tests labelled $2, without $3"
  # Not --preset: a label that a preset excludes replaces --label-exclude.
  local tests=(ctest --test-dir "build/$1" --label-regex "^($2)$" --label-exclude "^(gpu|$3)$") programs=() name
  cmake --preset "$1" >/dev/null
  if [ "$4" = threaded ]; then
    for name in $("${tests[@]}" --show-only | sed --quiet 's/^ *Test *#[0-9]*: //p'); do
      starts_threads "$name" && programs+=("$name")
    done
    [ "${#programs[@]}" -gt 0 ] || fail "preset $1 has no test labelled $2"
    say "preset $1: ${#programs[@]} programs start threads"
    tests+=(--tests-regex "^($(IFS='|'; echo "${programs[*]}"))$")
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

# long_program PROGRAM [FILTER]: the long version of a test of the optimised build.
long_program() {
  TESSERA_LONG_TESTS=1 "build/cpu/$1" --gtest_brief=1 --gtest_filter="${2:-*}"
}

# side_by_side COMMANDS...: a command line each, as many at once as there are processors. Each one's output appears
# whole, when it ends; fails if one of them did.
side_by_side() {
  export jobs
  export -f say fail long_program
  printf '%s\0' "$@" | xargs --null --max-args=1 --max-procs="$jobs" bash -fc '
    if output=$($0 2>&1); then say "held: $0"; echo "$output"; else echo "$output"; say "FAILED: $0"; exit 1; fi'
}

# check_gpu_code: compiles the GPU build's code for sm_90a, some two minutes, and refuses kernels with local memory or
# that docs/cuda_kernels.md does not have. Without nvcc it says so.
check_gpu_code() {
  if ! PATH="$PATH:/usr/local/cuda/bin" command -v nvcc >/dev/null; then
    say "no nvcc: the code for GPUs is not compiled, docs/cuda_kernels.md not compared"
    return
  fi
  make_venv build/cuda_tools tools/cuda_requirements.txt
  ninja -C build/cpu -j "$jobs" kernels_gpu
  ctest --preset cpu --tests-regex '^cuda_kernels_check$'
}

# stage COMMAND...: a failure is remembered, and the stages after it still run: one run of hours tells everything.
failed_stages=()
stage() {
  local status
  set +e
  (set -e; "$@")
  status=$?
  set -e
  [ "$status" -eq 0 ] || failed_stages+=("$*")
}

# end_stages: fails, with their names, if stages did.
end_stages() {
  [ "${#failed_stages[@]}" -eq 0 ] && return 0
  printf '[dev] failed: %s\n' "${failed_stages[@]}" >&2
  fail "${#failed_stages[@]} of the stages failed"
}

# long_programs: the programs whose long versions take minutes.
long_programs() {
  local program simulations=()
  for program in build/cpu/tests/simulation/*_test; do
    simulations+=("$program --seeds=10000")
  done
  side_by_side \
    "long_program tests/parity/model_golden_test *Cuda*" \
    "long_program tests/integration/prefix_tree_test" \
    "long_program tests/parity/cuda_parity_test" \
    "long_program model/tensors/tensor_inventory_test DamagedHeader.*" \
    "${simulations[@]}"
}

# check_all: everything that ./dev test leaves out, cheap to dear.
check_all() {
  stage install_packages "${clang_packages[@]}"
  sanitizer_environment
  stage check_gpu_code
  # One build for clang's analysis of locks and for its sanitizers: the sources compile with both compilers.
  stage check_preset asan "$asan_tests" 'mpi|script' everything
  say "10,000 connections, thousands of generated requests per route, every JSON schema"
  stage long_script connections_test tessera
  stage long_script openapi_test tessera
  stage long_script grammar_validity_test tests/integration/grammar_sampler
  say "1,000 foreign hits against misses, by their first tokens"
  stage long_script tenant_timing_test tessera
  say "every recording on the simulated GPU and every op under 100 schedules of it, a bit of every byte of the goldens'"
  say "headers, 1,000 prefix trees, long simulations"
  stage long_programs
  # Suites that run in process and over gRPC: here the former alone.
  GTEST_FILTER="$tsan_cases" stage check_preset tsan "$tsan_tests" 'mpi|script|rpc' threaded
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
