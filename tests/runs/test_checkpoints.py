"""A damaged checkpoint is never restored: what comes back is what was saved, then or one before."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data.batches import train_batches
from bahdanau_jax.errors import InputError
from bahdanau_jax.runs import fingerprints
from bahdanau_jax.runs.checkpoints import Checkpoints
from bahdanau_jax.runs.restore_model import restore_model

STEPS = (3, 7)
# Orbax raises an exception for what fails in TensorStore's threads, and the thread reports it again.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Model(nnx.Module):
    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


def make_state(seed):
    model = Model(seed)
    return nnx.state((model, nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)))


def make_batches():
    ids = [np.arange(1, 3, dtype=np.int32)] * 20
    return train_batches(
        ids, np.zeros(20), batch_size=2, bucket_lengths=[2], epochs=1, seed=0, threads=1
    )


def contents(state):
    leaves = jax.tree.leaves_with_path(state)
    return {str(path): (str(leaf.dtype), fingerprints.of_array(leaf)) for path, leaf in leaves}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run folder with the checkpoints of two steps; not to be changed."""
    workdir = tmp_path_factory.mktemp("saved")
    batches = make_batches()
    with Checkpoints(workdir, keep=2) as checkpoints:
        for step in range(1, max(STEPS) + 1):
            next(batches)
            if step in STEPS:
                checkpoints.save(step, make_state(step), batches, {"loss": [step / 3]})
    return workdir


def restore(workdir):
    """(step or None, notices); checks that what is restored is what was saved at that step."""
    state, batches = make_state(0), make_batches()
    with Checkpoints(workdir) as checkpoints:
        restored = checkpoints.restore_latest(state, batches)
        if restored is None:
            return None, checkpoints.notices
        step, state, measured = restored
        assert contents(state) == contents(make_state(step))
        assert measured == {"loss": [step / 3]}
        expected = make_batches()
        for _ in range(step):
            next(expected)
        np.testing.assert_array_equal(next(batches).rows, next(expected).rows)
        return step, checkpoints.notices


def copy(saved, to):
    shutil.copytree(saved, to)
    return to / "checkpoints"


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, at=0.4):
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 8
    path.write_bytes(data)


def delete(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def test_what_was_saved_is_restored(saved, tmp_path):
    copy(saved, tmp_path / "run")
    assert restore(tmp_path / "run") == (7, [])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, flip, delete, empty])
def test_any_damage_to_the_newest_leaves_it_whole_or_falls_back(saved, tmp_path, damage):
    """Each kind to every fourth file; together with the next test, every kind of file is met."""
    kinds = [truncate, flip, delete, empty]
    count = len(files(saved / "checkpoints" / "7"))
    for i in range(kinds.index(damage), count, len(kinds)):
        run = tmp_path / str(i)
        path = files(copy(saved, run) / "7")[i]
        damage(path)
        step, notices = restore(run)
        names = {path.name for path in (run / "checkpoints").iterdir()}
        if step == 7:  # a file of which nothing is restored
            assert notices == [] and names == {"3", "7"}, path
        else:
            assert step == 3 and names == {"3", "7.damaged"}, path
            [notice] = notices
            assert "\n" not in notice and f"{run}/checkpoints/7" in notice
            assert "kept as 7.damaged, going on from step 3" in notice


def test_a_flipped_bit_in_an_array_s_values_is_noticed(saved, tmp_path):
    """Neither Orbax nor TensorStore notices each of them."""
    folder = copy(saved, tmp_path / "run")
    for path in files(folder / "7" / "state"):
        if "d" in path.parts:
            for at in (0.2, 0.5, 0.8, 0.99):
                flip(path, at)
    assert restore(tmp_path / "run")[0] == 3


def test_a_random_key_that_comes_back_as_integers_is_noticed(saved, tmp_path):
    folder = copy(saved, tmp_path / "run")
    shutil.rmtree(folder / "7" / "state" / "array_metadatas")
    step, [notice] = restore(tmp_path / "run")
    assert step == 3 and "has dtype uint32" in notice


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda p: p | {"step": 8}, "progress is not what was saved"),
        (lambda p: p | {"measured": {"loss": [0.1]}}, "progress is not what was saved"),
        (lambda p: p | {"batches": {"next_index": 3}}, "progress is not what was saved"),
        (lambda p: {"sha256": fingerprints.of_json({})}, "'step'"),
        (lambda p: [1], "progress is not what was saved"),
        (lambda p: None, "progress is not what was saved"),
        (lambda p: p | {"step": 1e999}, "progress is not what was saved"),
    ],
)
def test_progress_that_was_changed_is_noticed(saved, tmp_path, damage, expected):
    folder = copy(saved, tmp_path / "run")
    file = folder / "7" / "progress" / "metadata"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    step, [notice] = restore(tmp_path / "run")
    assert step == 3 and expected in notice


def test_a_checkpoint_under_another_step_s_name_is_noticed(saved, tmp_path):
    folder = copy(saved, tmp_path / "run")
    (folder / "7").rename(folder / "9")
    step, [notice] = restore(tmp_path / "run")
    assert step == 3 and "it is the checkpoint of step 7" in notice


def test_a_half_written_checkpoint_and_an_empty_one_are_named_in_the_notices(saved, tmp_path):
    folder = copy(saved, tmp_path / "run")
    (folder / "9.orbax-checkpoint-tmp").mkdir()
    (folder / "8").mkdir()
    step, notices = restore(tmp_path / "run")
    assert step == 7 and len(notices) == 2
    assert "the checkpoint of step 9 was half-written" in notices[0]
    assert f"{folder}/8" in notices[1]
    assert {path.name for path in folder.iterdir()} == {"3", "7", "8.damaged"}


