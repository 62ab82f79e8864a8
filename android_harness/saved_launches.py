"""Save every finished launch on this machine, so that a killed measurement continues where it stopped.

A folder belongs to one artifact, device, runner and configuration. It is deleted once the session is stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from android_harness.records import BenchConfig, BenchTask, Clock, Identity, Launch, Sample, Session, State

MAX_AGE_S = 6 * 3600.0
"""Launches of an older run are not continued: the phone's state has changed by then."""
STATE = "state.json"
MEASURING = (
    "launches",
    "min_iterations",
    "min_seconds",
    "max_seconds",
    "threads",
    "affinity",
    "app_like",
    "trace",
)
"""The fields of `BenchConfig` that decide how a launch is measured."""


@dataclass(frozen=True)
class Saved:
    """The finished launches of a killed run for one artifact, and the state before them."""

    before: State
    started_at: str
    canary_ns: tuple[tuple[int, ...], ...]
    launches: tuple[Launch, ...]


def saved_launches_root() -> Path:
    """Return the folder of saved launches in `$EXPORT_MOBILE_STATE`, or in the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get("EXPORT_MOBILE_STATE") or Path(state) / "export-mobile") / "launches"


def saved_launches_folder(
    root: Path, task: BenchTask, identity: Identity, config: BenchConfig, program: str
) -> Path:
    """Return the folder of one artifact's launches on one device.

    Args:
        root: The folder of all saved launches.
        task: The artifact and its inputs.
        identity: The device.
        config: How it is measured.
        program: The runner's path on the device, which names its content.
    """
    inputs = [hashlib.sha256(array.tobytes()).hexdigest() for sample in task.samples for array in sample]
    device = (identity.serial, identity.fingerprint, identity.kernel)
    measuring = [getattr(config, name, None) for name in MEASURING]
    runner = program.split("/")[-2:]
    key = json.dumps([task.name, task.sha256, task.backend, inputs, device, measuring, runner])
    return root / hashlib.sha256(key.encode()).hexdigest()[:32]


def begin_saved_launches(path: Path, before: State, started_at: str) -> None:
    """Begin a new session in a folder. A full disk is no error: the run cannot be continued then."""
    _prune_saved_launches(path.parent)
    with contextlib.suppress(OSError):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        _write_saved_launch(
            path / STATE, json.dumps({"before": asdict(before), "started_at": started_at}).encode()
        )


def save_launch(path: Path, launch: Launch) -> None:
    """Save a finished launch; it is complete on disk, or not there."""
    fields = {name: value for name, value in vars(launch).items() if name not in {"outputs", "clocks"}}
    clocks = [{"at_ns": clock.at_ns, "texts": dict(clock.texts)} for clock in launch.clocks]
    with contextlib.suppress(OSError):
        _save_outputs_of_saved_launch(path / f"{launch.index}.npz", launch.outputs)
        _write_saved_launch(
            path / f"{launch.index}.json", json.dumps({**fields, "clocks": clocks}, default=dict).encode()
        )


def save_launch_canary(path: Path, position: int, durations_ns: tuple[int, ...]) -> None:
    """Save the canary's durations: position 0 is before the first launch, n after launch n - 1."""
    with contextlib.suppress(OSError):
        _write_saved_launch(path / f"canary-{position}.json", json.dumps(durations_ns).encode())


def load_saved_launches(path: Path) -> Saved | None:
    """Return what a killed run had measured; None if that is nothing, too old or unreadable."""
    try:
        if time.time() - (path / STATE).stat().st_mtime > MAX_AGE_S:
            return None
        state = json.loads((path / STATE).read_text())
        launches: list[Launch] = []
        while (path / f"{len(launches)}.json").is_file():
            launches.append(_saved_launch(path, len(launches)))
        canary: list[tuple[int, ...]] = []
        while (path / f"canary-{len(canary)}.json").is_file() and len(canary) <= len(launches):
            canary.append(tuple(json.loads((path / f"canary-{len(canary)}.json").read_text())))
        return Saved(
            _saved_launch_state(state["before"]), state["started_at"], tuple(canary), tuple(launches)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error):
        return None


def discard_saved_launches(session: Session) -> None:
    """Delete the saved launches of a session that is stored."""
    if session.saved is not None:
        shutil.rmtree(session.saved, ignore_errors=True)


def _prune_saved_launches(root: Path) -> None:
    """Delete the launches of runs that are too old to be continued."""
    for path in root.glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > MAX_AGE_S:
                shutil.rmtree(path)


def _saved_launch_state(values: Mapping[str, Any]) -> State:
    lists = {name: tuple(values[name]) for name in ("scaling_max_khz", "governors")}
    return State(**{**values, **lists})


def _saved_launch(path: Path, index: int) -> Launch:
    values: dict[str, Any] = json.loads((path / f"{index}.json").read_text())
    clocks = tuple(Clock(clock["at_ns"], clock["texts"]) for clock in values.pop("clocks"))
    parts = tuple((implementer, part) for implementer, part in values.pop("parts"))
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return Launch(
        **fields, clocks=clocks, parts=parts, outputs=_load_outputs_of_saved_launch(path / f"{index}.npz")
    )


def _save_outputs_of_saved_launch(path: Path, outputs: tuple[Sample, ...]) -> None:
    import numpy as np

    arrays = {
        f"{sample}-{place}": array
        for sample, values in enumerate(outputs)
        for place, array in enumerate(values)
    }
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _load_outputs_of_saved_launch(path: Path) -> tuple[Sample, ...]:
    import numpy as np

    samples: dict[int, dict[int, Any]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            sample, place = map(int, name.split("-"))
            samples.setdefault(sample, {})[place] = arrays[name]
    return tuple(tuple(values[p] for p in sorted(values)) for _, values in sorted(samples.items()))


def _write_saved_launch(path: Path, content: bytes) -> None:
    aside = path.with_name(f"{path.name}.new")
    aside.write_bytes(content)
    aside.replace(path)
