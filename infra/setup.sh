#!/usr/bin/env bash
# Creates .venv with the locked versions and this project in editable form. Called by the Makefile; safe to repeat.
#
#   PYTHON   interpreter to use (default: the first of python3, python3.14 ... python3.11 that is new enough)
#   EXTRAS   optional dependencies to install (default: dev)
set -euo pipefail
cd "$(dirname "$0")/.."

stop() {
    printf 'setup: %s\n' "$@" >&2
    exit 2
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
[ -n "${python:-}" ] || stop "Python 3.11 or later was not found (looked for: ${PYTHON:-python3, python3.11 to python3.14})." \
    "Install one and repeat, or name it: make demo PYTHON=/path/to/python3"

# Debian keeps ensurepip in a package of its own; a pip of the system can take its place.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv --clear .venv
    elif "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --clear --without-pip .venv
        "$python" -m pip --python .venv/bin/python install --quiet pip
    else
        stop "$python cannot create virtual environments with pip." "On Debian or Ubuntu: sudo apt install python3-venv"
    fi
fi

echo "Installing the locked dependencies into .venv (a few minutes, once) ..."
.venv/bin/python -m pip install -qq --disable-pip-version-check -c requirements.lock -e ".[${EXTRAS:-dev}]"
.venv/bin/python -m pip check
touch .venv/.ok
