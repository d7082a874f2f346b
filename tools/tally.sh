# tally.sh - sourced by tools that are made of checks: runs and counts them.
#
#   check NAME COMMAND...    a line; where the command fails, its output as well
#   skip NAME REASON         a line
#   tally                    the last line, "N passed, N failed, N skipped"; fails if any failed
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
