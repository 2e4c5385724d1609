"""A file is written whole, or the old one stays."""

import fcntl
import os

import pytest

from bahdanau_jax.atomic_write import write_bytes
from bahdanau_jax.errors import InputError


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for content in (b"one", b"", b"three"):
        write_bytes(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interruption_before_the_replacement_keeps_the_old_file(tmp_path, monkeypatch):
    write_bytes(tmp_path / "file", b"old")

    def fail(number):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="file cannot be written: No space left on device$"):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_macos_is_asked_to_flush_its_drive_where_it_can(tmp_path, monkeypatch):
    asked = []

    def flush(descriptor, command):
        asked.append(command)
        raise OSError(45, "Operation not supported")  # as on a network file system

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", flush)
    write_bytes(tmp_path / "file", b"new")
    assert asked == [51] and (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("place", ["missing/file", "file/file", "folder"])
def test_a_path_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"^{tmp_path / place} cannot be written: "):
        write_bytes(tmp_path / place, b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
