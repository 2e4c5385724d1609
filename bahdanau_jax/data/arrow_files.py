"""Reads records of Parquet and Arrow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from bahdanau_jax.data.open_file import open_bytes
from bahdanau_jax.data.record_batches import Column, RecordBatch, plain
from bahdanau_jax.data.sniff import Layout
from bahdanau_jax.data.tables import Columns, positions, two_columns

_BYTES = 2**23  # of a batch, about
_ROWS = 2**16  # at most


def from_arrow(path: Path, columns: Columns, layout: Layout) -> tuple[str, Iterator[RecordBatch]]:
    """Records of Parquet and Arrow; as `from_table`.

    Raises:
      InputError: a column is missing.
      pyarrow.ArrowException: the file is damaged; from the records: a text is not UTF-8.
    """
    with open_bytes(path) as file:
        names, batches = _open(file, layout.format)
        few = (batch.slice(0, 200).to_pylist() for batch in batches)
        rows = islice((row for some in few for row in some), 200 if len(names) <= 2 else 0)
        columns = two_columns(columns, names, [[str(x) for x in row.values()] for row in rows])
    found = positions(columns, names, path)
    text, *others = [[names[i] for i in part] for part in found]

    def records() -> Iterator[RecordBatch]:
        row, asked = 1, [*text, *chain(*others)]
        with open_bytes(path) as file:
            for batch in _open(file, layout.format, asked)[1]:
                batch.validate(full=True)
                lines = np.arange(row, row := row + len(batch))
                texts = [plain(batch.column(name)) for name in text]
                labels, groups, ids = (plain(batch.column(x[0])) if x else None for x in others)
                if others[0]:
                    labels = _with_names(labels, batch.schema, others[0][0])
                yield RecordBatch(lines, texts, labels, groups, ids)

    columns = Columns(",".join(text), ",".join(others[0]))
    return columns.described(), records()


def _with_names(labels: Column, schema: pa.Schema, label: str) -> Column:
    """Labels by the names that Hugging Face's `datasets` keeps of class numbers; -1 is a missing one."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return labels
    if not pa.types.is_integer(labels.type):
        return labels
    numbers = labels.to_pylist()
    return [names[i] if i is not None and 0 <= i < len(names) else None for i in numbers]


def _open(
    file: IO[bytes], form: str, columns: list[str] | None = None
) -> tuple[list[str], Iterator[pa.RecordBatch]]:
    """The names of all columns, and the rows of some."""
    if form == "parquet":
        parquet = pyarrow.parquet.ParquetFile(file)
        about = parquet.metadata
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        rows = min(max(_BYTES * about.num_rows // max(size, 1), 1), _ROWS)
        return parquet.schema_arrow.names, parquet.iter_batches(rows, columns=columns)
    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(file)
        batches = map(reader.get_batch, range(reader.num_record_batches))
    else:
        reader = batches = pa.ipc.open_stream(file)
    names = reader.schema.names
    return names, (
        batch.slice(i, _ROWS).select(columns or names)
        for batch in batches
        for i in range(0, len(batch), _ROWS)
    )
