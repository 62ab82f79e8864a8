"""Build a release again in its own process: the request comes on standard input, the folder as an argument.

Everything of ours is imported after the clock is changed, so that nothing keeps the real one.
"""

from __future__ import annotations

import datetime as dates
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.release.release_request import ReleaseRequest

LATER_S = 400 * 24 * 3600 + 3661
"""How many seconds the other clock is ahead: another year, month, day, hour, minute and second."""


def _load_rebuild_plan(text: str) -> ReleaseRequest:
    from exporter.release.release_request import ReleaseRequest

    values: dict[str, Any] = json.loads(text)
    for name in ("out", "destination", "licence", "card", "key"):
        values[name] = Path(values[name]) if values[name] else None
    for name in ("artifacts", "allow_unverified"):
        values[name] = tuple(values[name])
    return ReleaseRequest(**values)


def shift_clock_for_rebuild(seconds: int) -> None:
    """Put Python's clocks ahead in this process. Modules imported afterwards see the shifted time."""
    now, local, utc, real = time.time, time.localtime, time.gmtime, dates.datetime

    class Later(real):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: dates.tzinfo | None = None) -> dates.datetime:
            return real.now(tz) + dates.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls) -> dates.datetime:
            return real.now(dates.UTC).replace(tzinfo=None) + dates.timedelta(seconds=seconds)

    time.time = lambda: now() + seconds
    time.localtime = lambda given=None: local(now() + seconds if given is None else given)
    time.gmtime = lambda given=None: utc(now() + seconds if given is None else given)
    dates.datetime = Later  # type: ignore[misc]


def rebuild_main() -> None:
    shift_clock_for_rebuild(LATER_S)
    from exporter.release import bundle
    from exporter.release.plan import plan_release

    again = Path(sys.argv[1])
    request = _load_rebuild_plan(sys.stdin.read())
    bundle.build_bundle(plan_release(request), again, again.with_name("scratch-again"))


if __name__ == "__main__":
    rebuild_main()
