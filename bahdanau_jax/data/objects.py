"""Reads records of JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bahdanau_jax.data.record_batches import ROWS, RecordBatch
from bahdanau_jax.data.sniff import Layout, open_lines
from bahdanau_jax.data.tables import Columns, asked_names, two_columns
from bahdanau_jax.errors import InputError

MISSING = object()
_scan: Any = getattr(json.JSONDecoder(), "scan_once")  # noqa: B009
_FIELDS_SHOWN = 12


def from_objects(path: Path, columns: Columns, layout: Layout) -> tuple[str, Iterator[RecordBatch]]:
    """Records of JSON; as `from_table`.

    Raises:
      InputError: the file is damaged; from the records: a record is not JSON or lacks a field. Names the line
        or row.
    """
    name = str(path)
    word = "line" if layout.format == "jsonl" else "row"
    listed = _json_list(path, layout) if layout.format == "json" else []

    def objects() -> Iterator[tuple[int, Any]]:
        if layout.format == "json":
            yield from enumerate(listed, start=1)
            return
        with open_lines(path, layout) as file:
            yield from json_lines(file, name)

    sample = [record for _, record in islice(objects(), 200)]
    if columns.label and not sample:
        raise InputError(f"{path} holds no records; expected some with the field {columns.text!r}")
    first = sample[0] if sample else {}
    names = list(first) if isinstance(first, dict) else []
    alike = [x for x in sample if isinstance(x, dict) and list(x) == names]
    columns = two_columns(columns, names, [[str(value) for value in x.values()] for x in alike])
    fields = [*asked_names(columns.text, names), columns.group, columns.id]

    def batches() -> Iterator[RecordBatch]:
        labelled, found = not columns.label, objects()
        while some := list(islice(found, ROWS)):
            numbers, records = zip(*some, strict=True)
            *texts, groups, ids = (_column(records, field) if field else None for field in fields)
            for field, values in zip(fields, (*texts, groups, ids), strict=True):
                if values is not None and MISSING in values:
                    row = values.index(MISSING)
                    raise InputError(
                        f"{name}: {word} {numbers[row]} has {describe_fields(records[row])}; expected a "
                        f"field {field!r}"
                    )
            labels = _column(records, columns.label) if columns.label else []
            labelled = labelled or any(label is not MISSING for label in labels)
            labels = [None if label is MISSING else label for label in labels] or None
            yield RecordBatch(np.array(numbers), texts, labels, groups, ids)
        if not labelled:
            raise InputError(
                f"{name} has no field {columns.label!r} in any record; the first has {describe_fields(first)}"
            )

    return columns.described(), batches()


def _column(records: Sequence[Any], path: str) -> list[Any]:
    """`find` in each record."""
    try:
        return [record[path] for record in records]
    except (KeyError, TypeError, IndexError):
        return [find(record, path) for record in records]


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

    if not isinstance(record, dict) or not record:
        return "no fields" if record == {} else "no object"
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
        text = line.strip(" \t\r\n")
        if not text.strip():
            continue
        value, end = None, -1
        with contextlib.suppress(StopIteration, ValueError, RecursionError):
            value, end = _scan(text, 0)  # takes a third of the time of `json.loads`
        if end != len(text):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{name}: line {number} is not JSON: {error}") from error
        yield number, value


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
