"""A night without exports and phones: OUT folders made at once, phones that answer what a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from android_harness import all_devices, history, runner_build
from android_harness.all_devices import Outcome
from android_harness.errors import HarnessError
from android_harness.history.records import Filter, Gap, StoredSession
from android_harness.one_device import Failed
from android_harness.records import BenchConfig, BenchTask, Session
from exporter import bench
from exporter.nightly import config, devices, exporting, night_page, night_run, night_views
from exporter.nightly.devices import DevicePool
from exporter.nightly.records import NightRow
from exporter.records import Report
from exporter.report import manifest
from tests.cli.test_device import phone
from tests.harness import sessions
from tests.report.sample import export as export

FAST, OVER, CLOSE = 8.0, 20.0, 15.0
ARTIFACT = "executorch-xnnpack-int8"
Answer = Callable[[str, BenchTask, int], "float | HarnessError"]
"""(serial, work, how often this phone was asked for this artifact before) -> p50 in ms, or what fails."""


class Killed(BaseException):
    """Ends a night as SIGKILL would, as far as the code can tell: only `finally` runs after it."""


def only(report: Report, *names: str) -> Report:
    """Return a change that leaves only these artifacts."""
    return replace(report, artifacts=tuple(a for a in report.artifacts if a.variant.name in names))


@dataclass
class FakePhones:
    """Stand-ins for phones: what they answer, and what they were asked."""

    folder: Path
    phones: tuple[str, ...] = ("a", "b")
    answer: Answer = lambda serial, work, before: FAST
    exports: Callable[[str, str], Exception | None] = lambda model, target: None
    change: Callable[[Report], Report] = lambda report: only(report, ARTIFACT, "onnx-fp32", "coreml-fp16")
    socs: Mapping[str, str] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    """The devices that do not answer, and why."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(serial, file's folder, artifact)."""
    exported: list[str] = field(default_factory=list)
    plans: list[BenchConfig] = field(default_factory=list)
    socs_asked: list[str | None] = field(default_factory=list)
    broken: Mapping[str, Exception] = field(default_factory=dict)
    """The devices that fail as a whole."""
    broken_late: Mapping[str, Exception] = field(default_factory=dict)
    """The devices that fail once one artifact is measured."""
    kill_after: int | None = None
    """The number of sessions after which everything is killed."""

    def task(self, cards: Sequence[str] = ("one", "two", "three"), extra: str = "") -> Path:
        """Write `nightly.toml` and its cards."""
        for name in cards:
            (self.folder / f"{name}.toml").write_text('[checkpoint]\npath = "x.pth"\nsha256 = "00000000"\n')
        path = self.folder / "nightly.toml"
        listed = ", ".join(f'"{name}.toml"' for name in cards)
        path.write_text(
            f'cards = [{listed}]\ntargets = ["snapdragon865"]\nout = "out"\nhistory = "history.sqlite"\n'
            f"{extra}\n[protocol]\nlaunches = 4\nwait_s = 0\n"
        )
        return path

    def run(self, task: Path | None = None, **options: Any) -> night_run.Finished:
        return night_run.run_night(config.load_night_config(task or self.task()), **options)

    def sessions(self) -> tuple[StoredSession, ...]:
        """Return all stored sessions, oldest first."""
        with history.open_history(self.folder / "history.sqlite") as memory:
            return tuple(reversed(memory.sessions()))

    def gaps(self) -> tuple[Gap, ...]:
        with history.open_history(self.folder / "history.sqlite") as memory:
            return memory.gaps(Filter())

    def _made(self, card: Any, target: str, folder: Path, observer: Any) -> Report:
        self.exported.append(card.name)
        if (error := self.exports(card.name, target)) is not None:
            raise error
        export(folder, self.change)
        return bench.read_for_bench(folder)[0]

    def _find(self, names: Sequence[str]) -> DevicePool:
        answering = {serial: SimpleNamespace(serial=serial) for serial in self.phones}
        known = {
            serial: sessions.identity(serial=serial, soc=self.socs.get(serial, "SM8250"))
            for serial in answering
        }
        return DevicePool(answering, known, self.silent, tuple(names))

    def _bench(
        self,
        asked: Sequence[Any],
        works: Sequence[BenchTask],
        plan: BenchConfig,
        *,
        soc: str | None,
        measured: Callable[[str, Session], None],
        finished: Callable[[Outcome], None],
        **_: Any,
    ) -> None:
        self.plans.append(plan)
        self.socs_asked.append(soc)
        for device in asked:
            if device.serial in self.broken:
                finished(Outcome(device.serial, error=self.broken[device.serial]))
                continue
            results = []
            for work in works:
                results.append(self._session(device.serial, work, plan))
                if isinstance(results[-1], Session) and not results[-1].cut_off:
                    measured(device.serial, results[-1])
                if self.kill_after is not None and len(self.asked) >= self.kill_after:
                    self.kill_after = None
                    raise Killed
                if device.serial in self.broken_late:
                    break
            late = self.broken_late.get(device.serial)
            finished(Outcome(device.serial, results=() if late else tuple(results), error=late))

    def _session(self, serial: str, work: BenchTask, plan: BenchConfig) -> Session | Failed:
        place = (serial, work.path.parent.name, work.name)
        answer = self.answer(serial, work, self.asked.count(place))
        self.asked.append(place)
        if isinstance(answer, HarnessError):
            return Failed(work, answer)
        from datetime import UTC, datetime

        measured = phone(serial, work, plan, [answer] * 4)
        return replace(measured, started_at=datetime.now(UTC).isoformat())


def _manifest_only(out: Path, report: Report) -> Report:
    (out / "manifest.json").write_text(manifest.dump_manifest(report))
    return report


def fake_phones(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> FakePhones:
    """Replace the real phones. No page is drawn, because that takes most of the time; other tests do it."""
    monkeypatch.setattr(night_page, "render_night_page", lambda *_: "<p>drawn elsewhere</p>")
    monkeypatch.setattr(night_views, "night_views", lambda *_: ())
    monkeypatch.setattr("exporter.bench.bench_storing.write_report_in_stage", _manifest_only)
    fake = FakePhones(folder, **settings)
    monkeypatch.setattr(exporting, "_make_night_export", fake._made)
    monkeypatch.setattr(devices, "find_night_devices", fake._find)
    monkeypatch.setattr(all_devices, "bench_all_devices", fake._bench)
    monkeypatch.setattr(runner_build, "find_runner_build", lambda target, backend: folder)
    return fake


def states(finished: night_run.Finished) -> dict[str, int]:
    """Count the rows by state, without those that were never to be measured."""
    rows = [row.state for row in finished.result.rows if row.state != "skipped"]
    return {state: rows.count(state) for state in rows}


def rows_of(finished: night_run.Finished, state: str) -> list[NightRow]:
    return [row for row in finished.result.rows if row.state == state]
