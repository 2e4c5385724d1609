"""Makes a run folder of the installed version, as a kill after step 4 of 8 leaves it, and its predictions.

Run from a checkout of that version, with its environment:

    .venv/bin/python <path of this file> 0.3 [--config.model.ngrams=2 ...]

makes `0.3` beside this file: `run` is the folder, and `predicted.jsonl` what that version predicts for TEXTS.
"""

import shutil
import subprocess
import sys
from pathlib import Path

TEXTS = [
    "A dull first hour, then pure joy.",
    "boring awful waste",
    "wonderful superb brilliant film " * 20,
]
FLAGS = """
--config=experiments/imdb_tiny.py
--config.data.train_size=60 --config.data.validation_size=10 --config.data.test_size=12
--config.vocab_size=60 --config.max_length=32 --config.bucket_lengths=(16,32)
--config.model.embedding_features=4 --config.model.hidden_features=4 --config.model.attention_units=4
--config.model.num_layers=1 --config.optimizer.learning_rate=0.1
--config.batch_size=16 --config.epochs=2 --config.checkpoint.every_steps=4 --config.checkpoint.keep=2
""".split()
NOT_KEPT = "report.html result.json tensorboard train.log .lock checkpoints/8".split()


def main(version: str, *overrides: str) -> None:
    folder = Path(__file__).parent / version
    run = folder / "run"
    command = [sys.executable, "-m", "experiments.run", *FLAGS, *overrides, f"--workdir={run}"]
    subprocess.run(command, check=True)
    for name in NOT_KEPT:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    predict = [
        sys.executable,
        "-m",
        "experiments.predict",
        f"--workdir={run}",
        "--output=jsonl",
        *TEXTS,
    ]
    (folder / "predicted.jsonl").write_bytes(subprocess.check_output(predict))


if __name__ == "__main__":
    main(*sys.argv[1:])
