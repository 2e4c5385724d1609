#!/usr/bin/env bash
# Makes the environment if need be, then runs.
#
#   ./launch.sh                      trains experiments/imdb.py; where IMDB can be neither found nor
#                                    downloaded, experiments/imdb_embedded.py
#   ./launch.sh [arguments]          python -m experiments.run with these arguments (--help says more)
#   ./launch.sh test [arguments]     installs what the tests need and runs pytest with these arguments
#
# It works from any directory: relative paths in the arguments are meant from where you stand.
set -euo pipefail

root=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
venv=$root/.venv
python=$venv/bin/python

say() { printf 'launch.sh: %s\n' "$*" >&2; }

# The newest Python that is at least 3.11 and can make an environment.
find_python() {
    local name
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    say "error: found no Python of at least 3.11 that can make an environment (module venv):" \
        "install one, for example the packages python3.11 and python3.11-venv"
    return 1
}

# The extra of pyproject.toml with the JAX for this machine; nothing for the CPU.
accelerator() {
    if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
        # The CUDA libraries come with JAX; which of them fit, the driver decides.
        if nvidia-smi 2>/dev/null | grep -q 'CUDA Version: *1[3-9]'; then echo cuda13; else echo cuda12; fi
    elif [[ -e /dev/accel0 || -n ${TPU_NAME:-} || -n ${TPU_ACCELERATOR_TYPE:-} ]]; then
        echo tpu
    elif grep -qsx 0x1ae0 /sys/class/vfio-dev/*/device/vendor /sys/bus/pci/devices/*/vendor; then
        echo tpu # Google's PCI vendor id
    fi
}

# install EXTRA...: installs the project with these extras, unless that is how the last time ended.
install() {
    local extras stamp wanted log
    extras=$(IFS=,; echo "$*")
    stamp=$venv/installed-${extras:-cpu}
    wanted="$root $(cksum <"$root/pyproject.toml")"
    if [[ -x $python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then return; fi
    say "installing${extras:+ with [$extras]} into $venv (first start only)"
    log=$(mktemp)
    # An environment that was moved, or whose Python is gone, is made again.
    if ! "$python" -c 'import sys, pip; sys.exit(sys.prefix != sys.argv[1])' "$venv" 2>/dev/null; then
        local base
        base=$(find_python)
        rm -rf "$venv"
        if ! "$base" -m venv "$venv" >"$log" 2>&1; then
            cat "$log" >&2
            say "error: $base cannot make $venv (its output is above)"
            return 1
        fi
    fi
    rm -f "$stamp"
    if ! "$python" -m pip install --quiet --disable-pip-version-check \
        --editable "$root${extras:+[$extras]}" >"$log" 2>&1; then
        cat "$log" >&2
        say "error: pip could not install the project (its output is above); the next start tries again"
        return 1
    fi
    rm -f "$log"
    printf '%s\n' "$wanted" >"$stamp" # last, so that an interrupted installation is not taken for one
}
