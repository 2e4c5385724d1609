"""A damaged or half-prepared TFDS folder is refused in one line."""

import json
import os
import shutil

import pytest
from small_imdb import REVIEWS, TEST, TRAIN, UNLABELLED, VERSION, prepare_small, small_reviews

from bahdanau_jax.data.tfds import load_tfds
from bahdanau_jax.errors import DataNotFound, InputError


def cut(name, size):
    return lambda folder: os.truncate(folder / name, size)


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def change_info(**changes):
    def change(folder):
        path = folder / "dataset_info.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (empty, "dataset_info.json is missing; half-prepared"),
        (remove("dataset_info.json"), "dataset_info.json is missing; half-prepared"),
        (remove("features.json"), "features.json is missing; half-prepared"),
        (remove(TRAIN), f"the record file {TRAIN} is missing"),
        (remove(TEST), f"the record file {TEST} is missing"),
        (cut("dataset_info.json", 700), "cannot read dataset_info.json .* half-prepared"),
        (cut("dataset_info.json", 0), "cannot read dataset_info.json .* half-prepared"),
        (cut("features.json", 99), "cannot read features.json .* half-prepared"),
        (cut(TRAIN, 70_000), f"{TRAIN} .70,000 bytes. is cut short or damaged"),
        (cut(TRAIN, 0), f"{TRAIN} .0 bytes. is cut short or damaged, expected 40 records"),
        (cut(TEST, 70_000), f"{TEST} .70,000 bytes. is cut short or damaged"),
        (write(TRAIN, "no records" * 10_000), f"{TRAIN} .100,000 bytes. is cut short or damaged"),
        (write("dataset_info.json", "[]"), "dataset_info.json is not a JSON object"),
        (write("dataset_info.json", "{}"), "prepared as None; expected array_record"),
        (change_info(fileFormat="tfrecord"), "prepared as tfrecord; expected array_record"),
        (change_info(splits=[]), "has no split train; it has none"),
        (change_info(splits="none"), "TFDS cannot open it"),
        (change_info(unknown=3), "TFDS cannot open it"),
        (
            change_info(splits=[{"name": "train", "shardLengths": ["40"]}]),
            "has no split test; it has train",
        ),
        (
            change_info(
                splits=[
                    {"name": "train", "shardLengths": ["41"]},
                    {"name": "test", "shardLengths": ["40"]},
                ]
            ),
            "holds 40 records, dataset_info.json says 41",
        ),
        (change_info(splits=[{"name": "train", "shardLengths": []}]), "train holds no records"),
    ],
)
def test_a_half_prepared_folder_is_refused_in_one_line(damaged, damage, complaint):
    damage(damaged / VERSION)
    with pytest.raises(InputError, match=complaint) as caught:
        load_tfds(data_dir=str(damaged), validation_size=8)
    assert not isinstance(caught.value, DataNotFound)
    assert str(damaged / VERSION) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_label_outside_the_classes_is_refused(damaged):
    # The unlabelled reviews have the label -1.
    shutil.copyfile(damaged / VERSION / UNLABELLED, damaged / VERSION / TRAIN)
    with pytest.raises(InputError, match=r"train/0 has the label -1; expected 0 to 1 .neg, pos."):
        load_tfds(data_dir=str(damaged), validation_size=8)


def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path):
    reviews = small_reviews()
    bad = list(reviews)[3 * REVIEWS]
    reviews[bad] = b"A caf\xe9 of a film"
    folder = prepare_small(tmp_path, reviews)
    with pytest.warns(UserWarning, match=r"1 of 40 reviews are not UTF-8 .the first is train/\d+"):
        dataset = load_tfds(data_dir=str(folder), validation_size=8)
    assert "A caf\ufffd of a film" in [*dataset.train.texts, *dataset.validation.texts]
