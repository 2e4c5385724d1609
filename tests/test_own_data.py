"""One's own files: the texts and labels that are in them, whatever their form; faults named with their line."""

import csv
import json
import mmap
from functools import partial

import numpy as np
import pytest
from small_imdb import check_dataset

from bahdanau_jax import DataNotFound, InputError
from bahdanau_jax.encoded import EncodedTexts
from bahdanau_jax.own_data import load_files
from bahdanau_jax.sources import load_tfds

LABELS = ("fine & good", "dull", "mixed")
ROWS = [
    (f'Text {i}, "quoted"\nand Été\r\nof {LABELS[i % 3]}' if i % 7 == 0 else f"text {i}", LABELS[i % 3])
    for i in range(60)
]  # fmt: skip


def write(path, rows=ROWS, columns=("id", "label", "text")):
    if path.suffix == ".jsonl":
        lines = [json.dumps({columns[2]: text, columns[1]: label}) for text, label in rows]
        path.write_text("\n\n".join(lines), encoding="utf-8")
    else:
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(columns)
            for i, (text, label) in enumerate(rows):
                writer.writerow([i, label, text])
                file.write("\r\n" * (i % 5 == 0))  # blank lines are no records
    return path


def write_folder(path, rows=ROWS):
    for i, (text, label) in enumerate(rows):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{i}.txt").write_bytes(text.encode())
    (path / ".hidden").mkdir()
    (path / "README").write_text("no text")
    return path


