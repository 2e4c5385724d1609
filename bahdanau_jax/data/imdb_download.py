"""Downloads IMDB's reviews and prepares them as TFDS does, without TensorFlow.

    python -m bahdanau_jax.data.imdb_download --data_dir=~/tensorflow_datasets

makes `imdb_reviews/plain_text/1.0.0` there, in array_record format, with the same records in the same order
as TFDS. (TFDS imports TensorFlow to unpack the archive.)
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import io
import os
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import rich.console
import rich.progress

from bahdanau_jax.errors import DataNotFound, InputError

FULL_NAME = "imdb_reviews/plain_text:1.0.0"
URL = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
ARCHIVE_NAME = "aclImdb_v1.tar.gz"
ARCHIVE_BYTES = 84_125_825
ARCHIVE_SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"
TIMEOUT_SECONDS = 10.0


def archive_path(data_dir: Path) -> Path:
    """Returns the path at which `prepare` looks for the archive and to which it downloads it."""
    return data_dir / "downloads" / ARCHIVE_NAME


def prepare(
    data_dir: str | os.PathLike[str],
    *,
    archive: str | os.PathLike[str] | None = None,
    url: str | None = None,
    size: int = ARCHIVE_BYTES,
    sha256: str = ARCHIVE_SHA256,
) -> Path:
    """Prepares imdb_reviews in `data_dir` unless it is there.

    Args:
      data_dir: TFDS's data folder. It is made if it does not exist.
      archive: path of aclImdb_v1.tar.gz. None: `archive_path(data_dir)`, downloaded if it is not there.
      url: where to download from. None: `URL`.
      size, sha256: size in bytes and digest that the archive must have.

    Returns:
      the prepared folder.

    Raises:
      DataNotFound: the archive cannot be reached, or its download was interrupted.
      InputError: the archive is not the expected one, or `data_dir` cannot be written.

    Example::

        prepare("~/tensorflow_datasets")    # ~/tensorflow_datasets/imdb_reviews/plain_text/1.0.0
    """
    data_dir = Path(data_dir).expanduser().absolute()
    if data_dir.exists() and not data_dir.is_dir():
        raise InputError(f"{data_dir} is a file; expected the folder that holds TFDS's data sets")
    folder = data_dir / FULL_NAME.replace(":", "/")
    if folder.exists():
        return folder
    console = rich.console.Console(stderr=True)
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    # A log file gets one line per step, and no progress bar.
    with rich.progress.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        try:
            if archive is None:
                archive = archive_path(data_dir)
                if not archive.exists():
                    _say(console, f"downloading {url or URL} to {archive}")
                    _download(url or URL, archive, size, bar)
            archive = Path(archive).expanduser()
            _check(archive, size, sha256)
            _say(console, f"preparing imdb_reviews in {folder}")
            _write(archive, data_dir, bar)
        except OSError as error:
            raise InputError(f"{error.filename or data_dir}: {error.strerror or error}") from error
    return folder


def _say(console: rich.console.Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _download(url: str, path: Path, size: int, bar: rich.progress.Progress) -> None:
    """Downloads `url` to `path`, which appears only when all `size` bytes have arrived.

    Until then they are in a file ".partial" beside it, from which the next call resumes.
    """
    partial = path.with_name(f"{path.name}.partial")
    have = partial.stat().st_size if partial.exists() else 0
    if have > size:
        have = 0
    if have < size:
        request = urllib.request.Request(url)
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise DataNotFound(f"{url} cannot be reached ({reason})") from error
        with response:
            if response.status != 206:  # the server sends the whole file
                have = 0
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and have + int(length) != size:
                raise DataNotFound(
                    f"{url} is {have + int(length):,} bytes; expected {size:,} "
                    "(does a proxy answer in its place?)"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            task = bar.add_task("download", total=size, completed=have)
            with open(partial, "ab" if have else "wb") as file:
                while have <= size:
                    try:
                        block = response.read(2**18)
                    except (OSError, http.client.HTTPException):
                        block = b""
                    if not block:
                        break
                    file.write(block)
                    have += len(block)
                    bar.update(task, completed=have)
        if have != size:
            raise DataNotFound(
                f"the download of {url} ended at {have:,} bytes, expected {size:,}; run this "
                "again to resume"
            )
    os.replace(partial, path)


def _check(archive: Path, size: int, sha256: str) -> None:
    if archive.is_dir():
        raise InputError(f"{archive} is a folder; expected the file {ARCHIVE_NAME}")
    found = archive.stat().st_size
    if found != size:
        raise InputError(
            f"{archive}: {found:,} bytes; expected {size:,}. Remove it to download it again"
        )
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise InputError(
            f"{archive}: its SHA-256 is {digest}; expected {sha256}. Remove it to download it again"
        )


class _Archive:
    """Replaces TFDS's download manager, which imports TensorFlow to unpack."""

    def __init__(self, path: Path, bar: rich.progress.Progress):
        self.path, self.bar = path, bar
        self.downloaded_size = path.stat().st_size
        self.task = bar.add_task("prepare", total=3 * self.downloaded_size)

    def download(self, url: str) -> Path:
        del url
        return self.path

    def iter_archive(self, path: Path) -> Iterator[tuple[str, IO[bytes]]]:
        """Yields name and content of each file. TFDS calls this once for each split."""
        done = self.bar.tasks[self.task].completed
        tar: Any
        with open(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r:gz") as tar:
            for i, member in enumerate(tar):
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield member.name, file
                tar.members = []  # otherwise tarfile keeps 100,000 of them
                if i % 256 == 0:
                    self.bar.update(self.task, completed=done + raw.tell())
        self.bar.update(self.task, completed=done + self.downloaded_size)


def _write(archive: Path, data_dir: Path, bar: rich.progress.Progress) -> None:
    """Lets TFDS's own builder write the records to a folder that it renames when done."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder(FULL_NAME, data_dir=data_dir, file_format="array_record")
    reader = _Archive(archive, bar)
    builder._make_download_manager = lambda **_: reader
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    tfds.disable_progress_bar()
    try:
        # TFDS prints that it downloads, but nothing is downloaded here.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=config)
    finally:
        tfds.enable_progress_bar()


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code (2: bad input, 66: not reachable)."""
    parser = argparse.ArgumentParser(
        prog="python -m bahdanau_jax.data.imdb_download",
        description="Prepares imdb_reviews as a TFDS data folder, without TensorFlow.",
    )
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    parser.add_argument(
        "--data_dir", default=default, help="TFDS's data folder (default: %(default)s)"
    )
    parser.add_argument(
        "--archive", help=f"path of {ARCHIVE_NAME} if it is already on this machine"
    )
    flags = parser.parse_args(argv)
    try:
        print(prepare(flags.data_dir, archive=flags.archive))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 66 if isinstance(error, DataNotFound) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
