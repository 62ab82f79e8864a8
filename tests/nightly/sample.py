"""A season of nights as phones might give them, and what the last one says. Nothing here is a measurement."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from android_harness import history
from android_harness.history.make_stored import make_stored_samples
from android_harness.history.records import Gap, StoredSession
from android_harness.history.store import History
from exporter.nightly.config import NightConfig, ProtocolTable, ResumeTable, RetentionTable
from exporter.nightly.records import Change, NightResult, NightRow, State
from tests.harness import sessions
from tests.history.stored import FIRST_NIGHT, night

NIGHTS = 40
TONIGHT = f"night-{NIGHTS - 1}"
LINES: dict[tuple[str, str], tuple[float, int | None, float]] = {
    ("mobilenet_v2", "onnx-fp32"): (11.8, 22, 1.13),
    ("mobilenet_v2", "executorch-xnnpack-int8"): (4.1, None, 1.0),
    ("resnet18", "onnx-fp32"): (31.0, NIGHTS - 1, 1.12),
}
"""(model, artifact) -> its p50 in ms, and from which night on it is multiplied by what."""
GAP_NIGHTS = (9, 10, 30)
UNSTABLE_NIGHTS = (5, 17, 33)


def stored() -> Iterator[StoredSession]:
    """Return all sessions, oldest first; the last night's have the keys that `result` names."""
    rng = random.Random(7)
    for number in range(NIGHTS):
        for (model, artifact), (ms, since, factor) in LINES.items():
            if number in GAP_NIGHTS:
                continue
            p50 = ms * rng.lognormvariate(0, 0.008) * (factor if since is not None and number >= since else 1)
            yield night(
                number,
                key=f"{model}-{artifact}-{number}",
                model=model,
                artifact=artifact,
                precision=artifact.rpartition("-")[2],
                p50_ms=p50,
                p90_ms=p50 * 1.04,
                p90_low_ms=p50 * 1.02,
                p90_high_ms=p50 * 1.06,
                budget_ms=15.0 if model == "mobilenet_v2" else 40.0,
                flags=("trend: launch 2: the last third took +6.1% against the first",)
                if number in UNSTABLE_NIGHTS
                else (),
                toolchain={"onnxruntime": "1.32.0" if number >= 22 else "1.31.0"},
            )


def memory(folder: Path) -> History:
    """Open a new history that holds the season."""
    season = history.open_history(folder / "history.sqlite")
    for session in stored():
        raw = make_stored_samples(
            sessions.session(
                launches=tuple(
                    sessions.launch(
                        index, sessions.durations(index, count=60, ms=session.p50_ms * (1 + 0.01 * index))
                    )
                    for index in range(4)
                )
            )
        )
        recent = session.started_at > FIRST_NIGHT + timedelta(days=NIGHTS - 8)
        season.add(session, raw if recent else None)
    for number in GAP_NIGHTS:
        at = FIRST_NIGHT + timedelta(days=number)
        season.add_gap(Gap(f"gap-{number}", f"night-{number}", "farm-a", at, "adb sees no phone."))
    return season


def config(folder: Path, **changes: Any) -> NightConfig:
    """Return a task for the season's models, without the files of their cards."""
    from exporter.config.card_tables import CardFile, CheckpointTable
    from exporter.config.cards import Card

    listed = CardFile(checkpoint=CheckpointTable(path="x.pth", sha256="0" * 64))
    cards = tuple(Card(name, folder / f"{name}.toml", listed) for name in ("mobilenet_v2", "resnet18"))
    known: dict[str, Any] = {
        "path": folder / "nightly.toml",
        "cards": cards,
        "broken": (),
        "targets": ("snapdragon865",),
        "devices": ("all",),
        "out": folder / "out",
        "history": str(folder / "history.sqlite"),
        "protocol": ProtocolTable(),
        "resume": ResumeTable(),
        "retention": RetentionTable(),
    }
    return NightConfig(**{**known, **changes})


def row(state: State, words: str = "It is so.", **changes: Any) -> NightRow:
    return replace(
        NightRow("mobilenet_v2", "snapdragon865", "onnx-fp32", "R5CR30ABCDE", state, words), **changes
    )


def result(**changes: Any) -> NightResult:
    """Return the last night: one row of every kind."""
    rows = (
        row(
            "fine",
            "p90 13.9 ms (13.6 to 14.1 ms), budget 15.0 ms.",
            key=f"mobilenet_v2-onnx-fp32-{NIGHTS - 1}",
        ),
        row(
            "inconclusive",
            "p90 4.26 ms (4.18 to 4.35 ms), budget 15.0 ms. trend: launches 1, 3: the last third took +6.1%.",
            artifact="executorch-xnnpack-int8",
            key=f"mobilenet_v2-executorch-xnnpack-int8-{NIGHTS - 1}",
        ),
        row(
            "regression",
            "p50 is 34.7 ms, 12.1% above the usual 31.0; the limit is 32.9 ms. Again: p50 is 34.6 ms, "
            "11.8% above the usual 31.0; the limit is 32.9 ms. torch went from 2.12.0 to 2.13.0.",
            model="resnet18",
            key=f"resnet18-onnx-fp32-{NIGHTS - 1}",
        ),
        row(
            "failed", "R58N: it went away during launch 3 of 5. Plug it in.", serial="R58N", model="resnet18"
        ),
        row("skipped", "Not run: Core ML executes on macOS and iOS only.", artifact="coreml-fp16", serial=""),
        NightRow(
            "broken",
            "",
            "",
            "",
            "failed",
            "Card broken (broken.toml): unknown key licens. Did you mean licence?",
        ),
    )
    changes_ = (
        Change(
            "mobilenet_v2",
            "snapdragon865",
            "onnx-int8",
            "failed, passed before. It reaches 15.1 dB SQNR.",
            True,
        ),
        Change("resnet18", "snapdragon865", "", "tools changed: torch 2.12.0 to 2.13.0", False),
    )
    known: dict[str, Any] = {
        "night": TONIGHT,
        "host": "farm-a",
        "started_at": (FIRST_NIGHT + timedelta(days=NIGHTS - 1)).isoformat(),
        "ended_at": (FIRST_NIGHT + timedelta(days=NIGHTS - 1, hours=2)).isoformat(),
        "before": f"night-{NIGHTS - 2}",
        "rows": rows,
        "changes": changes_,
        "tools": {"export_mobile": "0.1.0", "torch": "2.13.0"},
        "config": "nightly.toml",
    }
    return NightResult(**{**known, **changes})
