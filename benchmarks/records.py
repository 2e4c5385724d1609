"""What the benchmark measured: records, ratios per round, and benchmark.json."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bahdanau_jax.runs.safe_files import write_json
from benchmarks.contenders import CONTENDERS, OURS, RATES

PLAIN, HUGE = "as it comes", "huge pages"  # settings


class Measured:
    """Something with one figure per round."""

    rounds: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.rounds)


@dataclasses.dataclass(frozen=True)
class Record(Measured):
    """One contender's figures in one section, one per round."""

    section: str
    contender: str
    setting: str  # of this contender
    peers_setting: str  # of the peers in the same rounds
    rounds: Sequence[float]
    unit: str
    size: int | None = None  # length, batch or hidden size of a layer section
    note: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Ratio(Measured):
    """A peer's figure divided by ours, one per round."""

    peer: str
    ours: str
    ours_setting: str
    peers_setting: str
    rounds: Sequence[float]


def ratios(records: Sequence[Record], section: str, size: int | None = None) -> list[Ratio]:
    """Each peer's figure over ours, round by round, since the machine drifts from round to round.

    Where ours was also measured with rounded products, that one is compared with the peers that round, and the
    other one with those that do not.
    """
    rows = [x for x in records if x.section == section and x.size == size]
    ours_rows = [x for x in rows if x.contender in OURS]
    both = len({x.contender for x in ours_rows}) == 2
    found = []
    for ours in ours_rows:
        for peer in rows:
            if (
                peer.contender in (*OURS, *RATES)
                or peer.peers_setting != ours.peers_setting
                or (both and _rounds(peer) != _rounds(ours))
            ):
                continue
            our_rounds = ours.rounds
            if len(peer.rounds) != len(our_rounds):  # measured once, outside the rounds
                our_rounds = [ours.median] * len(peer.rounds)
            quotients = [b / a for a, b in zip(our_rounds, peer.rounds, strict=True)]
            found.append(
                Ratio(peer.contender, ours.contender, ours.setting, ours.peers_setting, quotients)
            )
    return found


def _rounds(record: Record) -> bool:
    return CONTENDERS[record.contender].rounded


def against_fastest(records: Sequence[Record], section: str) -> list[Ratio]:
    """The ratio to the best peer, for each of ours and each pair of settings."""
    best: dict[tuple[str, str, str], Ratio] = {}
    for ratio in ratios(records, section):
        if CONTENDERS[ratio.peer].module == "ours":  # in bfloat16
            continue
        key = (ratio.ours, ratio.ours_setting, ratio.peers_setting)
        if key not in best or ratio.median < best[key].median:
            best[key] = ratio
    return list(best.values())


def write_records(path: Path, about: dict[str, Any], records: Sequence[Record]) -> None:
    """Writes benchmark.json. Each record repeats the machine, the date and the commit."""
    common = {name: about[name] for name in ("machine", "date", "commit")}
    found = [
        {"section": section, "size": size} | _with_summary(ratio)
        for section, size in dict.fromkeys((x.section, x.size) for x in records)
        if section not in ("roofline", "tile roofline", "difference")
        for ratio in ratios(records, section, size)
    ]
    every = [_with_summary(record) | common for record in records]
    write_json(path, about | {"records": every, "ratios": found})


def _with_summary(measured: Record | Ratio) -> dict[str, Any]:
    low, high = min(measured.rounds), max(measured.rounds)
    return dataclasses.asdict(measured) | {"median": measured.median, "min": low, "max": high}
