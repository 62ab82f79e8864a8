"""Write the raw samples of a session as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from android_harness.records import Session


def raw_samples_text(session: Session) -> str:
    """Return the raw samples as JSON lines: a header and a line for each launch."""
    config, identity = session.config, session.identity
    header = {
        "artifact": session.task.name,
        "sha256": session.task.sha256,
        "started_at": session.started_at,
        "device": {
            "serial": identity.serial,
            "model": identity.model,
            "soc": identity.soc,
            "chip": identity.chip,
            "fingerprint": identity.fingerprint,
            "doubts": list(identity.doubts),
        },
        "runner": dict(session.launches[0].runner) if session.launches else {},
        "plan": vars(config),
        "canary_ns": list(session.canary_ns[0]) if session.canary_ns else [],
    }
    rows = [header, *(_raw_samples_row(session, position) for position in range(len(session.launches)))]
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def write_raw_samples(session: Session, path: Path) -> None:
    """Write the raw samples to a file, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(raw_samples_text(session), encoding="utf-8")
    aside.replace(path)


def _raw_samples_row(session: Session, position: int) -> dict[str, object]:
    launch = session.launches[position]
    canary = session.canary_ns[position + 1] if position + 1 < len(session.canary_ns) else ()
    return {
        "launch": launch.index,
        "load_ns": launch.load_ns,
        "first_ns": launch.first_ns,
        "warmup_calls": launch.warmup_calls,
        "warm": launch.warm,
        "peak_bytes": launch.peak_bytes,
        "cores_allowed": launch.cores_allowed,
        "runtime": launch.runtime,
        "durations_ns": list(launch.durations_ns),
        "offsets_ns": list(launch.offsets_ns),
        "clocks": [{"at_ns": clock.at_ns, "texts": dict(clock.texts)} for clock in launch.clocks],
        "canary_ns": list(canary),
    }
