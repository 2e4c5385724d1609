"""Data sets laid out as on the hub are read through the package datasets; nothing is downloaded."""

import pytest

from bahdanau_jax.data.hub import load_hub
from bahdanau_jax.data.load import load_dataset
from bahdanau_jax.errors import DataNotFound, InputError

datasets = pytest.importorskip("datasets")

# The metadata of stanfordnlp/imdb.
README = """---
dataset_info:
  config_name: plain_text
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
  - split: test
    path: plain_text/test-*
  - split: unsupervised
    path: plain_text/unsupervised-*
  default: true
---
"""


@pytest.fixture(scope="module")
def imdb(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub") / "imdb"
    (root / "plain_text").mkdir(parents=True)
    (root / "README.md").write_text(README)
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"])
    )
    for split, labels in {"train": (0, 1), "test": (0, 1), "unsupervised": (-1, -1)}.items():
        rows = {
            "text": [f"{split} {i}" for i in range(40)],
            "label": [labels[i // 20] for i in range(40)],
        }
        part = datasets.Dataset.from_dict(rows, features=features)
        part.to_parquet(root / "plain_text" / f"{split}-00000-of-00001.parquet")
    return root


def test_imdb(imdb, tmp_path):
    fields = dict(source="hub", name=str(imdb), data_dir=str(tmp_path), validation_size=4)
    said = []
    dataset = load_dataset(fields, seed=0, say=said.append)
    assert dataset.name == "imdb" and dataset.label_names == ("neg", "pos")
    assert (len(dataset.train), len(dataset.validation)) == (36, 4)
    test = dataset.read_test()
    assert list(test.texts) == [f"test {i}" for i in range(40)]
    assert test.labels.tolist() == [0] * 20 + [1] * 20
    assert test.ids[0] == "imdb/test:1"
    assert dataset.read_unlabelled() == [f"unsupervised {i}" for i in range(40)]
    assert dataset.test_description == "40 texts of imdb's test split"
    assert any("kept as unlabelled: 40" in line for line in said)


def test_a_set_with_hidden_test_labels_is_tested_on_validation(tmp_path):
    """GLUE hides the labels of test; its sentence is not called text."""
    for split, labels in {"train": (0, 1), "validation": (1, 0), "test": (-1, -1)}.items():
        rows = {
            "sentence": [f"{split} {i}" for i in range(20)],
            "label": [labels[i % 2] for i in range(20)],
        }
        (tmp_path / "sst2" / "data").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows).to_parquet(
            tmp_path / "sst2" / "data" / f"{split}-00000-of-00001.parquet"
        )
    dataset = load_hub(str(tmp_path / "sst2"), data_dir=str(tmp_path / "cache"))
    assert sorted(dataset.read_test().texts) == sorted(f"validation {i}" for i in range(20))
    assert (len(dataset.train), len(dataset.validation)) == (18, 2)
    with pytest.raises(InputError, match="no column 'body'; its columns are sentence, label"):
        load_hub(str(tmp_path / "sst2"), data_dir=str(tmp_path / "cache"), text="body")


def test_a_set_that_cannot_be_loaded_is_named_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataNotFound, match="datasets cannot load .*empty: ") as caught:
        load_hub(str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)
