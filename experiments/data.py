r"""A look at the data of a config, without training: how files are read, figures of each part, examples.

    python -m experiments.data --config=experiments/own_data.py --config.data.path=reviews.csv

Prints how the texts were read, what was changed or left out, for each part the number of texts and of copies,
their lengths and the share of words that are known, the classes, the scripts, warnings, and ten training
texts. `--config.<field>` overrides a field as for a run. Reads all parts, also the test part.

Exit codes: 0 done, 2 wrong flags or input, 66 data not found.
"""

import sys
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table

from bahdanau_jax.data.dataset import Dataset
from bahdanau_jax.data.load import read_dataset
from bahdanau_jax.data.look import PartLook, look, scripts_of, warnings_of
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.runs.console import make_console
from bahdanau_jax.runs.parse_config import parse_config
from experiments.command import command, parse_flags
from experiments.config_file import parse
from experiments.picture import printable

EXAMPLES = 10
CLASSES_SHOWN = 20
_LETTERS_SHOWN = 200


def parts_table(looks: dict[str, PartLook]) -> Table:
    """A row for each figure, a column for each part."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for part in looks:
        table.add_column(part, justify="right")

    def row(title: str, *cells: str) -> None:
        table.add_row(title, *cells)

    found = looks.values()
    row("texts", *(f"{len(x.lengths):,}" for x in found))
    row("copies of others", *(f"{x.copies:,}" for x in found))
    row("also in train", "", *(f"{x.in_train:,}" for x in list(found)[1:]))
    row("without a word", *(f"{(x.lengths == 0).sum():,}" for x in found))
    for title, share in {"words, median": 50, "words, 95%": 95, "words, longest": 100}.items():
        row(
            title,
            *(f"{np.percentile(x.lengths, share):,.0f}" if len(x.lengths) else "" for x in found),
        )
    row("words known", *("" if x.known is None else f"{x.known:.1%}" for x in found))
    return table


def classes_table(names: Sequence[str], looks: dict[str, PartLook]) -> Table:
    """The number of texts of each class in each part, largest class first."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class")
    for part in looks:
        table.add_column(part, justify="right")
    order = np.argsort(-looks["train"].counts, kind="stable")
    for i in order[:CLASSES_SHOWN]:
        cells = (
            f"{x.counts[i]:,} ({x.counts[i] / max(x.counts.sum(), 1):.1%})" for x in looks.values()
        )
        table.add_row(printable(str(names[int(i)])), *cells)
    if len(order) > CLASSES_SHOWN:
        rest = order[CLASSES_SHOWN:]
        table.add_row(f"{len(rest):,} more", *(f"{x.counts[rest].sum():,}" for x in looks.values()))
    return table


def examples_of(dataset: Dataset) -> list[str]:
    """Training texts from all over the part, with id and label, cut to a few lines."""
    train = dataset.train
    rows = np.unique(np.linspace(0, len(train) - 1, EXAMPLES).astype(int)) if len(train) else []
    chosen = train.take(rows)
    return [
        f"{name}  [{dataset.label_names[label]}]  "
        + printable(str(text[:_LETTERS_SHOWN]))
        + ("…" if len(text) > _LETTERS_SHOWN else "")
        for text, label, name in zip(chosen.texts, chosen.labels, chosen.ids, strict=True)
    ]


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    _, rest = parse_flags(argv, config=True)
    config = parse_config(parse(rest)[0])
    dataset = read_dataset(config.data.model_dump(), seed=config.seed)
    console = make_console()
    for line in dataset.notes:
        console.print(line, soft_wrap=True)
    vocabulary = Vocabulary.build(
        dataset.train.texts,
        size=config.vocab_size,
        tokenizer=config.tokenizer.name,
        options=config.tokenizer.options,
    )
    looks = look(dataset, vocabulary.encode)
    console.print(f"\n{dataset.name}; test: {dataset.test_description}")
    console.print(parts_table(looks))
    console.print(classes_table(dataset.label_names, looks))
    scripts = [
        f"{name.lower()} {share:.1%}" for name, share in scripts_of(dataset.train.texts).items()
    ]
    console.print(f"scripts: {', '.join(scripts[:5]) or 'no letters'}")
    for line in warnings_of(dataset, config.tokenizer.name):
        console.print(line, soft_wrap=True)
    console.print("\nexamples of train:")
    for line in examples_of(dataset):
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
