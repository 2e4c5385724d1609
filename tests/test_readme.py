"""The README's snippet for other code runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_snippet_for_other_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (snippet,) = [block for block in blocks if "bj.BahdanauAttention(" in block]
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    (linen,) = [block for block in blocks if "nnx.bridge" in block]
    used_by_linen = {name: names[name] for name in ("bj", "nnx", "inputs", "mask")}
    exec(compile(linen, "README.md", "exec"), used_by_linen)
    bridged = used_by_linen["weights"]
    assert bridged.shape == (4, 10) and (bridged[2, 3:] == 0).all() and (bridged[3] == 0).all()
    assert names["context"].shape == (4, 128) and names["weights"].shape == (1, 5)
    assert names["outputs"].shape == (4, 10, 128) and names["logits"].shape == (1, 1)
