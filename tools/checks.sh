# Sourced by ./dev: the checks beyond the plain test run.

# The builds of `test --all`; each runs the tests that need no other process and no MPI.
in_process_labels='^(unit|simulation|conformance|parity)$'

# sanitizer_environment: what the sanitizers need to know about libraries that we do not build.
sanitizer_environment() {
  export ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1"
  export UBSAN_OPTIONS="print_stacktrace=1"
  export LSAN_OPTIONS="suppressions=$PWD/tools/lsan_suppressions.txt:print_suppressions=0"
  export TSAN_OPTIONS="suppressions=$PWD/tools/tsan_suppressions.txt:second_deadlock_stack=1"
}

# check_preset NAME: builds it whole and runs its in-process tests.
check_preset() {
  say "preset $1: build, then the tests labelled unit, simulation, conformance, parity"
  cmake --preset "$1" >/dev/null
  ninja -C "build/$1" -j "$jobs"
  ctest --preset "$1" --parallel "$jobs" --label-regex "$in_process_labels" --label-exclude mpi
}

# simulate [--seed=N | --seeds=N]: every simulation of build/cpu; each prints the seed that fails.
simulate() {
  local program
  for program in build/cpu/tests/simulation/*_test; do
    "$program" "$@"
  done
}

# check_all: everything that ./dev test leaves out, cheap to dear.
check_all() {
  install_packages "${clang_packages[@]}"
  sanitizer_environment
  check_preset clang
  check_preset asan
  say "long simulations"
  simulate --seeds=3000
  check_preset tsan
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
