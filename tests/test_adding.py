"""docs/adding.md works as it is written: its files in a folder of their own, its commands in a shell."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from bahdanau_jax.runs.safe_files import read_json

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(
    not (ROOT / ".venv" / "bin" / "python").exists(), reason="needs ./launch.sh's .venv"
)
def test_the_page_runs_as_written(tmp_path):
    mine, here = tmp_path / "home" / "mine", tmp_path / "clone"
    mine.mkdir(parents=True)
    here.mkdir()
    for name in (
        "launch.sh",
        ".venv",
        "experiments",
    ):  # runs/ of the commands must not be the repository's
        (here / name).symlink_to(ROOT / name)
    for title, content in re.findall(r'```python title="(\w+\.py)"\n(.*?)```', PAGE, re.DOTALL):
        (mine / title).write_text(content)
    assert {path.name for path in mine.iterdir()} == {
        *("my_attention.py", "my_classifier.py", "my_config.py", "my_data.py")
    }
    commands = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL))
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # the compiled kernel
    environment = os.environ | {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": cache}
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=here, env=environment, capture_output=True, text=True, timeout=900
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    runs = here / "runs"
    assert (
        read_json(runs / "mine" / "config.json")["model"]["attention"]
        == "my_attention:DotAttention"
    )
    assert read_json(runs / "mine" / "result.json")["splits"]["test"]["accuracy"] > 0.9
    assert read_json(runs / "bag" / "result.json")["splits"]["test"]["accuracy"] > 0.9
    greetings = read_json(runs / "greetings" / "result.json")
    assert (
        greetings["label_names"] == ["greeting", "farewell"]
        and greetings["splits"]["test"]["n"] == 100
    )
    assert "superb" in done.stdout and "pos" in done.stdout
    assert (runs / "mine" / "report.html").stat().st_size > 10_000
