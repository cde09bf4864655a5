#!/bin/sh
# Makes .venv: this project, editable, with all that its lessons and tests need.
# Asked for by the Makefile. PYTHON=/path/to/python chooses the interpreter.
# Every failure is one sentence; what pip said stands in setup.log.
set -u
cd "$(dirname "$0")/.." || exit 1
log=setup.log
stamp=.venv/.stamp

fail() {
    echo "set-up stopped: $1" >&2
    exit 1
}

version_ok() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
venv_ok() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }
version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null; }

find_python() {
    incomplete= old=
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        path=$(command -v "$candidate" 2>/dev/null) || continue
        version=$(version_of "$path") || continue
        if ! version_ok "$path"; then
            old="$candidate is Python $version"
        elif ! venv_ok "$path"; then
            incomplete="$candidate (Python $version)"
        else
            python=$path
            return
        fi
    done
    [ -n "$incomplete" ] && fail "$incomplete cannot make virtual environments; install its venv package (on Debian and Ubuntu: apt-get install python3-venv)."
    [ -n "$old" ] && fail "zeta_edu needs Python 3.11 or newer, and $old; install a newer one, or name it: make PYTHON=/path/to/python3.12"
    [ -n "${PYTHON:-}" ] && fail "PYTHON=$PYTHON is no Python that runs; name one of 3.11 or newer."
    fail "no Python was found; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3.12"
}

install() {
    .venv/bin/python -m pip install --retries 2 --disable-pip-version-check --no-input "$@" >>"$log" 2>&1 && return
    if grep -qiE 'No space left' "$log"; then
        fail "the disk is full; free about 2 GB (6 GB where torch brings CUDA) and run make again."
    elif grep -qiE 'connection (broken|refused|error)|NewConnectionError|ConnectTimeout|Max retries|name resolution|unreachable|ProxyError|SSLError|timed out' "$log"; then
        fail "no package index could be reached; check the network and run make again (what pip said: $log)."
    fi
    fail "pip could not install what zeta_edu needs; what it said stands in $log."
}

rm -f "$stamp"
: >"$log" || fail "$(pwd) cannot be written to."
if ! { [ -x .venv/bin/python ] && version_ok .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    find_python
    echo "Making .venv with Python $(version_of "$python") (once; a few minutes; what pip says goes to $log)."
    rm -rf .venv
    "$python" -m venv .venv >>"$log" 2>&1 || fail "$python could not make .venv; what it said stands in $log."
else
    echo "Bringing .venv up to date (what pip says goes to $log)."
fi
# torch comes first and pinned: left to itself, pip may take it from a larger build than the tested one.
install -c constraints.txt torch
install -c constraints.txt -e '.[notebooks,train,dev]'
touch "$stamp"
