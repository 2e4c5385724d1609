"""n-grams as Python tuples are the reference; then the linear model against scikit-learn's own path."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data.batches import eval_batches
from bahdanau_jax.models.fit_ngrams import CHOICES, fit_ngrams
from bahdanau_jax.models.nb_svm import Choice, logits_of
from bahdanau_jax.models.ngrams import (
    NO_KEY,
    Kind,
    NgramClassifier,
    distinct_rows,
    ngram_kinds,
    ngram_rows,
)

ROWS = 2**20  # few words: no two n-grams share a row
texts = st.lists(st.integers(0, 9), min_size=1, max_size=12)  # 0 is padding, anywhere


def tuples_at(ids, n, gap=0, ending=False):
    """The n-gram of real words that ends at each position, or None."""
    found, words, last = [], [], max(sum(i > 0 for i in ids) // 4, 40)
    begin = sum(i > 0 for i in ids) - last if ending else 0
    span = n + (gap > 0)
    for i in ids:
        words += [i] if i else []
        ngram = words[-span:]
        whole = i and len(words) >= span and len(words) - span >= begin
        if gap and whole:
            del ngram[-1 - gap]
        found.append(tuple(ngram) if whole else None)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ngram_kinds(3, gaps=True))
@given(texts, texts)
def test_a_row_stands_for_an_ngram_of_real_words(kind, first, second):
    length = 12
    batch = np.array([x + [0] * (length - len(x)) for x in (first, second)], np.int32)
    rows = np.asarray(ngram_rows(jnp.array(batch), kind=kind, rows=ROWS)).reshape(-1)
    ngrams = sum((tuples_at(row.tolist(), *kind) for row in batch), [])
    assert [row == -1 for row in rows] == [ngram is None for ngram in ngrams]
    assert rows.max() < ROWS
    pairs = {(row, ngram) for row, ngram in zip(rows, ngrams, strict=True)}
    assert len(pairs) == len({row for row, _ in pairs}) == len({ngram for _, ngram in pairs})


@pytest.mark.parametrize("words", [3, 39, 41, 100, 161, 300])
def test_the_ending_is_the_last_quarter_and_at_least_40_words(words):
    rng = np.random.default_rng(words)
    ids = np.zeros(400, np.int32)
    ids[np.sort(rng.choice(400, words, replace=False))] = rng.integers(1, 9, words)
    for kind in ngram_kinds(3, ending=True)[3:]:
        rows = np.asarray(ngram_rows(ids[None], kind=kind, rows=ROWS))[0]
        want = tuples_at(ids.tolist(), *kind)
        assert [row == -1 for row in rows] == [ngram is None for ngram in want]
        assert (rows >= 0).sum() == max(0, min(words, max(words // 4, 40)) - kind.n + 1)
        whole = np.asarray(ngram_rows(ids[None], kind=Kind(kind.n), rows=ROWS))[0]
        assert not set(rows) & set(whole) - {-1}  # they weigh as they do at the end


@pytest.mark.parametrize("more", [{}, {"gaps": True}, {"ending": True}])
@given(texts)
def test_each_ngram_counts_once(more, ids):
    padded = jnp.array([ids + [0] * (12 - len(ids))], jnp.int32)
    found = np.asarray(distinct_rows(padded, n=3, rows=ROWS, **more))[0]
    kinds = ngram_kinds(3, **more)
    want = {(kind, ngram) for kind in kinds for ngram in tuples_at(ids, *kind) if ngram}
    assert len(found[found >= 0]) == len(set(found[found >= 0])) == len(want)


def test_the_kinds_of_ngrams():
    plain = [Kind(1), Kind(2), Kind(3), Kind(4)]
    gaps = [Kind(2, 1), Kind(3, 1), Kind(3, 2)]
    ending = [Kind(1, 0, True), Kind(2, 0, True), Kind(3, 0, True)]
    assert ngram_kinds(4, gaps=True, ending=True) == plain + gaps + ending
    assert ngram_kinds(1, gaps=True) == [Kind(1)]
    assert ngram_kinds(2, ending=True) == plain[:2] + ending[:2]


def test_rows_are_used_evenly():
    ids = jnp.array(np.random.default_rng(0).integers(1, 30_000, (50, 400)), jnp.int32)
    rows = np.asarray(ngram_rows(ids, kind=Kind(2), rows=16))
    share = np.bincount(rows[rows >= 0], minlength=16) / (rows >= 0).sum()
    assert np.abs(share - 1 / 16).max() < 0.01


def test_the_mask_may_be_given():
    ids, mask = jnp.array([[5, 9, 7]]), jnp.array([[True, False, True]])
    rows = ngram_rows(ids, mask, kind=Kind(2), rows=ROWS)
    assert rows[0, 2] == ngram_rows(jnp.array([[5, 7]]), kind=Kind(2), rows=ROWS)[0, 1]
    assert rows[0, 1] == -1


def make_texts(classes, seed=0):
    """Words 10 * class to 10 * class + 9 tell the class, 100 to 109 nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 200).astype(np.int32)
    ids = []
    for label in labels:
        told = 1 + 10 * label + rng.integers(0, 10, 3)
        ids.append(rng.permutation(np.r_[told, rng.integers(100, 110, rng.integers(1, 9))]))
    return [x.astype(np.int32) for x in ids], labels


