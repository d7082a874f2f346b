# test_all.sh - sourced by tools/test --all. Runs the specs with more random cases, then sanitizers,
# valgrind, fuzzers and so on, and installs what these need. Prints one line per step with its
# counts, followed by the step's notes and skipped checks; the full outputs are in build/all. The
# last line gives the totals. A step that fails without counts adds one failure.
logs=build/all
mkdir -p $logs
passed=0 failed=0 skipped=0

# step NAME COMMAND...
step() {
  name=$1 status=0
  shift
  "$@" >"$logs/$name.log" 2>&1 || status=$?
  counts=$(tail -n 1 "$logs/$name.log" |
    sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
  # shellcheck disable=SC2086 # three words
  set -- ${counts:-0 0 0}
  more=0
  if [ -z "$counts" ] || { [ $status -ne 0 ] && [ "$2" -eq 0 ]; }; then more=1; fi
  passed=$((passed + $1)) failed=$((failed + $2 + more)) skipped=$((skipped + $3))
  printf '%-12s %5d passed, %d failed, %d skipped\n' "$name" "$1" $(($2 + more)) "$3"
  grep -E '^(note|skipped) ' "$logs/$name.log" | sed 's/^/    /' || :
  if [ $(($2 + more)) -gt 0 ]; then tail -n 60 "$logs/$name.log"; fi
}

# Checks that consist of one command each.
small() (
  . tools/tally.sh
  check 'allocation failures, counted' build/release/samebits-faults
  make -s -C build config=asan faults
  check 'allocation failures, leaks looked for' build/asan/samebits-faults
  if install_packages lua-check; then check luacheck luacheck -q .; else skip luacheck "$why"; fi
  tally
)

# The specs of compiler options and of musl need these packages, and are pending without them.
specs() (
  install_packages clang musl-tools || echo "note $why"
  export SB_CASES="${SB_CASES:-40}"
  . tools/test_queue.sh
)

step specs specs
unset SB_JUNIT
step checks small
step asan tools/asan
step tsan tools/tsan
step valgrind tools/valgrind
step fuzz tools/fuzz 60
step coverage tools/coverage
printf '\n%d passed, %d failed, %d skipped\n' $passed $failed $skipped
[ $failed -eq 0 ]
exit
