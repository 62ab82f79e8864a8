"""`scripts/simulated-device up|down|status`."""

from __future__ import annotations

import argparse
import os
import sys

from android_harness.errors import HarnessError
from android_harness.simulator import device, server
from android_harness.simulator.device import Simulated
from android_harness.simulator.soc import ARCHS, SOCS

ADB_PORT = 5037
NOTICE = "Simulated: whatever is timed on these is no measurement of a phone."


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        if options.verb == "up":
            _up(options)
        elif options.verb == "down":
            _down()
        else:
            _status()
    except HarnessError as problem:
        print(problem, file=sys.stderr)  # noqa: T201
        return problem.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "simulated-device", description="Android devices without a phone. " + NOTICE
    )
    parser.add_argument("verb", choices=("up", "down", "status"))
    parser.add_argument("--count", type=int, default=1, help="how many there shall be (1)")
    parser.add_argument("--soc", choices=SOCS, default=SOCS[0], help="what they look like")
    parser.add_argument("--arch", choices=ARCHS, default=ARCHS[0], help="whose programs they run")
    parser.add_argument(
        "--misbehave", metavar="KIND", default="", help="what goes wrong from now on; none: nothing"
    )
    return parser


def _up(options: argparse.Namespace) -> None:
    """As many as asked for, those that run already among them."""
    devices = [found for found in _own() if (found.arch, found.soc) == (options.arch, options.soc)]
    while len(devices) < options.count:
        devices.append(device.start(options.arch, options.soc, attached=False))
    for one in devices[: options.count]:
        if options.misbehave:
            one.misbehave(options.misbehave)
        server.connect(one.address, _server_port())
        print(one.address)  # noqa: T201
    print(NOTICE, file=sys.stderr)  # noqa: T201


def _down() -> None:
    for one in _own():
        server.disconnect(one.address, _server_port())
        one.down()


def _status() -> None:
    for one in device.running():
        by = "a test" if one.attached else "simulated-device"
        print(f"{one.address}  {one.soc}  {one.arch}  started by {by}")  # noqa: T201


def _own() -> list[Simulated]:
    """Those started here; a test's end with the test."""
    return [one for one in device.running() if not one.attached]


def _server_port() -> int:
    return int(os.environ.get("ANDROID_ADB_SERVER_PORT") or ADB_PORT)


if __name__ == "__main__":
    sys.exit(main())
