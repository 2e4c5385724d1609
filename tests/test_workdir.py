import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from bahdanau_jax import workdir as workdir_module
from bahdanau_jax.errors import InputError
from bahdanau_jax.predict import Predictor
from bahdanau_jax.workdir import flatten, open_workdir, read_json, validate_config, write_json
from experiments import imdb, imdb_tiny


def opened(workdir, config) -> Path:
    with open_workdir(workdir, config) as folder:
        return folder


def listing(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_new_folder_gets_the_config_and_the_same_run_opens_it_again(tmp_path):
    folder = tmp_path / "runs" / "a"
    assert opened(folder, imdb.get_config()) == folder
    before = listing(folder)
    assert list(before) == ["config.json"]
    assert read_json(folder / "config.json") == json.loads(json.dumps(imdb.get_config().to_dict()))
    opened(str(folder), imdb.get_config())
    assert listing(folder) == before


def test_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert opened("~/run", imdb.get_config()) == tmp_path / "run"


def test_a_run_of_another_config_is_refused_and_kept(tmp_path):
    config = imdb.get_config()
    opened(tmp_path, config)
    (tmp_path / "metrics.jsonl").touch()
    before = listing(tmp_path)
    config.batch_size = 128
    config.model.dropout = 0.25
    config.data.data_dir = "/data"
    with pytest.raises(InputError) as error:
        opened(tmp_path, config)
    message = one_line(error)
    assert str(tmp_path) in message
    assert "batch_size: 256 in the folder, 128 asked for" in message
    assert "model.dropout: 0.5 in the folder, 0.25 asked for" in message
    assert 'data.data_dir: null in the folder, "/data" asked for' in message
    assert "epochs" not in message
    assert listing(tmp_path) == before


def test_the_config_of_a_run_that_never_began_makes_way(tmp_path):
    config = imdb.get_config()
    config.data.data_dir = "/mistyped"
    opened(tmp_path, config)
    (tmp_path / "vocabulary.json").touch()
    config.data.data_dir = "/data"
    opened(tmp_path, config)
    assert read_json(tmp_path / "config.json")["data"]["data_dir"] == "/data"


def test_a_field_that_only_one_side_has_is_a_difference(tmp_path):
    config = imdb.get_config()
    config.optimizer.nesterov = True
    opened(tmp_path, config)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(InputError, match="optimizer.nesterov: true in the folder, nothing asked"):
        opened(tmp_path, imdb.get_config())


def test_a_folder_with_something_else_in_it_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = listing(tmp_path)
    with pytest.raises(InputError) as error:
        opened(tmp_path, imdb.get_config())
    assert "thesis.tex" in one_line(error)
    assert listing(tmp_path) == before


def test_hidden_files_do_not_count(tmp_path):
    (tmp_path / ".config.json.17.new").write_text('{"half": ')  # left by a kill while writing
    opened(tmp_path, imdb.get_config())
    opened(tmp_path, imdb.get_config())


def test_a_file_is_no_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    for folder in (file, file / "below"):
        with pytest.raises(InputError) as error:
            opened(folder, imdb.get_config())
        assert str(file) in one_line(error)
    assert file.read_text() == "text"


def test_a_folder_that_cannot_be_written_to(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        folder = Path("/proc/run")  # root may write anywhere but there
    with pytest.raises(InputError) as error:
        opened(folder, imdb.get_config())
    assert str(folder) in one_line(error)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"1" * 5_000, b"[" * 100_000, b'{"seed": 0'],
)
def test_a_damaged_config_is_refused_in_one_line_and_kept(tmp_path, damage):
    file = tmp_path / "config.json"
    file.write_bytes(damage)
    with pytest.raises(InputError) as error:
        opened(tmp_path, imdb.get_config())
    assert str(file) in one_line(error)
    assert file.read_bytes() == damage


