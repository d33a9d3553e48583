#!/bin/sh
# Makes the virtual environment $1 and installs the locked versions and this package.
# $2 is a Python to use; without it, the first suitable one on the PATH. $3 names extras, separated by blanks: `gpu`, `bench`.
# uv is used where it is present, else venv and pip.
set -eu
venv=$1
chosen=${2:-}
extras=${3:-}
needs="needs Python 3.10 to 3.13"

suits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

version() {
    "$1" --version 2>&1 | head -n 1
}

if [ -n "$chosen" ]; then
    if ! command -v "$chosen" >/dev/null 2>&1; then
        echo "make setup: PYTHON=$chosen is not there." >&2
        exit 2
    fi
    if ! suits "$chosen"; then
        echo "make setup: $needs; PYTHON=$chosen is $(version "$chosen")." >&2
        exit 2
    fi
else
    for candidate in python3 python3.12 python3.13 python3.11 python3.10 python; do
        if command -v "$candidate" >/dev/null 2>&1 && suits "$candidate"; then
            chosen=$candidate
            break
        fi
    done
    if [ -z "$chosen" ]; then
        echo "make setup: $needs; found $(python3 --version 2>&1 || echo none). PYTHON=/path/to/python3.12 chooses one." >&2
        exit 2
    fi
fi

# The interpreter itself, not a shim that may choose another one later.
chosen=$("$chosen" -c 'import sys; print(sys.executable)')
if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
    echo "make setup: VENV=$venv exists and is not a virtual environment; it would be replaced. Choose another VENV." >&2
    exit 2
fi
echo "Installing into $venv with $(version "$chosen"): about 4 GB, a minute or two."
rm -rf "$venv"
if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --python "$chosen" "$venv"
    install() { uv pip install --quiet --python "$venv/bin/python" "$@"; }
else
    "$chosen" -m venv "$venv"
    install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
fi
install --requirement requirements.lock
install --no-deps --editable .
for extra in $extras; do
    install --constraint requirements.lock --editable ".[$extra]"
done
