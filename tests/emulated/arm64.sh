#!/usr/bin/env bash
# Compares the CPU kernel with the scan on an emulated arm64 CPU. For Debian and Ubuntu on x86-64:
#   sudo apt-get install qemu-user mmdebstrap
#   tests/emulated/arm64.sh [FOLDER]
# FOLDER (about 1.5 GB) keeps an arm64 Debian and its Python packages for the next time.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/bahdanau_jax/arm64}
python=${PYTHON:-$repository/.venv/bin/python}
mkdir -p "$folder"

if [ ! -e "$folder/root/usr/bin/python3.11" ]; then # unpacked only: nothing arm64 runs yet
  mmdebstrap --variant=extract --architectures=arm64 \
    --include=python3,libpython3.11,libstdc++6,libgcc-s1,zlib1g,libffi8,libssl3 \
    bookworm "$folder/root"
fi
if [ ! -e "$folder/site/done" ]; then
  versions=$("$python" - <<'END'
from importlib.metadata import version
print(*[f"{name}=={version(name)}" for name in ("jax", "jaxlib", "flax", "numba", "numpy", "jaxtyping")])
END
  )
  # shellcheck disable=SC2086
  "$python" -m pip install --quiet --target "$folder/site" --upgrade --only-binary=:all: \
    --python-version 3.11 --implementation cp --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
    --platform manylinux2014_aarch64 $versions
  touch "$folder/site/done"
fi
cd "$repository"
PYTHONPATH=$repository:$folder/site XDG_CACHE_HOME=$folder/cache JAX_PLATFORMS=cpu \
  exec qemu-aarch64 -cpu max -L "$folder/root" "$folder/root/usr/bin/python3.11" \
  -m tests.emulated.agree