def all_of(dataset):
    """(text, label) of every example."""
    splits = (dataset.train, dataset.validation, dataset.read_test())
    return [
        (text, dataset.label_names[label])
        for split in splits
        for text, label in zip(split.texts, split.labels, strict=True)
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.jsonl", "folder"])
def test_every_form_holds_the_same(tmp_path, name):
    path = tmp_path / name.lower()
    write(path) if "." in name else write_folder(path)
    dataset = load_files(str(path))
    test = check_dataset(dataset)
    assert dataset.label_names == tuple(sorted(LABELS))
    assert sorted(all_of(dataset)) == sorted(ROWS)
    assert (len(dataset.train), len(dataset.validation), len(test)) == (48, 6, 6)
    # What is held out depends on the texts alone.
    write(tmp_path / "other.csv", ROWS[::-1])
    other = load_files(str(tmp_path / "other.csv"))
    assert sorted(other.validation.texts) == sorted(dataset.validation.texts)
    assert sorted(other.read_test().texts) == sorted(test.texts)


def test_ids_name_lines_and_files(tmp_path):
    path = write(tmp_path / "a.csv")
    lines = path.read_bytes().split(b"\n")
    train = load_files(str(path)).train
    for name, text in zip(train.ids, train.texts, strict=True):
        line = int(name.removeprefix("a.csv:"))
        assert text.split("\n")[0].replace('"', '""').encode() in lines[line - 1]
    folder = write_folder(tmp_path / "folder")
    train = load_files(str(folder)).train
    for name, text in zip(train.ids, train.texts, strict=True):
        assert (tmp_path / name).read_bytes().decode() == text


def test_parts_of_their_own_and_integer_labels(tmp_path):
    rows = [(f"text {i}", i % 11 - 1) for i in range(33)]
    path = write(tmp_path / "train.jsonl", rows, ("id", "stars", "body"))
    (tmp_path / "t").mkdir()
    other = write(tmp_path / "t" / "train.csv", rows[:5], ("id", "stars", "body"))
    dataset = load_files(
        str(path), test_path=str(other), validation_size=4, text="body", label="stars"
    )
    test = check_dataset(dataset)
    assert dataset.label_names == tuple(map(str, range(-1, 10)))
    assert (len(dataset.train), len(dataset.validation), len(test)) == (29, 4, 5)
    assert test.labels.tolist() == [0, 1, 2, 3, 4]
    assert not set(test.ids) & set(dataset.train.ids)


def test_copies_of_one_text_stay_together(tmp_path):
    rows = [(f"text {i % 20}", "ab"[i % 2]) for i in range(60)]
    dataset = load_files(str(write(tmp_path / "a.csv", rows)), validation_size=7, test_size=8)
    splits = [set(x.texts) for x in (dataset.train, dataset.validation, dataset.read_test())]
    assert not splits[0] & splits[1] and not splits[0] & splits[2] and not splits[1] & splits[2]
    assert [len(x) for x in splits] == [16, 2, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,body,label\n1,a,b\n", "a.csv has no column 'text'; its columns are id, body, label"),
        ("text,label\nfine,x\n  ,y\n", "a.csv: line 3 has an empty text"),
        ("text,label\nfine,x\nfine,\n", "a.csv: line 3 has an empty label"),
        ('text,label\nfine,x\n\n"not closed,y\nmore,x\n', "a.csv: the record of line 4 is no"),
        ("text,label\nfine,x\ntwo\n", "a.csv: line 3 has 1 fields; expected 2"),
        (b"text,label\nfine,x\n\xe9t\xe9,y\n", r"a.csv: line 3 is not UTF-8 \(byte 0xe9\)"),
        ("text,label\nfine,x\ndull,x\n", r"'label' has 1 values \(x\); expected 2 to 1,000"),
        ("text,label\n", "a.csv holds no texts"),
        ("", "a.csv is empty; expected a header"),
        ("text,label\na,x\nb,y\n", "validation_size is 1; expected 1 to 0 of 1"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        load_files(str(path))
    assert "\n" not in str(error.value)


def test_other_faults(tmp_path):
    train = write(tmp_path / "a.csv")
    test = write(tmp_path / "b.csv", [*ROWS[:5], ("odd", "unheard of")])
    with pytest.raises(
        InputError,
        match=r"b.csv: line \d+ has the label 'unheard of', which the training part does not have; "
        "expected one of dull, fine & good, mixed",
    ):
        load_files(str(train), test_path=str(test))
    with pytest.raises(InputError, match="config.data.path is empty; expected a file or a folder"):
        load_files("")
    for name in ("a.jsonl", "no.csv", "none"):
        with pytest.raises((DataNotFound, InputError), match="No such file|ends with"):
            load_files(str(tmp_path / name))
    (tmp_path / "c.jsonl").write_text('{"text": "a", "label": 1.5}')
    with pytest.raises(InputError, match="line 1 has 1.5 in 'label'; expected a text or an int"):
        load_files(str(tmp_path / "c.jsonl"))
    (tmp_path / "c.jsonl").write_text('\n{"text": 3, "label": 1}')
    with pytest.raises(InputError, match="line 2 has 3 in 'text'; expected a text"):
        load_files(str(tmp_path / "c.jsonl"))
    with pytest.raises(InputError, match="a.txt has no labels; expected .csv, .tsv"):
        (tmp_path / "a.txt").write_text("text")
        load_files(str(tmp_path / "a.txt"))
    folder = write_folder(tmp_path / "folder")
    (folder / "dull" / "a.txt").write_bytes(b"one\ntwo \xff")
    with pytest.raises(InputError, match="dull/a.txt: line 2 is not UTF-8"):
        load_files(str(folder))
    (folder / "dull" / "a.txt").write_bytes(b" \n")
    with pytest.raises(InputError, match="dull/a.txt: line 1 has an empty text"):
        load_files(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no folders; expected one for each class"):
        load_files(str(tmp_path / "empty"))


def test_a_file_that_changes_meanwhile_is_told(tmp_path):
    path = write(tmp_path / "a.jsonl")
    dataset = load_files(str(path))
    path.write_text("short")
    with pytest.raises(InputError, match="a.jsonl: line 1 is not what it was at first"):
        list(dataset.train.take([0]).texts)


@pytest.mark.parametrize("limit", [2**28, 40])
def test_ids_in_memory_and_in_a_file(tmp_path, monkeypatch, limit):
    from bahdanau_jax import encoded

    monkeypatch.setattr(encoded, "IN_MEMORY", limit)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 99, n).astype(np.int32) for n in (3, 1, 30, 0, 7, 2)]
    ids = EncodedTexts.gather(iter(rows), tmp_path)
    in_a_file = isinstance(getattr(ids.values.base, "obj", None), mmap.mmap)
    assert in_a_file == (limit == 40) and not list(tmp_path.iterdir())
    for found, want in ((ids, rows), (ids.last(5), [x[-5:] for x in rows]), (ids[1:4], rows[1:4])):
        assert found.lengths.tolist() == [len(x) for x in want] and len(found) == len(want)
        for x, y in zip(found, want, strict=True):
            np.testing.assert_array_equal(x, y)


def prepare(folder, name, splits):
    """Has TFDS prepare (sentence, kind) of each split, of four kinds."""
    import tensorflow_datasets as tfds

    class Topics(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            classes = tfds.features.ClassLabel(names=["a", "b", "c", "d"])
            features = {"sentence": tfds.features.Text(), "kind": classes, "idx": np.int32}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            for i, (sentence, kind) in enumerate(rows):
                yield i, {"sentence": sentence, "kind": kind, "idx": i}

    Topics.name = name
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    Topics(data_dir=folder, file_format="array_record").download_and_prepare(download_config=config)


def test_other_sets_of_tfds(tmp_path):
    def rows(split, n, label=None):
        return [(f"{split} {i}", i % 4 if label is None else label) for i in range(n)]

    names = dict(data_dir=str(tmp_path), text="sentence", label="kind")
    prepare(tmp_path, "news", {"train": rows("train", 40), "test": rows("test", 6)})
    dataset = load_tfds("news", validation_size=0, **names)
    test = check_dataset(dataset)
    assert dataset.label_names == ("a", "b", "c", "d") and dataset.name == "news"
    assert (len(dataset.train), len(dataset.validation), len(test)) == (36, 4, 6)
    assert dataset.test_description == "news test split"

    # As GLUE: a test split without labels.
    glue = {"train": rows("train", 40), "validation": rows("own", 6), "test": rows("test", 5, -1)}
    prepare(tmp_path, "glue", glue)
    dataset = load_tfds("glue", validation_size=0, **names)
    assert sorted(check_dataset(dataset).texts) == [text for text, _ in glue["validation"]]
    assert dataset.test_description == "glue validation split"
    assert (len(dataset.train), len(dataset.validation)) == (36, 4)

    prepare(tmp_path, "all", {**glue, "test": rows("test", 5)})
    dataset = load_tfds("all", validation_size=0, **names)
    assert sorted(check_dataset(dataset).texts) == [f"test {i}" for i in range(5)]
    assert [text.split()[0] for text in dataset.validation.texts] == ["own"] * 6
    assert len(load_tfds("all", validation_size=3, **names).train) == 37

    prepare(tmp_path, "one", {"train": rows("train", 40)})
    dataset = load_tfds("one", validation_size=0, test_size=10, **names)
    assert len(check_dataset(dataset)) == 10
    assert (len(dataset.train), len(dataset.validation)) == (27, 3)
    assert dataset.test_description == "10 texts held out of one's train split"
    with pytest.raises(InputError, match=r"expected the features text \(Text\) and kind"):
        load_tfds("one", data_dir=str(tmp_path), validation_size=0, label="kind")


def test_class_weights_weigh_the_gradient():
    """A step with weights is the step on losses weighted by hand; what is reported is not weighted."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from bahdanau_jax import AttentionClassifier
    from bahdanau_jax.batches import Batch
    from bahdanau_jax.objective import class_weights, per_example_loss
    from bahdanau_jax.steps import train_step

    assert class_weights(np.array([6, 3, 0, 3])) == pytest.approx((2 / 3, 4 / 3, 0, 4 / 3))
    sizes = dict(
        embedding_features=3, hidden_features=2, num_layers=1, head_features=4, dropout=0.0
    )
    model = AttentionClassifier(
        9, 3, **sizes, head_dropout=0.0, implementation="scan", rngs=nnx.Rngs(0)
    )
    rng = np.random.default_rng(0)
    labels, real = np.array([0, 1, 2, 2], np.int32), np.array([1, 1, 1, 0], bool)
    ids = rng.integers(1, 9, (4, 5)).astype(np.int32)
    weights = np.array([0.5, 2.0, 3.0])

    def loss(model):
        losses = per_example_loss(model(jnp.array(ids))[0], labels) * weights[labels]
        return losses[:3].sum() / 3

    want = nnx.jit(nnx.grad(loss))(model)
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
    graphdef, state = nnx.split((model, optimizer))
    batch = Batch(ids, labels, real, np.arange(4, dtype=np.int32))
    for parts in (1, 2):
        step = partial(train_step, graphdef, microbatches=parts, class_weights=tuple(weights))
        after, report = jax.jit(step)(state, batch)
        stepped = nnx.state(nnx.merge(graphdef, after)[0], nnx.Param)
        for x, y, g in zip(
            *map(jax.tree.leaves, (nnx.state(model, nnx.Param), stepped, want)), strict=True
        ):
            np.testing.assert_allclose(x - y, g, atol=1e-6)
        plain = per_example_loss(model(jnp.array(ids))[0], labels)[:3].sum()
        assert float(report.metrics.loss_sum) == pytest.approx(float(plain), rel=1e-5)


def test_a_run_of_three_classes(tmp_path):
    """From a file to a prediction: names as they are in the file, weights in the loss, a baseline."""
    from bahdanau_jax import Predictor, calibration, train
    from experiments import baseline, imdb_tiny, own_data

    words = {"red <b>": "fire lava", "green": "leaf moss", "sea, blue": "sea ice"}
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        label = list(words)[int(rng.choice(3, p=[0.6, 0.3, 0.1]))]
        rows.append((f"the {' '.join(rng.permutation(words[label].split()))} of {i}", label))
    path = write(tmp_path / "colours.tsv", rows, ("id", "colour", "body"))
    config = imdb_tiny.get_config()
    config.data = own_data.get_config().data
    config.data.path, config.data.text, config.data.label = str(path), "body", "colour"
    config.class_weights, config.epochs, config.max_length = True, 2, 16
    config.bucket_lengths, config.batch_size = (16,), 32
    config.model.embedding_features = config.model.hidden_features = 4
    config.model.num_layers = 1
    config.optimizer.learning_rate = 0.05
    result = train.train_and_evaluate(config, tmp_path / "run")
    names = sorted(words)
    assert result["label_names"] == names and result["splits"]["test"]["n"] == 12
    log = (tmp_path / "run" / "train.log").read_text()
    assert "classes       red <b> " in log and "(times 0." in log and "warning" not in log
    assert 0.05 <= calibration.calibrate(tmp_path / "run")["temperature"] <= 20
    (prediction,) = Predictor.load(tmp_path / "run")(["fire of lava"])
    assert prediction.label in names and prediction.probabilities.shape == (3,)
    found = baseline.train_and_evaluate(config.data, tmp_path / "baseline", ngrams=1, seed=0)
    assert found["splits"]["test"]["accuracy"] == 1 and found["label_names"] == names
