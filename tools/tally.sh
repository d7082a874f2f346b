# tally.sh - sourced by tools that consist of checks; runs and counts the checks.
#
#   check NAME COMMAND...    prints one line and, if the command fails, its output
#   skip NAME REASON         prints one line
#   tally                    prints "N passed, N failed, N skipped" and fails if any check failed
passed=0 failed=0 skipped=0

check() {
  name=$1
  shift
  if said=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "passed   $name: $(printf '%s\n' "$said" | tail -n 1)"
  else
    status=$?
    failed=$((failed + 1))
    printf '%s\n' "$said"
    echo "FAILED   $name (exit status $status)"
  fi
}

skip() {
  skipped=$((skipped + 1))
  echo "skipped  $1: $2"
}

tally() {
  printf '\n%d passed, %d failed, %d skipped\n' $passed $failed $skipped
  [ $failed -eq 0 ]
}
