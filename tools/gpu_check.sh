#!/bin/sh
# gpu_check.sh [--luaenv DIR] [--results DIR] [--peers DIR] [--budget SECONDS] [--commit NAME]
# [STEP ...] - runs every check that needs a GPU, from a clean tree, and writes a dated record of
# the results to bench/results/.
#
#   build       make -C build CUDA=yes
#   suite       every spec, with SB_REQUIRE=cuda
#   counts      bench/counts.lua: draws, loss terms and logits of heads beside the cpu's; the record
#               has its table
#   memcheck, racecheck, initcheck      compute-sanitizer on bench/gpu_short.py
#   exact       memcheck on specs whose allocations end with the logits (PyTorch rounds sizes up)
#   repeats     1000 repeats, which must give the same bits
#   streams     12 streams at once
#   bench       bench/gpu.py beside peers, with a record of its own
#   ops, step   bench/gpu_ops.py and bench/gpu_step.py, likewise
#
# Without STEP, runs all of them. Needs nvcc, make, a C compiler, Python 3 (PYTHON names another
# interpreter) with PyTorch for the last three, and LuaJIT with busted for the suite. --luaenv names
# a folder that contains LuaJIT with busted and a program luaenv that runs a command with them;
# --peers one with peers that are not installed (bench/peers.py, bench/step_peers.py); --commit what
# the record says was checked, where there is no git. The exit status is 0 if all steps passed.
set -u
cd "$(dirname "$0")/.." || exit 1

luaenv='' results=bench/results peers='' budget=300 steps=''
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
while [ $# -gt 0 ]; do
  case $1 in
    --luaenv) luaenv=$2; shift 2 ;;
    --results) results=$2; shift 2 ;;
    --peers) peers=$2; shift 2 ;;
    --budget) budget=$2; shift 2 ;;
    --commit) commit=$2; shift 2 ;;
    -*) echo "gpu_check: unknown option $1" >&2; exit 2 ;;
    *) steps="$steps $1"; shift ;;
  esac
done
[ -n "$steps" ] ||
  steps='build suite counts memcheck exact racecheck initcheck repeats streams bench ops step'

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
if [ -z "$gpu" ]; then
  echo 'gpu_check: nvidia-smi names no GPU' >&2
  exit 1
fi
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
# Turns "NVIDIA H100 80GB HBM3" into h100.
short=$(printf %s "$gpu" | tr '[:upper:] ' '[:lower:]\n' | grep -m 1 '[0-9]' || echo gpu)
mkdir -p "$results" || exit 1
day=$(date +%Y-%m-%d) today=$day number=2
while [ -e "$results/check-$short-$today.md" ] || [ -e "$results/peers-$short-$today.md" ] ||
  [ -e "$results/ops-$short-$today.md" ]; do
  today=$day-$number number=$((number + 1)) # keeps earlier records of the same day
done
record=$results/check-$short-$today.md scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
logs=$scratch/logs tree=$scratch/tree
mkdir "$logs" "$tree"

python=${PYTHON:-python3}
sanitizer=$(command -v compute-sanitizer) ||
  sanitizer=${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer

sanitize() {
  "$sanitizer" --tool "$1" --error-exitcode 9 --target-processes all "$python" bench/gpu_short.py
}

# In a build for it: see ARRIVALS in kernels/mbarrier.cuh.
racecheck() {
  git archive HEAD | tar -x -C "$tree" &&
    NVCC_APPEND_FLAGS="${NVCC_APPEND_FLAGS:-} -DSB_EVERY_LANE_ARRIVES" \
      make --no-print-directory -C "$tree/build" -j"$(nproc)" CUDA=yes samebits &&
    SAMEBITS_LIB=$tree/build/release/libsamebits.so sanitize racecheck
}

busted=${luaenv:+$luaenv/usr/bin/busted}
[ -n "$busted" ] || busted=$(command -v busted)

suite() { SB_REQUIRE=cuda ${luaenv:+"$luaenv/luaenv"} luajit "$busted"; }

counts() {
  LUA_PATH="$PWD/lua/?.lua;;" ${luaenv:+"$luaenv/luaenv"} luajit bench/counts.lua
}

exact() {
  SB_REQUIRE=cuda "$sanitizer" --tool memcheck --error-exitcode 9 --target-processes all \
    ${luaenv:+"$luaenv/luaenv"} luajit "$busted" spec/numerics/entropy_spec.lua \
    spec/numerics/kl_spec.lua
}

# measure PROGRAM RECORD
measure() {
  "$python" "bench/$1.py" --budget "$budget" ${peers:+--peers "$peers"} \
    --out "$results/$2-$short-$today.md"
}

step() {
  case $1 in
    build) make --no-print-directory -C build -j"$(nproc)" CUDA=yes ;;
    suite) suite ;;
    counts) counts ;;
    exact) exact ;;
    memcheck | initcheck) sanitize "$1" ;;
    racecheck) racecheck ;;
    repeats) "$python" bench/gpu_short.py --repeats 1000 ;;
    streams) "$python" bench/gpu_short.py --streams 12 ;;
    bench) measure gpu peers ;;
    ops) measure gpu_ops ops ;;
    step) measure gpu_step step ;;
    *) echo "gpu_check: there is no step $1"; return 2 ;;
  esac
}

{
  echo "# Checks on a GPU: $gpu, $today"
  echo
  echo "Driver $driver; $("${NVCC:-nvcc}" --version 2>/dev/null | grep release | sed 's/^ *//');"
  echo "commit $commit. \`tools/gpu_check.sh\`,"
  echo "which says what each step is."
  echo
  echo '| step | result | seconds | last line |'
  echo '| --- | --- | --- | --- |'
} > "$record.tmp"

failed=0
for s in $steps; do
  echo "== $s"
  began=$(date +%s)
  step "$s" > "$logs/$s" 2>&1
  status=$?
  took=$(($(date +%s) - began))
  # The summary of the sanitizer follows the last line of the program itself.
  last=$(grep -v '^[[:space:]]*$' "$logs/$s" | tail -n 1 | tr '|' '/' | cut -c 1-120)
  if [ $status -eq 0 ]; then result=passed; tail -n 4 "$logs/$s"
  else
    result="**failed** ($status)" failed=$((failed + 1))
    tail -n 60 "$logs/$s"
  fi
  echo "| $s | $result | $took | $last |" >> "$record.tmp"
done

digest=$(cat "$logs"/* | sed -n 's/^digest //p' | head -n 1)
if [ -n "$digest" ]; then
  printf '\nDigest of what bench/gpu_short.py computes, the same on any GPU:\n%s\n' "$digest" \
    >> "$record.tmp"
fi
if [ -e "$logs/counts" ]; then
  printf '\nResults whose bits differ, by bench/counts.lua, of\n' >> "$record.tmp"
  grep -v '^==' "$logs/counts" >> "$record.tmp"
fi
mv "$record.tmp" "$record"
echo "== record: $record; $failed failed"
[ "$failed" -eq 0 ]
