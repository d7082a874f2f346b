# test_halves.sh - sourced by tools/test in the top folder: runs all specs in two processes, about
# half of the time each, and ends with the sum of their last lines.
#
# What runs beside the others builds in temporary folders and measures no time.
beside='spec/parity spec/lua/drift spec/numerics/kernels_spec.lua'
others=$(find spec -name '*_spec.lua' ! -path 'spec/parity/*' ! -path 'spec/lua/drift/*' \
  ! -path spec/numerics/kernels_spec.lua | sort)
folder=$(mktemp -d)
second=''
trap 'rm -rf "$folder"' EXIT
trap '[ -z "$second" ] || kill "$second" 2>/dev/null; exit 1' HUP INT TERM

# shellcheck disable=SC2086 # lists of paths without spaces
luajit "$(command -v busted)" $beside >"$folder/beside" 2>&1 &
second=$!
{
  status=0
  # shellcheck disable=SC2086
  luajit "$(command -v busted)" $others 2>&1 || status=$?
  echo "$status" >"$folder/status"
} | tee "$folder/others"
status=0
wait "$second" || status=$?
cat "$folder/beside"

# "N passed, N failed, N skipped" of both. A process without that line did not get to its end.
tail -qn 1 "$folder/others" "$folder/beside" | awk '
  /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { lines++; p += $1; f += $3; s += $5 }
  END { if (lines < 2) f++; printf "\n%d passed, %d failed, %d skipped\n", p, f, s }'
if [ "$status" -eq 0 ]; then status=$(cat "$folder/status"); fi
exit "$status"
