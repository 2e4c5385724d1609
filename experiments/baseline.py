"""The baseline that a network must beat: NB-SVM on words and word pairs, on the splits of a run.

    python -m experiments.baseline [--config=experiments/imdb.py] [--workdir=runs/baseline] [--ngrams=2]

--config    Its data, seed and tokenizer are used; "words" becomes "marks", since "!" and "?" show a review's
            mood. `--config.data.x` overrides a field as for a run.
--workdir   The folder for result.json and predictions.jsonl, which are as a run writes them.
--ngrams    The longest n-gram.

Wang and Manning 2012, "Baselines and Bigrams" (ACL P12-2018): a feature says whether an n-gram occurs in a
review, times its naive-Bayes log-count ratio. Classes beyond two get a one-against-rest model each. Logistic
regression replaces their SVM, so that a review gets a probability. The smoothing alpha and the inverse
regularisation C have the best accuracy on validation. The model is trained on the training split alone, and
test is read once, at the end.

IMDB: test accuracy 0.9148 (25,000 reviews, 95% interval 0.9113 to 0.9182), validation 0.9260, train 1.0000
(22,500 reviews), with alpha 1 and C 1. 1,315,794 parameters, 1.5 GB of memory, 45 s on two cores of an Intel
Xeon. Commit 7ecc667, 2026-11-24. The paper has 0.9122 after training on all 25,000 reviews
(github.com/mesnilgr/nbsvm).

Embedded reviews (`--config=experiments/imdb_embedded.py`): 0.8970 on the 5,000 held-out ones (95% interval
0.8886 to 0.9052), validation 0.9044, with alpha 10 and C 0.1. 37 s.

Exit codes: 0 done, 2 wrong flags or input, 66 data not found.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from bahdanau_jax.data.find_tokenizer import check_tokenizer, learned_options, make_tokenizer
from bahdanau_jax.data.load import find_source, load_dataset
from bahdanau_jax.data.tokenizer import each_text
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.metrics import figures_of, figures_of_splits
from bahdanau_jax.runs import console as show
from bahdanau_jax.runs import environment
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.runs.predictions import write_predictions
from bahdanau_jax.runs.safe_files import write_json
from experiments.command import command, parse_flags
from experiments.config_file import ROOT, parse

ALPHAS = (0.1, 1.0, 10.0)
CS = (0.1, 1.0, 10.0)

MARKS: Mapping[str, Any] = {"name": "marks", "options": {}}

# For each output, the ratio of every feature, float64 [features], and the classifier of the scaled features.
Model = list[tuple[np.ndarray, LogisticRegression]]


def log_count_ratio(
    occurs: csr_array, labels: Int[np.ndarray, "reviews"], alpha: float
) -> Float[np.ndarray, "features"]:
    """How much likelier each feature is in reviews of class 1 than in the others.

    Args:
      occurs: [reviews, features], 1 where a feature occurs in a review.
      labels: 0 or 1.
      alpha: added to every count.

    Returns:
      float64, log((p / |p|) / (q / |q|)) with p and q the counts of the two classes plus alpha.
    """
    p, q = (alpha + np.asarray(occurs[labels == label].sum(axis=0), np.float64) for label in (1, 0))
    return np.log(p / p.sum()) - np.log(q / q.sum())


def fit(
    occurs: csr_array, labels: Int[np.ndarray, "reviews"], classes: int, *, alpha: float, seed: int
) -> dict[float, Model]:
    """Fits NB-SVM for each C.

    Args:
      occurs, alpha: see `log_count_ratio`.
      labels: class of each review.
      classes: number of classes.
      seed: of the solver's order.
    """
    models: dict[float, Model] = {c: [] for c in CS}
    for label in range(classes) if classes > 2 else [1]:
        is_class = (labels == label).astype(np.int32)
        ratio = log_count_ratio(occurs, is_class, alpha)
        scaled = _scale(occurs, ratio)
        for c, model in models.items():
            solver = LogisticRegression(
                C=c, solver="liblinear", dual=True, max_iter=1_000, random_state=seed
            )
            model.append((ratio, solver.fit(scaled, is_class)))
    return models


def log_odds(model: Model, occurs: csr_array) -> Float[np.ndarray, "reviews outputs"]:
    """Logits as a network's, float32: one output for two classes, otherwise one per class."""
    found = [solver.decision_function(_scale(occurs, ratio)) for ratio, solver in model]
    return np.stack(found, axis=1).astype(np.float32)


def _scale(occurs: csr_array, ratio: np.ndarray) -> csr_array:
    """Multiplies each column by its ratio, in float64 as the solver needs."""
    return csr_array((ratio[occurs.indices], occurs.indices, occurs.indptr), occurs.shape)


