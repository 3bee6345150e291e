#!/usr/bin/env bash
# Installs what a build of libafm needs and is missing: system packages (Debian, as root) and Python packages. Idempotent,
# and silent when there is nothing to do.
#
#   scripts/bootstrap.sh            install
#   scripts/bootstrap.sh --python   print the Python that will be used, and install nothing
#
# The Python is $AFM_PYTHON where that is set (then nothing is installed into it); else the active virtual environment
# where it has torch 2.11 to 2.14; else .venv, which sees the system's torch where that one is suitable and gets the pinned
# CPU torch otherwise.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

say() { printf '\033[1m[libafm]\033[0m %s\n' "$*"; }

has_suitable_torch() {
  "$1" -c 'import sys, torch; sys.exit(not (2, 11) <= tuple(map(int, torch.__version__.split(".")[:2])) <= (2, 14))' \
    2>/dev/null
}

python_to_use() {
  if [ -n "${AFM_PYTHON:-}" ]; then
    echo "$AFM_PYTHON"
  elif [ -n "${VIRTUAL_ENV:-}" ] && has_suitable_torch "$VIRTUAL_ENV/bin/python"; then
    echo "$VIRTUAL_ENV/bin/python"
  else
    echo "$PWD/.venv/bin/python"
  fi
}

if [ "${1:-}" = --python ]; then
  python_to_use
  exit 0
fi

has_header() { printf '#include <%s>\n' "$1" | g++ -std=c++20 -E -x c++ - >/dev/null 2>&1; }
has_eigen() { [ -e /usr/include/eigen3/Eigen/Core ] || has_header Eigen/Core; }
has_catch2() { has_header catch2/catch_test_macros.hpp; }

missing_packages() {
  command -v g++ >/dev/null || echo g++
  command -v cmake >/dev/null || echo cmake
  command -v ninja >/dev/null || echo ninja-build
  command -v ccache >/dev/null || echo ccache
  python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
  [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || echo python3-dev
  command -v g++ >/dev/null || return 0
  has_eigen || echo libeigen3-dev
  has_header fmt/format.h || echo libfmt-dev
  has_header nlohmann/json.hpp || echo nlohmann-json3-dev
  has_header xxhash.h || echo libxxhash-dev
  has_catch2 || echo libcatch2-dev
}

# Debian 12 has Catch2 3 in its backports suite only: enable it from the machine's own entry for the same mirror.
enable_backports() {
  local codename entry=/etc/apt/sources.list.d/debian.sources
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  [ "$codename" = bookworm ] || return 0
  grep -rqs "^[^#]*$codename-backports" /etc/apt/sources.list /etc/apt/sources.list.d && return 0
  if [ -e "$entry" ]; then
    awk -v RS= -v suite="$codename-backports" '
      /^Types:|\nTypes:/ && $0 !~ /security/ { sub(/Suites:[^\n]*/, "Suites: " suite); print; exit }' "$entry" \
      > /etc/apt/sources.list.d/afm-backports.sources
  else
    sed -n "s/^\(deb .*\) $codename main.*/\1 $codename-backports main/p" /etc/apt/sources.list | head -n 1 \
      > /etc/apt/sources.list.d/afm-backports.list
  fi
}

install_packages() {
  local packages=("$@")
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "libafm needs these system packages, and cannot install them here: ${packages[*]}" >&2
    echo "On Debian 12 libcatch2-dev is in the backports suite." >&2
    exit 1
  fi
  say "installing system packages: ${packages[*]}"
  enable_backports
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  local release=()
  [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = bookworm ] && release=(-t bookworm-backports)
  for package in "${packages[@]}"; do
    if [ "$package" = libcatch2-dev ]; then
      apt-get install -y -qq "${release[@]}" libcatch2-dev >/dev/null
    else
      apt-get install -y -qq "$package" >/dev/null
    fi
  done
}

mapfile -t missing < <(missing_packages)
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
mapfile -t missing < <(missing_packages) # g++ itself may have been missing above
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"

install_python_packages() { # python, requirements, lock ("" where versions are the environment's own)
  local stamp
  stamp=$("$1" -c 'import sys; print(sys.prefix)')/.afm-requirements
  [ "$(cat "$stamp" 2>/dev/null)" != "$2$3" ] || return 0
  say "installing Python packages (a first time takes a minute or two)"
  if [ -n "$3" ]; then printf '%s\n' "$3" | pip_install "$1" --no-deps --require-hashes; fi
  printf '%s\n' "$2" | pip_install "$1"
  printf '%s%s\n' "$2" "$3" > "$stamp"
}

pip_install() { # python, options; requirements from standard input
  "$1" -m pip install --quiet --disable-pip-version-check "${@:2}" -r /dev/stdin
}

[ -z "${AFM_PYTHON:-}" ] || exit 0
without_torch=$(grep -v '^torch==' requirements.txt)
if [ "$(python_to_use)" != "$PWD/.venv/bin/python" ]; then
  install_python_packages "$(python_to_use)" "$without_torch" ""
else
  if [ ! -x .venv/bin/python ]; then
    say "making the Python environment .venv"
    has_suitable_torch python3 && shared=--system-site-packages || shared=
    python3 -m venv $shared .venv
  fi
  if grep -q 'include-system-site-packages = true' .venv/pyvenv.cfg; then
    install_python_packages .venv/bin/python "$without_torch" ""
  else
    install_python_packages .venv/bin/python "$(cat requirements.txt)" "$(cat requirements.lock)"
  fi
fi
