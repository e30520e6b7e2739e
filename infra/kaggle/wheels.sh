#!/usr/bin/env bash
# Collects everything that a notebook without network installs: the wheel of this project and those of its requirements
# in the versions of requirements.lock, with SHA256SUMS. Attach the folder to the notebook as a data set.
#
#   infra/kaggle/wheels.sh FOLDER [PYTHON_VERSION]
#
# PYTHON_VERSION is that of the notebook (default: 3.12). Where wheels come from is pip's own configuration.
#   PYTHON   interpreter whose pip is used (default: .venv/bin/python)
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 FOLDER [PYTHON_VERSION]" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
version=${2:-3.12}
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}

platforms=(--platform linux_x86_64)
for libc in $(seq 5 35); do
    platforms+=(--platform "manylinux_2_${libc}_x86_64")
done
platforms+=(--platform manylinux1_x86_64 --platform manylinux2010_x86_64 --platform manylinux2014_x86_64)

rm -f "$folder"/spectramind-*.whl
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder" .
"$python" -m pip download --quiet --disable-pip-version-check --dest "$folder" --constraint requirements.lock \
    --only-binary :all: --python-version "$version" --implementation cp "${platforms[@]}" "$folder"/spectramind-*.whl
(cd "$folder" && sha256sum -- *.whl > SHA256SUMS)
echo "$(wc -l < "$folder/SHA256SUMS") wheels for Python $version in $folder"
