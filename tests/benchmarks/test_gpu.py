"""`benchmarks.gpu` on a CPU: its rows, its errors and its output."""

import json
import subprocess
import sys

import pytest


@pytest.mark.long
@pytest.mark.slow
def test_it_measures_a_row_and_says_what_fails(tmp_path):
    out = tmp_path / "gpu.json"
    flags = ["--batch_size=2", "--length=4", "--repeats=2", f"--out={out}"]
    only = "--only=ours scan,ours fused float32"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *flags, only], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert list(found) == ["ours fused float32", "ours scan tf32"]
    assert "'fused', which runs on cuda alone" in found["ours fused float32"]["failed"]
    scan = found["ours scan tf32"]
    for what in ("layer", "step", "of ten"):
        assert 0 < scan[what]["least"] <= scan[what]["median"] <= scan[what]["most"]
        assert scan[what]["median"] < scan[what]["first"]  # which compiles
    assert len(scan["errors"]) == 7
    assert all(0 < error < 1e-5 for error in scan["errors"].values())  # float32, no TF32 on a CPU
    assert "of_recurrent_kernel" in done.stdout and "of ten" in done.stdout
