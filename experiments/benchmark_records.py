"""What the benchmark measured: records, ratios per round, and benchmark.json."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

PLAIN, HUGE = "as it comes", "huge pages"  # settings; HUGE is GLIBC_TUNABLES=glibc.malloc.hugetlb=1


@dataclasses.dataclass(frozen=True)
class Record:
    """One contender's figures of one section, one for each round."""

    section: str
    contender: str
    setting: str  # of this contender
    peers_setting: str  # of the peers in the same rounds
    rounds: Sequence[float]
    unit: str
    size: int | None = None  # the length, batch or hidden size of a scaling section
    note: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def median(self) -> float:
        return median(self.rounds)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times ours is as fast (or as small) as a peer: a round each, and their median."""

    peer: str
    ours_setting: str
    peers_setting: str
    rounds: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.rounds)


def ratios(records: Sequence[Record], section: str, size: int | None = None) -> list[Ratio]:
    """Each peer's figure over ours, round by round: a machine's drift hits a round as a whole."""
    rows = [x for x in records if x.section == section and x.size == size]
    found = []
    for ours in rows:
        if ours.contender != "ours":
            continue
        for peer in rows:
            if peer.contender in ("ours", "matmul") or peer.peers_setting != ours.peers_setting:
                continue
            our_rounds = ours.rounds
            if len(peer.rounds) != len(our_rounds):  # measured once, outside the rounds
                our_rounds = [ours.median] * len(peer.rounds)
            quotients = [b / a for a, b in zip(our_rounds, peer.rounds, strict=True)]
            found.append(Ratio(peer.contender, ours.setting, ours.peers_setting, quotients))
    return found


def against_fastest(records: Sequence[Record], section: str) -> list[Ratio]:
    """For each pair of settings, the ratio to the peer that does best."""
    best: dict[tuple[str, str], Ratio] = {}
    for ratio in ratios(records, section):
        key = (ratio.ours_setting, ratio.peers_setting)
        if key not in best or ratio.median < best[key].median:
            best[key] = ratio
    return list(best.values())


def write_json(path: Path, about: dict[str, Any], records: Sequence[Record]) -> None:
    """Everything, each record whole in itself. The file is replaced at once."""
    common = {"machine": about["machine"], "date": about["date"], "commit": about["commit"]}
    content = about | {
        "records": [
            dataclasses.asdict(x)
            | {"median": x.median, "min": min(x.rounds), "max": max(x.rounds)}
            | common
            for x in records
        ],
        "ratios": [
            {"section": section, "size": size}
            | dataclasses.asdict(ratio)
            | {"median": ratio.median, "min": min(ratio.rounds), "max": max(ratio.rounds)}
            for section, size in dict.fromkeys((x.section, x.size) for x in records)
            if section != "roofline"
            for ratio in ratios(records, section, size)
        ],
    }
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
