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

# Compiles machine code only for the two instruction sets that the kernels distinguish, and PTX for
# later GPUs. That takes a third of the time of a plain make, which compiles for every SM. Projects
# share sources, so make names some files twice; its output is shown only if the build fails.
echo 'building; build/make.log tells how far it is' >&2
CUDA_ARCH=${CUDA_ARCH:-80,90} make -s -C build -j"$(nproc 2>/dev/null || echo 1)" \
  >build/make.log 2>&1 || {
  cat build/make.log >&2
  echo 'setup: the build has failed' >&2
  exit 1
}
