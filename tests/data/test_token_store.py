"""Ids of many texts in one array."""

import mmap

import numpy as np
import pytest

from bahdanau_jax.data import token_store
from bahdanau_jax.data.token_store import EncodedTexts
from bahdanau_jax.errors import InputError


@pytest.mark.parametrize("limit", [2**28, 40])
def test_rows_are_the_same_in_memory_and_in_a_file(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(token_store, "IN_MEMORY", limit)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 99, n).astype(np.int32) for n in (3, 1, 30, 0, 7, 2)]
    ids = EncodedTexts.gather(iter(rows), tmp_path)
    in_a_file = isinstance(getattr(ids.values.base, "obj", None), mmap.mmap)
    assert in_a_file == (limit == 40) and not list(tmp_path.iterdir())
    for found, want in ((ids, rows), (ids.last(5), [x[-5:] for x in rows]), (ids[1:4], rows[1:4])):
        assert found.lengths.tolist() == [len(x) for x in want] and len(found) == len(want)
        for x, y in zip(found, want, strict=True):
            np.testing.assert_array_equal(x, y)


def test_no_room_for_the_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(token_store, "IN_MEMORY", 4)
    with pytest.raises(InputError, match="nowhere: no room for the texts' ids: No such file"):
        EncodedTexts.gather([np.arange(9)], tmp_path / "nowhere")
