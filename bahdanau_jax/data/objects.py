"""Reads records of JSON, Parquet and Arrow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from bahdanau_jax.data.sniff import Layout, open_bytes, open_lines
from bahdanau_jax.data.tables import Columns, Record, asked_names, positions, two_columns
from bahdanau_jax.errors import InputError

MISSING = object()
_FIELDS_SHOWN = 12


def from_objects(path: Path, columns: Columns, layout: Layout) -> tuple[str, Iterator[Record]]:
    """Records of JSON, Parquet and Arrow; as `from_table`.

    Raises:
      InputError: the file is damaged, or a column is missing; the records: a record is not JSON or lacks a
        field. Names the line or row.
    """
    form, name = layout.format, str(path)
    word = "line" if form == "jsonl" else "row"

    listed = _json_list(path, layout) if form == "json" else []

    def objects() -> Iterator[tuple[int, Any]]:
        if form == "json":
            yield from enumerate(listed, start=1)
        elif form == "jsonl":
            with open_lines(path, layout) as file:
                yield from json_lines(file, name)
        else:
            with open_bytes(path) as file:
                rows = (row for batch in _batches(file, form) for row in batch.to_pylist())
                yield from enumerate(rows, start=1)

    sample = [record for _, record in islice(objects(), 200)]
    first = sample[0] if sample else {}
    names = list(first) if isinstance(first, dict) else []
    alike = [x for x in sample if isinstance(x, dict) and list(x) == names]
    columns = two_columns(columns, names, [[str(value) for value in x.values()] for x in alike])
    if form in ("parquet", "arrow"):  # numbers, and faults before all is read
        found = positions(columns, names, path)
        columns = Columns(*(",".join(names[i] for i in part) for part in found))
    text = asked_names(columns.text, names)

    def records() -> Iterator[Record]:
        labelled = False
        for number, record in objects():
            values = [find(record, field) for field in text]
            if MISSING in values:
                raise InputError(
                    f"{name}: {word} {number} has {describe_fields(record)}; expected a field "
                    f"{text[values.index(MISSING)]!r}"
                )
            label, group, key = (
                find(record, field) if field else None
                for field in (columns.label, columns.group, columns.id)
            )
            labelled = labelled or label is not MISSING
            if group is MISSING or key is MISSING:
                field = columns.group if group is MISSING else columns.id
                raise InputError(f"{name}: {word} {number} has no field {field!r}")
            yield number, values, None if label is MISSING else label, group, key
        if not labelled:
            raise InputError(
                f"{name} has no field {columns.label!r} in any record; the first has {describe_fields(first)}"
            )

    return f"text: {columns.text}, label: {columns.label}", records()


def _batches(file: Any, form: str) -> Iterator[pa.RecordBatch]:
    if form == "parquet":
        yield from pyarrow.parquet.ParquetFile(file).iter_batches(1_024)
        return
    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(file)
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from pa.ipc.open_stream(file)


def find(record: Any, path: str) -> Any:
    """The value at a dotted path, or a value that is nowhere else.

    Example:
      >>> find({"data": {"text": "fine"}, "labels": ["pos"]}, "data.text")
      'fine'
      >>> find({"a": [{"choice": "pos"}]}, "a.0.choice")
      'pos'
    """
    if isinstance(record, dict) and path in record:
        return record[path]
    for part in path.split("."):
        if isinstance(record, dict) and part in record:
            record = record[part]
        elif isinstance(record, list) and part.isdecimal() and int(part) < len(record):
            record = record[int(part)]
        else:
            return MISSING
    return record


def describe_fields(record: Any) -> str:
    """A record's fields by their dotted names, for messages."""

    def names(value: Any, prefix: str) -> Iterator[str]:
        if isinstance(value, dict) and value:
            for key, inside in value.items():
                yield from names(inside, f"{prefix}.{key}" if prefix else key)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from names(value[0], f"{prefix}.0")
        else:
            yield prefix

    if not isinstance(record, dict):
        return "no object"
    return f"fields {', '.join(list(names(record, ''))[:_FIELDS_SHOWN])}"


def _json_list(path: Path, layout: Layout) -> list[Any]:
    """The objects of a list, or of the one list in an object."""
    try:
        with open_lines(path, layout) as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else [content]
    return content if isinstance(content, list) else [content]


def json_lines(lines: Iterable[str], name: str) -> Iterator[tuple[int, Any]]:
    """Yields line and value of each line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}: line {number} is not JSON: {error}") from error


def as_text(value: Any, where: str, column: str) -> str:
    """Returns a record's value if it is a text.

    Raises:
      InputError: it is another value.
    """
    if not isinstance(value, str):
        raise InputError(f"{where} has {shown(value)} in {column!r}; expected a text")
    return value


def shown(value: Any) -> str:
    """A value as JSON writes it, for messages."""
    return json.dumps(value, default=str, ensure_ascii=False)[:40]