def train_and_evaluate(
    data: Mapping[str, Any],
    workdir: Path,
    *,
    ngrams: int,
    seed: int,
    tokenizer: Mapping[str, Any] = MARKS,
    vocab_size: int = 10_000,
) -> dict[str, Any]:
    """Trains and evaluates NB-SVM. Writes result.json and predictions.jsonl.

    Args:
      data: the `data` section of a config.
      workdir: the folder. One with other settings is refused.
      ngrams: the longest n-gram.
      seed: of the solver's order, and of made-up reviews.
      tokenizer: the `tokenizer` section of a config.
      vocab_size: bounds the subwords that a tokenizer learns.

    Returns:
      the result, as written to `workdir/result.json`.

    Raises:
      InputError: something that the user can fix, in one line.
      DataNotFound: the data set is neither prepared nor reachable.
    """
    find_source(data)  # before the folder is made
    check_tokenizer(**tokenizer)
    settings = {"method": "nb-svm", "ngrams": ngrams, "seed": seed, "data": dict(data)}
    if tokenizer != MARKS:
        settings["tokenizer"] = dict(tokenizer)
    with open_workdir(workdir, settings) as folder:
        console = show.make_console()
        finished = show.show_finished(console, folder)
        if finished is not None:
            return finished
        result = _measure(
            data, folder, console, tokenizer, ngrams=ngrams, seed=seed, vocab_size=vocab_size
        )
        write_json(folder / "result.json", result)
        show.show_result(console, result)
        return result


def _measure(
    data: Mapping[str, Any],
    workdir: Path,
    console: show.Console,
    tokenizer: Mapping[str, Any],
    *,
    ngrams: int,
    seed: int,
    vocab_size: int,
) -> dict[str, Any]:
    started = time.monotonic()
    dataset = load_dataset(data, seed=seed)
    train, validation = dataset.train, dataset.validation
    classes, found = len(dataset.label_names), len(np.unique(train.labels))
    if found != classes:
        raise InputError(
            f"{dataset.name}: expected reviews of all {classes} classes in train, found "
            f"{found} of {', '.join(dataset.label_names)}"
        )

    begun = time.monotonic()
    name, texts = tokenizer["name"], train.texts
    learned = learned_options(name, tokenizer["options"], texts, vocab_size)
    tokens = make_tokenizer(name, learned).tokens
    options: dict[str, Any] = dict(tokenizer=tokens, token_pattern=None, lowercase=False)
    options |= dict(ngram_range=(1, ngrams), binary=True, dtype=np.float32)
    vectorizer = CountVectorizer(**options)
    try:
        occurs = {"train": csr_array(vectorizer.fit_transform(each_text(texts)))}
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{dataset.name}: the reviews of train have no words ({error})") from error
    occurs["validation"] = csr_array(vectorizer.transform(validation.texts))
    features = len(vectorizer.vocabulary_)
    console.print(f"{len(train):,} reviews, {features:,} n-grams of up to {ngrams} words")

    tried, models = [], {}
    for alpha in ALPHAS:
        for c, model in fit(occurs["train"], train.labels, classes, alpha=alpha, seed=seed).items():
            figures = figures_of(log_odds(model, occurs["validation"]), validation)
            tried.append({"alpha": alpha, "C": c} | figures)
            models[alpha, c] = model
            console.print(f"alpha {alpha:<4}  C {c:<4}  validation {figures['accuracy']:.4f}")
    chosen = max(tried, key=lambda x: (x["accuracy"], -x["loss"]))
    model = models[chosen["alpha"], chosen["C"]]
    train_seconds = time.monotonic() - begun

    # Only now is test read.
    test = dataset.read_test()
    occurs["test"] = csr_array(vectorizer.transform(test.texts))
    examples = {"train": train, "validation": validation, "test": test}
    logits = {split: log_odds(model, occurs[split]) for split in examples}
    write_predictions(
        workdir / "predictions.jsonl",
        {split: (examples[split], logits[split]) for split in ("validation", "test")},
    )
    return {
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
        "parameters": (features + 1) * len(model),
        **environment.peak_memory(),
        **environment.provenance("scikit-learn"),
        "workdir": str(workdir),
    }


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, rest = parse_flags(argv, config=True, workdir=str(ROOT / "runs" / "baseline"), ngrams=2)
    config = parse_config(parse(rest)[0])
    tokenizer = config.tokenizer.model_dump()
    train_and_evaluate(
        config.data.model_dump(),
        Path(asked.workdir),
        ngrams=asked.ngrams,
        seed=config.seed,
        tokenizer=MARKS if tokenizer["name"] == "words" else tokenizer,
        vocab_size=config.vocab_size,
    )


if __name__ == "__main__":
    sys.exit(main())
