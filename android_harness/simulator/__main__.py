"""The command `scripts/simulated-device up|down|status`."""

from __future__ import annotations

import argparse
import os
import sys

from android_harness.errors import HarnessError, SetupError
from android_harness.simulator import device, missing_parts, server
from android_harness.simulator.device import SimulatedDevice
from android_harness.simulator.soc import ARCHS, SOCS

ADB_PORT = 5037
NOTICE = "Simulated: nothing timed on these devices is a measurement of a phone."


def simulator_main(argv: list[str] | None = None) -> int:
    options = _simulator_parser().parse_args(argv)
    try:
        if options.verb == "up":
            _simulator_up(options)
        elif options.verb == "down":
            _simulator_down()
        else:
            _simulator_status()
    except HarnessError as problem:
        print(problem, file=sys.stderr)  # noqa: T201
        return problem.exit_code
    return 0


def _simulator_parser() -> argparse.ArgumentParser:
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


def _simulator_up(options: argparse.Namespace) -> None:
    """Start devices until the requested number runs; name every part that is missing, with its command."""
    needed = missing_parts.missing_device_parts(options.arch)
    if needed:
        raise SetupError("No simulated device can start here.", "\n".join(("", *needed)))
    devices = [
        running
        for running in _own_simulated_devices()
        if (running.arch, running.soc) == (options.arch, options.soc)
    ]
    while len(devices) < options.count:
        devices.append(
            device.start_simulated_device(options.arch, options.soc, attached=False, observer=_tell)
        )
    for simulated in devices[: options.count]:
        if options.misbehave:
            simulated.misbehave(options.misbehave)
        server.connect_to_server(simulated.address, _simulator_server_port())
        print(simulated.address)  # noqa: T201
    _tell(NOTICE)
    lacking = missing_parts.missing_bench_parts(options.arch)
    if lacking:
        _tell("bench cannot measure on these devices yet:")
    for part in lacking:
        _tell(f"  {part}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _simulator_down() -> None:
    for simulated in _own_simulated_devices():
        server.disconnect_from_server(simulated.address, _simulator_server_port())
        simulated.down()


def _simulator_status() -> None:
    for running in device.running_simulated_devices():
        starter = "a test" if running.attached else "simulated-device"
        print(f"{running.address}  {running.soc}  {running.arch}  started by {starter}")  # noqa: T201


def _own_simulated_devices() -> list[SimulatedDevice]:
    """Return the devices that this command started; those of a test end with the test."""
    return [running for running in device.running_simulated_devices() if not running.attached]


def _simulator_server_port() -> int:
    return int(os.environ.get("ANDROID_ADB_SERVER_PORT") or ADB_PORT)


if __name__ == "__main__":
    sys.exit(simulator_main())
