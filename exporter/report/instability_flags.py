"""Group the signs of an unstable run for readers: what several launches share appears once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

OF_A_LAUNCH = re.compile(r"(?P<name>[\w-]+): launch (?P<launch>\d+)(?P<words>\D.*)")
REASON_OF_A_LAUNCH = re.compile(r"Launch (?P<launch>\d+): (?P<words>.*)")
NUMBER = re.compile(r"(?<![\w.,])[+-]?\d+(?:\.\d+)?(?![\w.])")
"""A number that is not part of a word: p90 is not 90."""
CORES = re.compile(r"cores [\d, -]+")
PLURALS = {" has ": " have ", " was ": " were "}


def group_instability_flags(flags: Iterable[str]) -> tuple[str, ...]:
    """Group flags into one line for each kind: "spread: launches 0, 2: p90 is 1.25-1.87 times p50".

    Args:
        flags: "name: what was seen", of one session.
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for flag in flags:
        match = OF_A_LAUNCH.fullmatch(flag)
        kind = _instability_flag_skeleton(match["name"], match["words"]) if match else flag
        kinds.setdefault(kind, []).append((match["launch"], match["words"]) if match else ("", flag))
    return tuple(_instability_flag_line(kind.partition(":")[0], seen) for kind, seen in kinds.items())


def group_instability_flag_reasons(why: Iterable[str]) -> tuple[str, ...]:
    """Group the reasons why something is no proof: "Launches 0, 1: the runner sees a 'x86_64' machine."."""
    kinds: dict[str, list[str]] = {}
    for reason in why:
        match = REASON_OF_A_LAUNCH.fullmatch(reason)
        kinds.setdefault(match["words"] if match else reason, []).extend([match["launch"]] if match else [])
    return tuple(f"{_launches_of_instability_flag(of)}{words}" for words, of in kinds.items())


def _launches_of_instability_flag(numbers: Sequence[str]) -> str:
    return f"Launch{'es' if len(numbers) > 1 else ''} {', '.join(numbers)}: " if numbers else ""


def _instability_flag_skeleton(name: str, words: str) -> str:
    """Return what flags of one kind share: all but their figures. Other cores are another kind."""
    cores = " ".join(CORES.findall(words))
    return f"{name}:{NUMBER.sub('#', CORES.sub('cores', words))}{cores}"


def _instability_flag_line(name: str, seen: Sequence[tuple[str, str]]) -> str:
    launches = [launch for launch, _ in seen]
    words = _merge_instability_flags([words for _, words in seen]) if len(seen) > 1 else seen[0][1]
    if not launches[0]:
        return words
    if len(launches) == 1:
        return f"{name}: launch {launches[0]}{words}"
    for singular, plural in PLURALS.items():
        words = re.sub(f"^{singular}", plural, words)
    return f"{name}: launches {', '.join(launches)}{words}"


def _merge_instability_flags(texts: Sequence[str]) -> str:
    """Merge texts into one, with each figure as the range over the texts."""
    columns = zip(*(_instability_flag_figures(text) for text in texts), strict=True)
    ranges = iter([_instability_flag_range(column) for column in columns])
    cores = CORES.search(texts[0])
    bare = CORES.sub("\0", texts[0])
    return NUMBER.sub(lambda _: next(ranges), bare).replace("\0", cores[0] if cores else "")


def _instability_flag_figures(text: str) -> list[str]:
    return NUMBER.findall(CORES.sub("\0", text))


def _instability_flag_range(figures: Sequence[str]) -> str:
    low, high = min(figures, key=float), max(figures, key=float)
    if low == high:
        return low
    return f"{low} to {high}" if low[0] in "+-" or high[0] in "+-" else f"{low}-{high}"
