# test_queue.sh - sourced by tools/test and tools/test_all.sh in the top folder: runs every spec
# file in a process of its own, as many at once as there are processors. Prints a line for each file
# as it ends, followed by its output if a test has failed; then the reasons for skipped tests; and
# as the last line the sum of all counts. If SB_JUNIT is set, that file gets the results of all.
#
# A line of a spec file may say where in the queue the file belongs:
#
#     -- queue: early    takes long: the others run beside it, not in front of it
#     -- queue: alone    measures time, or needs all that there is: nothing runs beside it
#
# All others write into temporary folders only, so any two of them may run at once.
folder=$(mktemp -d)
workers=''
trap 'rm -rf "$folder"' EXIT
# shellcheck disable=SC2086 # a list of numbers
trap 'kill $workers 2>/dev/null; exit 1' HUP INT TERM

place_of() { printf '%s/%s' "$folder" "$(printf %s "$1" | tr / .)"; }

# "P F S" of a file whose output is in a folder and that ended with a status. A file that did not
# come to its closing line, or failed without a failed test, has one failure more.
counts_of() {
  tail -n 1 "$1/said" | awk -v status="$2" '
    /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { p = $1; f = $3; s = $5; ended = 1 }
    END { print p + 0, f + (!ended || (status && !f)), s + 0 }'
}

# What a shell starts in the background ignores an interrupt. Specs, and what they start, must not.
heed='local ffi = require "ffi"
ffi.cdef "void *sb_handle_by_default(int, void *) __asm__(\"signal\");"
ffi.C.sb_handle_by_default(2, nil) ffi.C.sb_handle_by_default(3, nil)'

# work FILE... - runs the files that no other worker has taken.
work() {
  child=''
  trap '[ -z "$child" ] || kill "$child" 2>/dev/null; exit 1' HUP TERM
  for file; do
    place=$(place_of "$file")
    mkdir "$place" 2>/dev/null || continue
    status=0
    SB_JUNIT=${SB_JUNIT:+$place/junit} luajit -e "$heed" "$(command -v busted)" "$file" \
      >"$place/said" 2>&1 &
    child=$!
    wait "$child" || status=$?
    child=''
    counts=$(counts_of "$place" "$status")
    echo "$counts" >"$place/counts"
    text=$(echo "$counts" | awk -v file="$file" -v seconds="$(sed -n 's/ seconds$//p' \
      "$place/said" | tail -n 1)" '{
        printf "%6.1f s  %s: %d passed, %d failed, %d skipped\n", seconds, file, $1, $2, $3 }')
    case $counts in
      *' 0 '*) printf '%s\n' "$text" ;;
      *)
        printf '%s\n%s\n    exit status %d\n' "$text" "$(sed 's/^/    /' "$place/said")" "$status"
        ;;
    esac
  done
}

# run N FILE... - runs the files in N workers.
run() {
  left=$1
  shift
  while [ "$left" -gt 0 ]; do
    work "$@" &
    workers="$workers $!"
    left=$((left - 1))
  done
  for worker in $workers; do wait "$worker" || :; done
  workers=''
}

files=$(find spec -name '*_spec.lua' | sort)
# shellcheck disable=SC2046,SC2086 # lists of paths without spaces
{
  run "$(nproc 2>/dev/null || echo 1)" $(grep -lx -e '-- queue: early' $files) \
    $(grep -Lx -e '-- queue: alone' $files)
  run 1 $files # those that are left
}

echo
cat "$folder"/*/said | awk '
  /^skipped  [0-9]+ tests?: / { n = $2; sub(/^[^:]*: /, ""); skips[$0] += n }
  END { for (why in skips)
    printf "skipped  %d test%s: %s\n", skips[why], (skips[why] > 1 ? "s" : ""), why
  }' | sort -k 2,2nr

if [ -n "${SB_JUNIT:-}" ]; then
  {
    echo '<testsuites>'
    for file in $files; do
      place=$(place_of "$file")
      if [ -s "$place/junit" ]; then
        grep -v '^</*testsuites' "$place/junit"
      else
        printf "<testsuite name='%s' tests='1' errors='1' failures='0' skipped='0'>" "$file"
        printf "<testcase name='%s'><error message='it did not end'/></testcase>" "$file"
        printf '</testsuite>\n'
      fi
    done
    echo '</testsuites>'
  } >"$SB_JUNIT"
fi

cat "$folder"/*/counts | awk -v files="$(printf '%s\n' "$files" | wc -l)" '
  { n++; p += $1; f += $2; s += $3 }
  END {
    f += files - n
    printf "\n%d passed, %d failed, %d skipped\n", p, f, s
    exit f > 0 }'
exit
