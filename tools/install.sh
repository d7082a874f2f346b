# install.sh - to be sourced. install_packages PACKAGE... installs those packages that a Debian
# system lacks, as root or through sudo. On failure it returns 1, with the reason in $why.
why=

install_packages() {
  lacking=
  if ! command -v dpkg-query >/dev/null 2>&1; then
    why="no dpkg to look for:$(printf ' %s' "$@")"
    return 1
  fi
  for p in "$@"; do
    [ "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" = 'install ok installed' ] ||
      lacking="$lacking $p"
  done
  [ -n "$lacking" ] || return 0
  if ! command -v apt-get >/dev/null 2>&1; then
    why="please install:$lacking"
    return 1
  fi
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
    if ! command -v sudo >/dev/null 2>&1; then
      why="needs root or sudo to install:$lacking"
      return 1
    fi
  fi
  echo "installing$lacking" >&2
  # shellcheck disable=SC2086 # lists of words
  log=${TMPDIR:-/tmp}/samebits-setup.log
  if {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
    $as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get -qq install -y --no-install-recommends $lacking
  } >"$log" 2>&1; then return 0; fi
  why="cannot install$lacking ($log): $(tail -n 1 "$log")"
  return 1
}
