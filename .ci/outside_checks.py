"""The checks of `.ci/outside`. Each runs as `python -I outside_checks.py NAME ARGUMENTS`.

wheel WHEEL FILES      The wheel holds each of FILES, and the licence.
lowest PYPROJECT       Prints pip constraints: the lower bounds of the base dependencies and of `train`.
layers README          The public names and README's snippets run with the base dependencies.
train FOLDER           Ten training steps, prediction, report and export with `train`; FOLDER is new.
same EXPECTED FOUND    Two files of predictions, a JSON object a line, agree.
"""

import importlib
import importlib.util
import json
import pkgutil
import re
import sys
import tomllib
import zipfile
from pathlib import Path

TEXTS = ["A dull first hour, then pure joy.", "", "awful boring superb " * 50]


def check_wheel(wheel: str, files: str) -> None:
    """The wheel holds the files that git tracks."""
    found = set(zipfile.ZipFile(wheel).namelist())
    missing = set(Path(files).read_text().splitlines()) - found
    assert not missing, f"{wheel} lacks {sorted(missing)}"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in found), found
    assert not any(name.startswith(("tests/", "experiments/", "benchmarks/")) for name in found)


def print_lowest(pyproject: str) -> None:
    """`name>=1.2; marker` of pyproject.toml becomes `name==1.2; marker`."""
    project = tomllib.loads(Path(pyproject).read_text())["project"]
    for requirement in project["dependencies"] + project["optional-dependencies"]["train"]:
        name, lowest, marker = re.fullmatch(
            r"([\w-]+)(?:\[\w+\])?>=([\d.]+)(;.*)?", requirement
        ).groups()
        print(f"{name}=={lowest}{marker or ''}")


def use_layers(readme: str) -> None:
    """The base dependencies suffice for the layers, the models and README's snippets about them."""
    import bahdanau_jax as bj

    assert Path(bj.__file__).is_relative_to(sys.prefix), bj.__file__
    assert importlib.util.find_spec("grain") is None, "an extra is installed: nothing is tested"
    for name in bj.__all__:
        # These read run folders, which needs `train`.
        if name not in ("Prediction", "Predictor", "load_predictor"):
            getattr(bj, name)
    assert bj.lstm_implementation()[0] == "native", bj.lstm_implementation()
    blocks = re.findall(r"```python\n(.*?)```", Path(readme).read_text(), re.DOTALL)
    blocks = [block for block in blocks if "bj." in block and "Predictor" not in block]
    assert blocks, f"{readme} has no snippet with bj."
    names = {}
    for block in blocks:
        exec(compile(block, readme, "exec"), names)


def train(folder: str) -> None:
    """A run on made-up reviews, and what a user does with it."""
    import bahdanau_jax as bj
    from bahdanau_jax.interop.export import export_model
    from bahdanau_jax.runs.config import default_config
    from bahdanau_jax.training.train import train_and_evaluate

    for name in bj.__all__:
        getattr(bj, name)
    for module in pkgutil.walk_packages(bj.__path__, "bahdanau_jax."):
        importlib.import_module(module.name)
    config = default_config()
    config.data.source = "made_up"
    config.data.train_size, config.data.validation_size, config.data.test_size = 160, 20, 30
    config.vocab_size, config.max_length, config.bucket_lengths = 1_000, 64, (64,)
    config.model.embedding_features = config.model.hidden_features = 8
    config.model.ngrams, config.model.ngram_rows = 2, 2**10  # the linear model needs scikit-learn
    config.batch_size, config.epochs = 16, 1
    train_and_evaluate(config, folder)
    assert "</html>" in Path(folder, "report.html").read_text()

    predictor = bj.Predictor.load(folder)
    assert predictor.step == 10, predictor.step
    export_model(folder, f"{folder}.pyz")
    Path(f"{folder}.texts").write_text("".join(f"{text}\n" for text in TEXTS))
    with open(f"{folder}.expected", "w") as file:
        for prediction in predictor(TEXTS):
            probabilities = map(float, prediction.probabilities)
            named = dict(zip(predictor.label_names, probabilities, strict=True))
            file.write(json.dumps({"label": prediction.label, "probabilities": named}) + "\n")


def check_same(expected: str, found: str) -> None:
    """The same labels, and probabilities within 1e-5."""
    wanted, got = (
        [json.loads(line) for line in Path(name).read_text().splitlines()]
        for name in (expected, found)
    )
    assert len(got) == len(wanted) == len(TEXTS), got
    for want, have in zip(wanted, got, strict=True):
        assert have["label"] == want["label"], (want, have)
        for label, probability in want["probabilities"].items():
            assert abs(have["probabilities"][label] - probability) < 1e-5, (want, have)


if __name__ == "__main__":
    checks = {
        "wheel": check_wheel,
        "lowest": print_lowest,
        "layers": use_layers,
        "train": train,
        "same": check_same,
    }
    checks[sys.argv[1]](*sys.argv[2:])