def test_if_every_checkpoint_is_damaged_nothing_is_changed_and_the_error_is_one_line(
    saved, tmp_path
):
    folder = copy(saved, tmp_path / "run")
    for path in (*files(folder / "3"), *files(folder / "7")):
        empty(path)
    with pytest.raises(InputError, match="expected one that is whole and fits the model") as error:
        restore(tmp_path / "run")
    message = str(error.value)
    assert "\n" not in message and "remove" not in message
    assert f"{folder}/7" in message and f"{folder}/3" in message
    assert {path.name for path in folder.iterdir()} == {"3", "7"}


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    assert restore(tmp_path) == (None, [])


def test_after_falling_back_the_same_step_is_saved_again_and_can_be_damaged_again(saved, tmp_path):
    folder = copy(saved, tmp_path / "run")
    for _ in range(2):
        flip(folder / "7" / "progress" / "metadata")
        state, batches = make_state(0), make_batches()
        with Checkpoints(tmp_path / "run") as checkpoints:
            assert (checkpoints.restore_latest(state, batches) or [None])[0] == 3
            for _ in range(4):
                next(batches)
            checkpoints.save(7, make_state(7), batches, {"loss": [7 / 3]})
        assert restore(tmp_path / "run") == (7, [])


@pytest.mark.parametrize("here", ["rbg", "unsafe_rbg"])
def test_a_resume_with_another_kind_of_random_keys_names_the_variable_and_loses_nothing(
    saved, tmp_path, here
):
    folder = copy(saved, tmp_path / "run")
    before = {path: path.read_bytes() for path in files(folder)}
    with jax.default_prng_impl(here), pytest.raises(InputError) as error:
        restore(tmp_path / "run")
    assert str(error.value) == (
        f"cannot resume from {folder}/7: its random keys are threefry2x32, those of this process "
        f"{here}; expected JAX_DEFAULT_PRNG_IMPL=threefry2x32, as the run began"
    )
    assert {path: path.read_bytes() for path in files(folder)} == before
    assert restore(tmp_path / "run") == (7, [])


def test_kinds_of_random_keys_that_are_stored_alike_are_not_confused(tmp_path):
    batches = make_batches()
    next(batches)
    with jax.default_prng_impl("rbg"), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), batches, {})
    with jax.default_prng_impl("unsafe_rbg"), Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(InputError, match="expected JAX_DEFAULT_PRNG_IMPL=rbg"):
            checkpoints.restore_latest(make_state(0), make_batches())


def test_a_model_is_read_with_the_random_keys_that_were_saved(saved):
    """A prediction draws no random numbers, so it works with any default."""
    with jax.default_prng_impl("rbg"):
        model = nnx.eval_shape(lambda: Model(0))
        assert restore_model(saved, model) == 7
    assert contents(nnx.state(model)) == contents(nnx.state(Model(7)))


def test_a_predictor_s_model_is_not_restored_from_a_damaged_checkpoint(saved, tmp_path):
    folder = copy(saved, tmp_path / "run")
    model = Model(0)
    assert restore_model(tmp_path / "run", model) == 7
    assert contents(nnx.state(model)) == contents(nnx.state(Model(7)))
    file = folder / "7" / "progress" / "metadata"
    progress = json.loads(file.read_text())
    name = next(name for name in progress["arrays"] if name.endswith("linear.kernel"))
    progress["arrays"][name] = fingerprints.of_array(np.zeros(3))
    progress["sha256"] = fingerprints.of_json({k: v for k, v in progress.items() if k != "sha256"})
    file.write_text(json.dumps(progress))
    with pytest.raises(InputError, match="linear.kernel is not what was saved"):
        restore_model(tmp_path / "run", Model(0))
    empty(file)
    with pytest.raises(InputError, match=f"cannot restore {folder}/7"):
        restore_model(tmp_path / "run", Model(0))


@given(st.integers(0, 11), st.integers(0, 31))
def test_every_bit_of_an_array_counts(i, bit):
    array = np.arange(12, dtype=np.uint32).reshape(3, 4)
    changed = array.copy()
    changed[i // 4, i % 4] ^= np.uint32(1 << bit)
    assert fingerprints.of_array(array) != fingerprints.of_array(changed)


def test_dtype_and_shape_count_and_the_kind_of_array_does_not():
    zeros = np.zeros((2, 3), np.float32)
    assert len({fingerprints.of_array(x) for x in (zeros, zeros.T, zeros.view(np.int32))}) == 3
    assert fingerprints.of_array(jnp.asarray(zeros)) == fingerprints.of_array(zeros)
    assert fingerprints.of_array(jnp.zeros((), jnp.bfloat16)) != fingerprints.of_array(
        jnp.zeros(())
    )
    assert fingerprints.of_array(jax.random.key(0)) != fingerprints.of_array(jax.random.key(1))
    assert fingerprints.of_array(zeros.T) == fingerprints.of_array(np.ascontiguousarray(zeros.T))


def test_the_best_is_kept_beside_the_latest(tmp_path):
    batches = make_batches()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5), (7, 5), (8, 5)):
            next(batches)
            checkpoints.save(step, make_state(step), batches, {}, best_step=best)
            checkpoints.wait()
            kept = {step, step - 1, best or step} - {0}
            assert set(checkpoints.steps()) == kept
    with Checkpoints(tmp_path, keep=2) as checkpoints:  # a restart does not know the best one yet
        next(batches)
        checkpoints.save(9, make_state(9), batches, {}, best_step=5)
        checkpoints.wait()
        assert checkpoints.steps() == [9, 8, 5]