@pytest.mark.parametrize(
    "field, value",
    [
        ("seed", -1),
        ("seed", 2**40),
        ("epochs", -1),
        ("epochs", 0),
        ("batch_size", 0),
        ("vocab_size", 4),
        ("max_length", 0),
        ("checkpoint.every_steps", 0),
        ("checkpoint.keep", 0),
        ("log_every_steps", 0),
        ("data.source", "csv"),
        ("data.name", ""),
        ("data.data_dir", ""),
        ("data.validation_size", -1),
        ("bucket_lengths", ()),
        ("bucket_lengths", (500, 250)),
        ("bucket_lengths", (250, 250, 500)),
        ("bucket_lengths", (0, 500)),
        ("bucket_lengths", (128, 256)),
        ("bucket_lengths", ("abc",)),
        ("bucket_lengths", (250.0, 500)),
        ("model.num_layers", 0),
        ("model.dropout", 1.0),
        ("model.dropout", -0.1),
        ("model.dropout", float("nan")),
        ("model.word_dropout", 1.0),
        ("model.pooling", ()),
        ("model.pooling", ("sum",)),
        ("model.members", 0),
        ("model.ngrams", -1),
        ("model.ngram_rows", 0),
        ("model.ngram_share", 1.5),
        ("model.dtype", "int8"),
        ("optimizer.learning_rate", 0.0),
        ("optimizer.learning_rate", float("inf")),
        ("optimizer.b1", 1.0),
        ("optimizer.eps", -1e-7),
        ("optimizer.name", "adan"),
    ],
)
def test_a_field_out_of_range_is_named_with_its_value_and_nothing_is_made(tmp_path, field, value):
    config = imdb.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError) as error:
        opened(tmp_path / "run", config)
    message = one_line(error)
    assert message.startswith(f"config.{field} is {value!r}; ")
    assert not (tmp_path / "run").exists()


def test_the_message_says_what_was_expected():
    config = imdb.get_config()
    config.epochs = -1
    with pytest.raises(InputError) as error:
        validate_config(config)
    assert str(error.value) == "config.epochs is -1; expected an integer of at least 1"


def test_an_unknown_optimizer_gets_the_nearest_names():
    config = imdb.get_config()
    config.optimizer.name = "adan"
    with pytest.raises(InputError, match="adam"):
        validate_config(config)


def test_a_config_of_ones_own_needs_every_field_and_no_other():
    for field in flatten(imdb.get_config()):
        config = imdb.get_config()
        group = config
        *groups, last = field.split(".")
        for name in groups:
            group = group[name]
        del group[last]
        if field.startswith("optimizer.") and last not in ("name", "learning_rate"):
            validate_config(config)  # these have defaults
            continue
        with pytest.raises(InputError, match=f"config.{field} is missing"):
            validate_config(config)
    config = imdb.get_config()
    config.model.droput = 0.1
    with pytest.raises(
        InputError, match="config.model.droput .* did you mean config.model.dropout"
    ):
        validate_config(config)


def test_what_json_cannot_hold_is_refused():
    config = imdb.get_config()
    config.optimizer.mask = print
    with pytest.raises(InputError, match="config.optimizer.mask is"):
        validate_config(config)


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3).map(tuple),
)


@given(st.sampled_from(sorted(flatten(imdb_tiny.get_config()))), anything)
def test_any_value_in_any_field_is_taken_or_refused_in_one_line(field, value):
    config = ConfigDict(imdb_tiny.get_config().to_dict(), type_safe=False)
    group = config
    *groups, last = field.split(".")
    for name in groups:
        group = group[name]
    group[last] = value
    try:
        validate_config(config)
    except InputError as error:
        assert str(error).startswith("config.")
        assert "\n" not in str(error)


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    write_json(file, {"accuracy": 0.5})
    assert read_json(file) == {"accuracy": 0.5}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workdir_module.os, "fsync", full)
    with pytest.raises(InputError, match="result.json cannot be written: No space left on device"):
        write_json(file, {"accuracy": 0.9})
    assert json.loads(file.read_text()) == {"accuracy": 0.5}
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(InputError, match="result.json cannot be read: No such file"):
        read_json(tmp_path / "result.json")