AS_IMDB = Choice(min_texts=3, c=1_000.0)


def put(model, found):
    fitted, _ = found
    for name, values in fitted._asdict().items():
        if values is not None:
            getattr(model, name)[...] = jnp.array(values)


def batches_of(ids, labels):
    return eval_batches(ids, labels, batch_size=64, bucket_lengths=[8, 16])


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
def test_what_is_fitted_tells_the_classes_apart(classes):
    ids, labels = make_texts(classes)
    outputs = 1 if classes == 2 else classes
    model = NgramClassifier(n=2, rows=ROWS, num_classes=classes)
    put(model, fit_ngrams(batches_of(ids, labels), n=2, rows=ROWS, outputs=outputs))
    assert not nnx.state(model, nnx.Param)  # nothing for the optimizer
    other, other_labels = make_texts(classes, seed=1)
    right = 0
    for batch in batches_of(other, other_labels):
        logits = np.asarray(model(jnp.array(batch.ids)))
        guess = logits[:, 0] > 0 if classes == 2 else logits.argmax(1)
        right += (guess == batch.labels)[batch.real].sum()
    assert right > 190


@pytest.mark.slow
@pytest.mark.parametrize("with_unlabelled", [False, True])
def test_it_is_what_scikit_learn_s_parts_make_of_the_same_words(with_unlabelled):
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    from experiments.baseline import log_count_ratio

    (ids, labels), (other, _) = make_texts(2), make_texts(2, seed=1)
    ids += [np.array([500], np.int32)]  # a text of which no n-gram is known
    labels = np.append(labels, labels[0])
    vectorizer = CountVectorizer(
        ngram_range=(1, 2), binary=True, min_df=3, tokenizer=str.split, token_pattern=None
    )
    texts = [[" ".join(map(str, x)) for x in several] for several in (ids, other)]
    occurs = csr_array(vectorizer.fit_transform(texts[0]))
    idf = np.log(len(ids) / occurs.sum(axis=0))
    ratio = log_count_ratio(occurs, labels, 1.0)
    ratio = np.sign(ratio) * np.sqrt(np.abs(ratio))

    def features(counts):
        return csr_array(normalize(csr_array(counts.multiply(idf**2)))).multiply(ratio)

    solver = LogisticRegression(C=1_000.0, solver="liblinear", dual=True, max_iter=1_000)
    solver.fit(csr_array(features(occurs)), labels)
    held_out = csr_array(vectorizer.transform(texts[1]))
    without = want = solver.decision_function(csr_array(features(held_out)))
    unlabelled = ()
    if with_unlabelled:  # the held-out texts themselves, which are counted by what was said of them
        unlabelled = batches_of(other, np.zeros(len(other), np.int32))
        p = occurs[labels == 1].sum(axis=0) + held_out.T @ (1 / (1 + np.exp(-without))) + 1
        q = occurs[labels == 0].sum(axis=0) + held_out.T @ (1 / (1 + np.exp(without))) + 1
        ratio = np.log(p / p.sum()) - np.log(q / q.sum())
        ratio = np.sign(ratio) * np.sqrt(np.abs(ratio))
        solver.fit(csr_array(features(occurs)), labels)
        want = solver.decision_function(csr_array(features(held_out)))
        assert np.abs(want - without).max() > 0.1

    model = NgramClassifier(n=2, rows=ROWS)
    options = dict(n=2, rows=ROWS, choices=[AS_IMDB])
    put(model, fit_ngrams(batches_of(ids, labels), unlabelled=unlabelled, **options))
    got = np.zeros_like(want)
    for batch in batches_of(other, np.zeros(len(other), np.int32)):
        got[batch.rows[batch.real]] = np.asarray(model(jnp.array(batch.ids)))[batch.real, 0]
    np.testing.assert_allclose(got, want, atol=0.01)  # the solver stops at a tolerance
    assert np.abs(want).mean() > 1


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3])
def test_the_choice_has_the_least_loss_on_the_third_held_out(classes):
    ids, labels = make_texts(classes)
    rng = np.random.default_rng(2)
    labels = np.where(rng.random(len(labels)) < 0.2, rng.integers(0, classes, len(labels)), labels)
    outputs = 1 if classes == 2 else classes
    options = dict(n=2, rows=ROWS, outputs=outputs)
    held = np.concatenate([np.flatnonzero(labels == k)[2::3] for k in range(classes)])
    inside = np.setdiff1d(np.arange(len(labels)), held)
    losses = []
    for choice in CHOICES:
        part = batches_of([ids[i] for i in inside], labels[inside])
        model = NgramClassifier(n=2, rows=ROWS, num_classes=classes)
        found = fit_ngrams(part, **options, choices=[choice])
        put(model, found)
        total = 0.0
        for batch in batches_of([ids[i] for i in held], labels[held]):
            logits = np.asarray(model(jnp.array(batch.ids)))[batch.real].astype(float)
            rows = [
                np.unique(x[x >= 0]) for x in np.asarray(distinct_rows(batch.ids, n=2, rows=ROWS))
            ]
            mine = logits_of(found[0], rows)[batch.real]
            np.testing.assert_allclose(mine, logits, atol=1e-4)
            targets = np.eye(classes)[batch.labels[batch.real]]
            targets = targets[:, 1:] if classes == 2 else targets
            p = 1 / (1 + np.exp(-logits))
            total -= (targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum()
        losses.append(total)
    fitted, choice = fit_ngrams(batches_of(ids, labels), **options)
    assert choice == CHOICES[int(np.argmin(losses))]
    again, _ = fit_ngrams(batches_of(ids, labels), **options, choices=[choice])
    np.testing.assert_array_equal(fitted.weights, again.weights)


def test_a_class_of_one_text_is_not_held_out():
    ids, labels = make_texts(2)
    ids, labels = [*ids, np.array([900], np.int32)], np.append(labels, 2).astype(np.int32)
    fitted, _ = fit_ngrams(batches_of(ids, labels), n=1, rows=ROWS, outputs=3)
    assert np.isfinite(fitted.weights).all()


@pytest.mark.parametrize("choices", [[AS_IMDB], CHOICES])
def test_where_no_ngram_is_in_enough_texts_it_is_fitted_all_the_same(choices):
    ids, labels = [np.array([k], np.int32) for k in range(5, 17)], np.array([0, 1] * 6, np.int32)
    fitted, choice = fit_ngrams(batches_of(ids, labels), n=2, rows=ROWS, choices=choices)
    assert all(np.isfinite(x).all() for x in fitted if x is not None)
    assert (fitted.weights != 0).any() == (choice.min_texts == 1)


@pytest.mark.slow
def test_a_text_of_unknown_ngrams_is_left_to_the_bias():
    model = NgramClassifier(n=2, rows=ROWS)
    put(model, fit_ngrams(batches_of(*make_texts(2)), n=2, rows=ROWS))
    model.bias[...] = jnp.array([0.25])
    assert model(jnp.array([[500, 501, 0], [0, 0, 0]])).tolist() == [[0.25], [0.25]]


@pytest.mark.slow
def test_the_length_of_a_text_does_not_matter_only_its_ngrams():
    """Said twice, or among unknown words, it is as it was: with words alone no other n-gram comes in."""
    model = NgramClassifier(n=1, rows=ROWS)
    put(model, fit_ngrams(batches_of(*make_texts(2)), n=1, rows=ROWS))
    logits = model(
        jnp.array([[1, 2, 101, 0, 0, 0], [1, 2, 101, 101, 2, 1], [1, 700, 2, 101, 701, 0]])
    )
    np.testing.assert_allclose(logits, np.full((3, 1), logits[0, 0]), rtol=1e-6)
    assert abs(logits[0, 0]) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"gaps": True, "ending": True}])
