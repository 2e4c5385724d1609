"""The archive is downloaded, checked and prepared as TFDS does it; an interrupted download resumes."""

import csv
import hashlib
import http.server
import io
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds
from small_imdb import REVIEWS, small_reviews, write_archive

from bahdanau_jax.data import imdb_download
from bahdanau_jax.errors import DataNotFound, InputError


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, and closes the connection after `limit` bytes."""

    content = b""
    limit: int | None = None
    ranges = True
    length = True
    status = 200

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/aclImdb_v1.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        start = start if self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else self.server.status)
        if self.server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.limit])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def expected(server, tmp_path):
    """Lets the server serve the small archive; returns its size and sha256."""
    expected = write_archive(tmp_path / "source.tar.gz", small_reviews())
    server.content = (tmp_path / "source.tar.gz").read_bytes()
    return expected


def test_address_size_and_digest_are_those_of_tfds():
    import tensorflow_datasets.datasets.imdb_reviews as stock

    with open(Path(stock.__path__[0]) / "checksums.tsv") as file:
        (row,) = csv.reader(file, delimiter="\t")
    assert row == [
        imdb_download.URL,
        str(imdb_download.ARCHIVE_BYTES),
        imdb_download.ARCHIVE_SHA256,
        imdb_download.ARCHIVE_NAME,
    ]


def test_tfds_reads_the_prepared_records_in_its_own_order(server, expected, tmp_path):
    folder = imdb_download.prepare(tmp_path / "data", url=server.url, **expected)
    assert folder == tmp_path / "data/imdb_reviews/plain_text/1.0.0"
    reviews = small_reviews()
    for split, pattern in (("train", "/train/"), ("test", "/test/"), ("unsupervised", "/unsup/")):
        source: Any = tfds.data_source("imdb_reviews", split=split, data_dir=tmp_path / "data")
        names = [
            name for name in reviews if pattern in name and ("unsup" in name) == ("unsup" in split)
        ]
        assert len(source) == len(names) == 2 * REVIEWS
        # Stock TFDS orders the records by the MD5 of split and name.
        names.sort(key=lambda name, split=split: hashlib.md5((split + name).encode()).digest())
        label = {"neg": 0, "pos": 1, "unsup": -1}
        assert [(record["text"], record["label"]) for record in source] == [
            (reviews[name].strip(), label[name.split("/")[2]]) for name in names
        ]

    # Once prepared, nothing is downloaded or prepared again.
    assert imdb_download.prepare(tmp_path / "data", url=server.url, **expected) == folder
    assert server.requests == [None]


def test_the_archive_may_be_anywhere_or_in_downloads(tmp_path):
    expected = write_archive(tmp_path / "mine.tar.gz", small_reviews())
    folder = imdb_download.prepare(tmp_path / "a", archive=tmp_path / "mine.tar.gz", **expected)
    assert (folder / "dataset_info.json").is_file()

    there = imdb_download.archive_path(tmp_path / "b")
    there.parent.mkdir(parents=True)
    (tmp_path / "mine.tar.gz").rename(there)
    folder = imdb_download.prepare(tmp_path / "b", url="http://127.0.0.1:9/none", **expected)
    assert (folder / "dataset_info.json").is_file()


def test_another_archive_is_refused(server, expected, tmp_path):
    expected["sha256"] = "0" * 64
    with pytest.raises(InputError, match="SHA-256 is .*; expected 0000"):
        imdb_download.prepare(tmp_path / "data", url=server.url, **expected)
    assert not (tmp_path / "data/imdb_reviews").exists()

    short = tmp_path / "short.tar.gz"
    short.write_bytes(server.content[:-7])
    with pytest.raises(InputError, match="short.tar.gz: .* bytes; expected"):
        imdb_download.prepare(tmp_path / "data", archive=short, **expected)
    with pytest.raises(InputError, match="nowhere.tar.gz: No such file"):
        imdb_download.prepare(tmp_path / "data", archive=tmp_path / "nowhere.tar.gz")


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_leaves_no_archive_and_is_resumed(
    server, expected, tmp_path, ranges
):
    server.limit = 500
    archive = imdb_download.archive_path(tmp_path)
    with pytest.raises(DataNotFound, match="ended at 500 bytes"):
        imdb_download.prepare(tmp_path, url=server.url, **expected)
    assert not archive.exists()
    assert not (tmp_path / "imdb_reviews").exists()

    server.limit, server.ranges = None, ranges
    imdb_download.prepare(tmp_path, url=server.url, **expected)
    assert server.requests == [None, "bytes=500-"]
    assert archive.read_bytes() == server.content
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_a_response_without_length_that_is_too_long_or_too_short_is_refused(
    server, expected, tmp_path
):
    server.length = False
    server.limit = 100
    with pytest.raises(DataNotFound, match="ended at 100 bytes"):
        imdb_download.prepare(tmp_path, url=server.url, **expected)
    server.limit, server.ranges = None, False
    server.content += b"more"
    with pytest.raises(DataNotFound, match="ended at"):
        imdb_download.prepare(tmp_path, url=server.url, **expected)
    assert not imdb_download.archive_path(tmp_path).exists()


def test_a_web_page_instead_of_the_archive_is_not_kept(server, tmp_path):
    server.content = b"<html>please log in</html>"
    with pytest.raises(DataNotFound, match="is 26 bytes; expected 84,125,825"):
        imdb_download.prepare(tmp_path / "data", url=server.url)
    server.status = 404
    with pytest.raises(DataNotFound, match="cannot be reached .*Not Found"):
        imdb_download.prepare(tmp_path / "data", url=server.url)
    assert not (tmp_path / "data").exists()


def test_an_unreachable_server_leaves_no_files(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # Bound but not listening: refuses.
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/aclImdb_v1.tar.gz"
        with pytest.raises(DataNotFound, match="cannot be reached .*refused"):
            imdb_download.prepare(tmp_path / "data", url=url)
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_is_named(server, expected, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file.*Not a directory"):
        imdb_download.prepare(tmp_path / "file/data", url=server.url, **expected)


def test_an_interrupted_preparation_leaves_no_folder(tmp_path, monkeypatch):
    expected = write_archive(tmp_path / "mine.tar.gz", small_reviews())

    def break_off(self, path):
        yield "aclImdb/train/neg/0_3.txt", io.BytesIO(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(imdb_download._Archive, "iter_archive", break_off)
        imdb_download.prepare(tmp_path / "data", archive=tmp_path / "mine.tar.gz", **expected)
    assert not list((tmp_path / "data").glob("imdb_reviews/plain_text/*"))
    folder = imdb_download.prepare(tmp_path / "data", archive=tmp_path / "mine.tar.gz", **expected)
    assert (folder / "dataset_info.json").is_file()


def test_the_command_prints_errors_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "no.tar.gz").write_bytes(b"no archive")
    flags = [f"--data_dir={tmp_path / 'data'}"]
    assert imdb_download.main([*flags, f"--archive={tmp_path / 'no.tar.gz'}"]) == 2
    # rich before 15 ends a hidden bar with an empty line
    assert capsys.readouterr().err.lstrip() == (
        f"error: {tmp_path}/no.tar.gz: 10 bytes; expected 84,125,825. "
        "Remove it to download it again\n"
    )
    monkeypatch.setattr(imdb_download, "URL", "http://127.0.0.1:9/none")
    assert imdb_download.main(flags) == 66
    assert "error: http://127.0.0.1:9/none cannot be reached" in capsys.readouterr().err


def test_a_folder_as_archive_and_a_file_as_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path} is a folder; expected the file aclImdb"):
        imdb_download.prepare(tmp_path / "data", archive=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; expected the folder"):
        imdb_download.prepare(tmp_path / "file")
