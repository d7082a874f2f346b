# setup.sh - sourced by the tools that need a build. Changes to the checkout, installs the packages
# that a fresh Debian lacks (as root, or through sudo) and builds. Repeats nothing that is already
# done.
set -eu
cd "$(dirname "$0")/.."
. tools/install.sh

if command -v dpkg-query >/dev/null 2>&1; then
  install_packages gcc libc6-dev make luajit lua-busted lua-dkjson lua-argparse || {
    echo "setup: $why" >&2
    exit 1
  }
else
  # Without dpkg, only the programs themselves can be checked for.
  for p in cc make luajit busted; do
    command -v $p >/dev/null 2>&1 || {
      echo "setup: please install $p (with LuaJIT: busted, dkjson, argparse)" >&2
      exit 1
    }
  done
fi

# The kernels distinguish two instruction sets. Compiles machine code for these alone, and PTX for
# later GPUs, in a third of the time of a plain make, which compiles for every SM; where there is no
# GPU for one of them, in half of that. Projects share sources, so make names some files twice; its
# output is shown only if the build fails.
if [ -z "${CUDA_ARCH:-}" ]; then
  CUDA_ARCH=90
  if nvidia-smi -L >/dev/null 2>&1; then CUDA_ARCH=80,90; fi
fi
echo 'building; build/make.log tells how far it is' >&2
CUDA_ARCH=$CUDA_ARCH make -s -C build -j"$(nproc 2>/dev/null || echo 1)" \
  >build/make.log 2>&1 || {
  cat build/make.log >&2
  echo 'setup: the build has failed' >&2
  exit 1
}
