"""Guesses how quotes are used in a file of rows."""

from __future__ import annotations

import re
from collections.abc import Iterable


def guess_quoting(pieces: Iterable[str], delimiter: str) -> tuple[str, str, int]:
    r"""How quotes are used.

    They enclose fields, unless all lines have the same number of delimiters although a quote in one of them
    opens and does not close: then they are characters like others. So they are in most .tsv files, where they
    enclose fields only if some field needs it.

    Args:
      pieces: the lines, any number of them in each piece.
      delimiter: what separates fields.

    Returns:
      "" for no quoting, "double" or "escape" for how a quoted field holds a quote; the delimiter, with quotes
      around it where each field has some and others inside; and the number of carriage returns inside lines.

    Example:
      >>> guess_quoting(['a\t"Be noble" - none of it\n'], "\t"), guess_quoting(['a,"b"\n'], ",")
      (('', '\t', 0), ('double', ',', 0))
      >>> guess_quoting([r'a,"so \"fine\""'], ","), guess_quoting(['"a","so "fine", he"\n'], ",")
      (('escape', ',', 0), ('', '","', 0))
    """
    d = re.escape(delimiter)
    fields = {"double": r'"[^"]*(?:""[^"]*)*"', "escape": r'"[^"\\]*(?:(?:\\.|"")[^"\\]*)*"'}
    fields = {kind: f'(?:{quoted}|[^"{d}][^{d}]*|)' for kind, quoted in fields.items()}
    closed = {kind: re.compile(f"{field}(?:{d}{field})*") for kind, field in fields.items()}
    broken = dict.fromkeys(closed, 0)  # lines with a quote that opens and does not close
    counts, enclosed = set[int](), set[int]()
    quotes = needed = False
    alike, stray = True, 0
    for piece in pieces:
        if "\r" in piece:
            piece = re.sub(r"\r+(?=\n|$)", "", piece)
            stray += piece.count("\r")
        quotes = quotes or '"' in piece
        # Once the lines differ, only an escaped quote can make one kind better than the other.
        if not alike and not ("\\" in piece and '\\"' in piece):
            continue
        lines = [line for line in piece.split("\n") if line]
        if alike:
            counts.update(line.count(delimiter) for line in lines)
            enclosed.update(
                line.count(f'"{delimiter}"') if line[0] == line[-1] == '"' else -1 for line in lines
            )
            alike = len(counts) < 2 or (len(enclosed) < 2 and min(enclosed) > 0)
        for line in lines:
            if '"' not in line:
                continue
            is_closed = bool(closed["double"].fullmatch(line))
            broken["double"] += not is_closed
            if '\\"' in line:
                broken["escape"] += not closed["escape"].fullmatch(line)
            else:
                broken["escape"] += not is_closed
            if delimiter == "\t" and is_closed and not needed:
                needed = any(
                    x.startswith('"') and (x[-1:] != '"' or '""' in x[1:-1])
                    for x in line.split("\t")
                )
    kind = min(broken, key=broken.__getitem__)
    if not quotes or len(delimiter) > 1:
        return "", delimiter, stray
    all_quoted = len(enclosed) == 1 and min(enclosed) > 0
    if broken[kind] and all_quoted:
        return "", f'"{delimiter}"', stray
    if len(counts) == 1 and (broken[kind] or (delimiter == "\t" and not needed and not all_quoted)):
        return "", delimiter, stray
    return kind, delimiter, stray