def test_with_keys_it_is_the_same_model_in_fewer_rows(more):
    ids, labels = make_texts(2)
    others, _ = make_texts(2, seed=1)
    options = dict(n=2, choices=[AS_IMDB], **more)
    logits = {}
    for keyed, rows in ((False, 2**25), (True, 20_000)):
        model = NgramClassifier(n=2, rows=rows, keyed=keyed, **more)
        unlabelled = batches_of(others, np.zeros(len(others), np.int32))
        found = fit_ngrams(
            batches_of(ids, labels), rows=rows, keyed=keyed, unlabelled=unlabelled, **options
        )
        put(model, found)
        batch = next(iter(batches_of(others, np.zeros(len(others), np.int32))))
        logits[keyed] = np.asarray(model(jnp.array(batch.ids)))
    np.testing.assert_allclose(logits[True], logits[False], atol=0.01)
    keys = np.asarray(model.keys[...])
    assert (np.diff(keys[: (keys < NO_KEY).sum()]) > 0).all() and keys[-1] == NO_KEY
    assert np.abs(logits[True]).mean() > 1


def test_the_rows_with_keys_are_those_of_the_most_frequent_ngrams():
    ids = [np.array([1, 2, 3]), np.array([1, 2]), np.array([1, 4])]
    model = NgramClassifier(n=1, rows=2, keyed=True)
    batches = batches_of(ids, np.array([0, 1, 0], np.int32))
    put(model, fit_ngrams(batches, n=1, rows=2, keyed=True, choices=[Choice(1, 1.0)]))
    rows = np.asarray(model.rows_of(jnp.array([[4, 1, 3, 2, 9, 1]])))
    known = np.asarray(model.rows_of(jnp.array([[1, 2]])))
    assert set(rows[rows >= 0]) == set(known[0]) == {0, 1}  # of the words 1 and 2
