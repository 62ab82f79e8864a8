"""The command `scripts/simulated-device up|down|status`."""

from __future__ import annotations

import argparse
import os
import sys

from android_harness.errors import HarnessError
from android_harness.simulator import device, server
from android_harness.simulator.device import Simulated
from android_harness.simulator.soc import ARCHS, SOCS

ADB_PORT = 5037
NOTICE = "Simulated: nothing timed on these devices is a measurement of a phone."


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
        "simulated-device", description="Start and stop simulated Android devices. " + NOTICE
    )
    parser.add_argument("verb", choices=("up", "down", "status"))
    parser.add_argument("--count", type=int, default=1, help="number of devices (default: 1)")
    parser.add_argument("--soc", choices=SOCS, default=SOCS[0], help="the SoC that they imitate")
    parser.add_argument(
        "--arch", choices=ARCHS, default=ARCHS[0], help="the architecture of the programs that they run"
    )
    parser.add_argument(
        "--misbehave", metavar="KIND", default="", help="the fault to cause; none: end all faults"
    )
    return parser


def _up(options: argparse.Namespace) -> None:
    """Start devices until the requested number runs."""
    devices = [running for running in _own() if (running.arch, running.soc) == (options.arch, options.soc)]
    while len(devices) < options.count:
        devices.append(device.start(options.arch, options.soc, attached=False))
    for simulated in devices[: options.count]:
        if options.misbehave:
            simulated.misbehave(options.misbehave)
        server.connect(simulated.address, _server_port())
        print(simulated.address)  # noqa: T201
    print(NOTICE, file=sys.stderr)  # noqa: T201


def _down() -> None:
    for simulated in _own():
        server.disconnect(simulated.address, _server_port())
        simulated.down()


def _status() -> None:
    for running in device.running():
        starter = "a test" if running.attached else "simulated-device"
        print(f"{running.address}  {running.soc}  {running.arch}  started by {starter}")  # noqa: T201


def _own() -> list[Simulated]:
    """Return the devices that this command started; those of a test end with the test."""
    return [running for running in device.running() if not running.attached]


def _server_port() -> int:
    return int(os.environ.get("ANDROID_ADB_SERVER_PORT") or ADB_PORT)


if __name__ == "__main__":
    sys.exit(main())
