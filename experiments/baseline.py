"""What a network must beat: NB-SVM, a linear model of words and word pairs, on a run's very splits.

    python -m experiments.baseline [--config=experiments/imdb.py] [--workdir=runs/baseline] [--ngrams=2]

--config    The settings whose data is used, and whose seed; `--config.data.x` overrides as for a run.
--workdir   The folder for result.json and predictions.jsonl, as a run leaves them.
--ngrams    The longest sequence of words that is a feature of its own.

Wang and Manning 2012, "Baselines and Bigrams" (ACL P12-2018): whether an n-gram occurs in a review, times its
naive-Bayes log-count ratio, in a linear classifier, one for each class against the rest where there are more
than two. Where they have an SVM this has logistic regression, so that a review gets a probability. The
smoothing alpha and the inverse regularisation C are those with the best accuracy on validation; the model is
trained on the training part alone, and test is read once, at the end.

IMDB's test accuracy 0.9148 (25,000 reviews, 95% interval 0.9113 to 0.9182) with alpha 1 and C 1; validation
0.9260, train 1.0000, of 22,500 reviews. 1,315,794 parameters, 1.5 GB of memory at most. 45 s in all on two
cores of an Intel Xeon, alone on them; commit 7ecc667, 2026-11-24. Earlier commits gave the same figures in 42 s
and, at the lowest priority while other work had both cores, in 4 min 19 s: test was read three times, nothing
chosen in between. The paper's 0.9122, as github.com/mesnilgr/nbsvm quotes it,
is after training on all 25,000 reviews.

On the embedded reviews (`--config=experiments/imdb_embedded.py`): 0.8970 on the 5,000 held-out ones (95%
interval 0.8886 to 0.9052) with alpha 10 and C 0.1; validation 0.9044, 37 s.

Ends with 0 when done, 2 when something asked for is not right, 66 when the data is not found.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from bahdanau_jax import console as show
from bahdanau_jax import environment
from bahdanau_jax.errors import InputError
from bahdanau_jax.predictions import write_predictions
from bahdanau_jax.text import split_words
from bahdanau_jax.train import figures_of, figures_of_splits, read_dataset
from bahdanau_jax.workdir import claim_workdir, validate_config, write_json
from experiments import run
from experiments.command import command

ALPHAS = (0.1, 1.0, 10.0)
CS = (0.1, 1.0, 10.0)


def tokens(text: str) -> list[str]:
    """Lower-cased words and single marks; of the latter, "!" and "?" tell a review's mood.

    tokens("It's <br />GREAT!!")    # ["it's", "great", "!", "!"]
    """
    return split_words(text, marks=True)


def log_count_ratio(occurs: csr_array, labels: np.ndarray, alpha: float) -> np.ndarray:
    """How much likelier each feature is in positive reviews than in negative ones.

    Args:
      occurs: [reviews, features], 1 where a feature occurs in a review.
      labels: [reviews], 0 or 1.
      alpha: added to every count.

    Returns:
      float64 [features], log((p / |p|) / (q / |q|)) with p and q the counts of the two classes plus alpha.
    """
    p, q = (alpha + np.asarray(occurs[labels == label].sum(axis=0), np.float64) for label in (1, 0))
    return np.log(p / p.sum()) - np.log(q / q.sum())


class Model(NamedTuple):
    """One linear model against the rest: of class 1 where there are two, else of each class."""

    ratios: list[np.ndarray]  # float64 [features] each
    classifiers: list[LogisticRegression]

    def __call__(self, occurs: csr_array) -> np.ndarray:
        """Log-odds, float32 [reviews, 1 or classes], as a network has them."""
        found = [
            classifier.decision_function(_times(occurs, ratio))
            for ratio, classifier in zip(*self, strict=True)
        ]
        return np.stack(found, axis=1).astype(np.float32)


def fit(
    occurs: csr_array, labels: np.ndarray, classes: int, *, alpha: float, seed: int
) -> dict[float, Model]:
    """NB-SVM for each C.

    Args:
      occurs: [reviews, features].
      labels: [reviews].
      classes: how many there are.
      alpha: as of `log_count_ratio`.
      seed: of the solver's order.
    """
    models = {c: Model([], []) for c in CS}
    for label in range(classes) if classes > 2 else [1]:
        is_class = (labels == label).astype(np.int32)
        ratio = log_count_ratio(occurs, is_class, alpha)
        weighted = _times(occurs, ratio)
        for c, model in models.items():
            solver = LogisticRegression(
                C=c, solver="liblinear", dual=True, max_iter=1_000, random_state=seed
            )
            model.ratios.append(ratio)
            model.classifiers.append(solver.fit(weighted, is_class))
    return models


def train_and_evaluate(
    data: ConfigDict, workdir: Path, *, ngrams: int, seed: int
) -> dict[str, Any]:
    """Trains NB-SVM, evaluates it, and leaves result.json and predictions.jsonl in `workdir`.

    Args:
      data: the `data` section of a config.
      workdir: the folder; another run's is refused.
      ngrams: the longest n-gram.
      seed: of the solver's order, and of made-up reviews.

    Returns:
      the result, as written to `workdir/result.json`.

    Raises:
      InputError: for what a user can mend, in one line.
      DataNotFound: where the data set is neither prepared nor reachable.
    """
    settings = {"method": "nb-svm", "ngrams": ngrams, "seed": seed, "data": data.to_dict()}
    with claim_workdir(workdir, settings) as folder:
        return _measure(data, folder, ngrams, seed)


def _measure(data: ConfigDict, workdir: Path, ngrams: int, seed: int) -> dict[str, Any]:
    console = show.make_console()
    finished = show.show_finished(console, workdir)
    if finished is not None:
        return finished
    started = time.monotonic()
    dataset = read_dataset(data, seed)
    train, validation = dataset.train, dataset.validation
    classes = len(dataset.label_names)
    if len(np.unique(train.labels)) != classes:
        raise InputError(
            f"{dataset.name}: expected reviews of all {classes} classes in train, found "
            f"{len(np.unique(train.labels))} of {', '.join(dataset.label_names)}"
        )

    begun = time.monotonic()
    options: dict[str, Any] = dict(tokenizer=tokens, token_pattern=None, lowercase=False)
    options |= dict(ngram_range=(1, ngrams), binary=True, dtype=np.float32)
    vectorizer = CountVectorizer(**options)
    try:
        occurs = csr_array(vectorizer.fit_transform(train.texts))
    except ValueError as error:
        raise InputError(f"{dataset.name}: the reviews of train hold no words ({error})") from error
    held_out = csr_array(vectorizer.transform(validation.texts))
    features = len(vectorizer.vocabulary_)
    console.print(f"{len(train):,} reviews, {features:,} n-grams of up to {ngrams} words")

    tried, models = [], {}
    for alpha in ALPHAS:
        for c, model in fit(occurs, train.labels, classes, alpha=alpha, seed=seed).items():
            tried.append({"alpha": alpha, "C": c} | figures_of(model(held_out), validation))
            models[alpha, c] = model
            _print_choice(console, tried[-1])
    chosen = max(tried, key=lambda x: (x["accuracy"], -x["loss"]))
    model = models[chosen["alpha"], chosen["C"]]
    train_seconds = time.monotonic() - begun

    # The end: every split as the chosen model sees it, test among them for the first time.
    test = dataset.read_test()
    examples = {"train": train, "validation": validation, "test": test}
    found = {
        "train": occurs,
        "validation": held_out,
        "test": csr_array(vectorizer.transform(test.texts)),
    }
    logits = {split: model(found[split]) for split in examples}
    write_predictions(
        workdir / "predictions.jsonl",
        {split: (examples[split], logits[split]) for split in ("validation", "test")},
    )
    result = {
        "dataset": dataset.name,
        "label_names": list(dataset.label_names),
        "test_description": dataset.test_description,
        "splits": figures_of_splits(logits, examples),
        "method": "nb-svm",
        "ngrams": ngrams,
        "alpha": chosen["alpha"],
        "C": chosen["C"],
        "tried": tried,
        "seed": seed,
        "epochs": None,
        "steps": None,
        "wall_clock_seconds": time.monotonic() - started,
        "train_seconds": train_seconds,
        "parameters": (features + 1) * len(model.ratios),
        **environment.peak_memory(),
        **environment.provenance("scikit-learn"),
        "workdir": str(workdir),
    }
    write_json(workdir / "result.json", result)
    show.show_result(console, result)
    return result


def _times(occurs: csr_array, ratio: np.ndarray) -> csr_array:
    """Each column times its ratio, in float64, which the solver wants."""
    return csr_array((ratio[occurs.indices], occurs.indices, occurs.indptr), occurs.shape)


def _print_choice(console: Console, tried: dict[str, Any]) -> None:
    console.print("alpha {alpha:<4}  C {C:<4}  validation {accuracy:.4f}".format(**tried))


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked = flags.FlagValues()
    flags.DEFINE_string("workdir", str(run.ROOT / "runs" / "baseline"), "", flag_values=asked)
    flags.DEFINE_integer("ngrams", 2, "", lower_bound=1, flag_values=asked)
    asked.set_gnu_getopt(True)  # ours may stand behind the value of a --config FILE
    rest = asked(argv, known_only=True)
    run.refuse_other_flags(rest, ["workdir", "ngrams"])
    config, _ = run.parse(rest)
    if not asked.workdir:
        raise flags.Error("--workdir is empty; expected a folder")
    flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own and refuses unparsed ones
    validate_config(config)
    train_and_evaluate(config.data, Path(asked.workdir), ngrams=asked.ngrams, seed=config.seed)


if __name__ == "__main__":
    sys.exit(main())
