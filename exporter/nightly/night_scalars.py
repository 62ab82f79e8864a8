"""Write tonight's figures for TensorBoard: one curve per model, target, artifact and device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from android_harness.history.records import StoredSession
from exporter.errors import MissingDependencyError, OutputError

FIGURES = ("p50_ms", "p90_ms", "p99_ms", "load_ms", "first_ms", "budget_ms", "sqnr_db", "peak_bytes")
DAY_S = 86400


def check_night_scalars_writer() -> None:
    """Check that TensorBoard's writer is installed, before the night starts.

    Raises:
        MissingDependencyError: The writer is not installed.
    """
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "--tensorboard needs the package tensorboardX.", "Run `pip install 'export-mobile[tensorboard]'`."
        ) from None


def write_night_scalars(folder: Path, night: str, sessions: Iterable[StoredSession]) -> None:
    """Write the night's own event file; a night that ends twice replaces it.

    The step is the day since 1970: nights without a measurement leave a gap.

    Raises:
        OutputError: It cannot be written.
    """
    from tensorboardX import SummaryWriter

    suffix = f".{night}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"events.out.tfevents.*{suffix}"):
            with contextlib.suppress(OSError):
                old.unlink()
        with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
            for session in sessions:
                seconds = session.started_at.timestamp()
                place = f"{session.model}/{session.target}/{session.artifact}/{session.serial}"
                for figure in FIGURES:
                    value = getattr(session, figure)
                    if value is not None:
                        writer.add_scalar(f"{place}/{figure}", value, int(seconds // DAY_S), walltime=seconds)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror}.", "Choose another folder."
        ) from None
