#!/bin/sh
# kernel.sh IN.cu OUT.o [--cuda=auto|yes|no] [--arch=80,90] - compiles a kernel file to a fatbin
# (machine code for each SM, and PTX for later ones) and wraps it in an object file under the symbol
# sb_fatbin_NAME. Leaves all PTX that the fatbin was made of in the folder OUT.ptx, for
# tools/lint_kernels.lua. Without nvcc, the embedded file is empty. The environment, or the command
# line of make, may set NVCC, NVCC_APPEND_FLAGS, CUDA, CUDA_ARCH and CC.
set -eu
in=$1 out=$2
shift 2
mode=auto arch=80,90
for o; do
  case $o in
    --cuda=*) mode=${o#*=} ;;
    --arch=*) arch=${o#*=} ;;
  esac
done
mode=${CUDA:-$mode} arch=${CUDA_ARCH:-$arch}
here=$(dirname "$0") name=$(basename "$in" .cu) bin=${out%.o}.fatbin dep=${out%.o}.d
ptx=${out%.o}.ptx

nvcc=
if [ "$mode" != no ]; then
  for c in "${NVCC:-}" "$(command -v nvcc || :)" "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc"; do
    if [ -n "$c" ] && [ -x "$c" ]; then nvcc=$c; break; fi
  done
  if [ -z "$nvcc" ] && [ "$mode" = yes ]; then
    echo "kernel.sh: CUDA=yes, but no nvcc was found" >&2
    exit 1
  fi
fi

if [ -n "$nvcc" ]; then
  # The kernels distinguish two instruction sets, 80 and 90. Code for later SMs is compiled from the
  # PTX of these, which takes less than half the time.
  gen= of=
  for a in $(printf %s "$arch" | tr ',' ' '); do
    if [ "$a" -ge 90 ]; then of=90; else of=80; fi
    case $name in
      # For one GPU: instructions of sm_90a are not in the PTX for later SMs. Other GPUs get empty
      # kernels.
      *_hopper)
        of=80
        if [ "$a" -eq 90 ]; then gen="$gen -gencode arch=compute_90a,code=sm_90a"; fi
        ;;
      *) gen="$gen -gencode arch=compute_$of,code=sm_$a" ;;
    esac
  done
  # The contract specifies every rounding, so these options come after those of NVCC_APPEND_FLAGS
  # and override them.
  exact='--fmad=false --ftz=false --prec-div=true --prec-sqrt=true'
  flags=${NVCC_APPEND_FLAGS:-}
  rm -rf "$ptx"
  mkdir -p "$ptx"
  # shellcheck disable=SC2086
  NVCC_APPEND_FLAGS='' "$nvcc" $flags -std=c++17 -O3 $exact --threads 2 $gen \
    -gencode "arch=compute_$of,code=compute_$of" \
    -MMD -MP -MF "$dep" -MT "$out" --keep --keep-dir "$ptx" -fatbin -o "$bin" "$in"
  find "$ptx" -type f ! -name '*.ptx' -exec rm {} +
else
  : > "$bin"
  : > "$dep"
fi
${CC:-cc} -c -x assembler-with-cpp -DNAME=sb_fatbin_"$name" -DFILE=\""$bin"\" -o "$out" \
  "$here/embed.S"