def test_what_is_not_finite_is_null_since_json_has_no_nan(tmp_path):
    splits = {"test": {"loss": float("nan"), "n": 10}, "all": [1.5, float("-inf")]}
    write_json(tmp_path / "result.json", splits)
    text = (tmp_path / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "test": {"loss": None, "n": 10},
        "all": [1.5, None],
    }


def test_a_number_that_is_too_large_is_told_the_largest():
    config = imdb.get_config()
    config.seed = 2**40
    with pytest.raises(InputError, match=r"expected an integer of at most 2147483647$"):
        validate_config(config)


def test_a_folder_in_use_is_refused_and_its_config_stays(tmp_path):
    with open_workdir(tmp_path, imdb.get_config()):
        before = listing(tmp_path)
        with pytest.raises(InputError, match="is in use by process"):
            opened(tmp_path, imdb_tiny.get_config())  # of a run that has not begun to train
        with open_workdir(tmp_path, imdb.get_config(), lock=False):
            pass  # another process of the same run
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda run, out: (run / "metrics.jsonl").symlink_to(out), "metrics.jsonl is a link to"),
        (lambda run, out: (run / "checkpoints").symlink_to(out.parent), "checkpoints is a link to"),
        (lambda run, out: (run / ".lock").symlink_to(out), ".lock is a link to"),
        (lambda run, out: (run / "a").symlink_to("../" * 30 + "etc/passwd"), "a is a link to"),
        (lambda run, out: os.mkfifo(run / "result.json"), "result.json is neither a file nor"),
        (lambda run, out: (run / "loop").symlink_to("loop"), "run folder"),
    ],
)
def test_a_folder_that_leads_out_of_itself_is_refused_and_nothing_is_written(
    tmp_path, make, expected
):
    run, outside = tmp_path / "run", tmp_path / "outside.txt"
    opened(run, imdb.get_config())
    (run / ".lock").unlink()
    outside.write_text("precious")
    make(run, outside)
    with pytest.raises(InputError, match=expected) as error:
        opened(run, imdb.get_config())
    one_line(error)
    assert outside.read_text() == "precious"
    with pytest.raises(InputError, match=expected):
        Predictor.load(run)


def test_links_inside_of_the_folder_and_to_it_are_fine(tmp_path):
    opened(tmp_path / "run", imdb.get_config())
    (tmp_path / "run" / "newest").symlink_to("config.json")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    opened(tmp_path / "link", imdb.get_config())


@pytest.mark.parametrize(
    "text, expected",
    [
        ('{"n": ' + "9" * 30 + "}", "at most 64 bits"),
        ('{"n": ' + "9" * 5000 + "}", "at most 64 bits"),
        ('{"n": 1e999}', "expected a finite one"),
        ('{"n": NaN}', "expected a finite one"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_numbers_and_depths_that_no_run_writes_are_refused(tmp_path, text, expected):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=expected) as error:
        read_json(tmp_path / "x.json")
    assert len(one_line(error)) < 400


def test_a_file_that_is_far_too_large_is_not_read(tmp_path):
    with open(tmp_path / "x.json", "wb") as file:
        file.truncate(10**12)  # a hole: takes no space
    with pytest.raises(InputError, match="1,000,000,000,000 bytes; expected at most"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "field, value",
    [("hidden_features", 2_000_000_000), ("embedding_features", 2**31 - 1), ("num_layers", 10**6)],
)
def test_a_model_that_fits_into_no_memory_is_refused(field, value):
    config = imdb.get_config()
    config.model[field] = value
    with pytest.raises(InputError, match="would take|at most 1000"):
        validate_config(config)


def test_only_the_linear_model_counts_in_texts_without_labels():
    config = imdb.get_config()
    config.unlabelled = True
    with pytest.raises(InputError) as error:
        validate_config(config)
    assert "config.unlabelled is True; expected False with config.model.ngrams 0" in one_line(error)
    config.model.ngrams = 2
    validate_config(config)
