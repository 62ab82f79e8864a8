"""Import one framework in its own process, try what exports need of it, and report.

`python -m exporter.cli.doctor.framework_checks NAME MODULE` is the child: it answers with the line of JSON
after `MARK`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
TIMEOUT_S = 120.0
MARK = "probe answer: "
"""It begins the answer: frameworks print to standard output too, on import and at exit."""


@dataclass(frozen=True)
class FrameworkCheck:
    """The answer of a probing process, or how it failed."""

    answer: Answer
    failure: str = ""


IMPORTS = {
    "torch": "torch",
    "torchvision": "torchvision",
    "executorch": "executorch.exir",
    "torchao": "torchao",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "coremltools": "coremltools",
}
"""Distribution -> module whose import proves it works here."""


def run_framework_check(name: str, timeout_s: float = TIMEOUT_S) -> FrameworkCheck:
    """Import a framework in another process and report what it can do here.

    Args:
        name: A key of `IMPORTS`.
        timeout_s: Seconds after which the process is killed.
    """
    try:
        done = subprocess.run(
            # -P: a folder called "onnx" where the user happens to be is not the framework.
            [
                sys.executable,
                "-P",
                "-W",
                "ignore",
                "-m",
                "exporter.cli.doctor.framework_checks",
                name,
                IMPORTS[name],
            ],
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=_framework_check_of_environment(),
        )
    except subprocess.TimeoutExpired:
        return FrameworkCheck({}, f"does not finish importing within {timeout_s:.0f} s")
    except OSError as error:
        return FrameworkCheck({}, f"cannot be probed: {error.strerror}")
    _, marked, answer = done.stdout.decode(errors="replace").partition(MARK)
    if done.returncode == 0 and marked:
        return FrameworkCheck(json.loads(answer.splitlines()[0]))
    return FrameworkCheck(
        {}, _framework_check_of_death(done.returncode, done.stderr.decode(errors="replace"))
    )


def _framework_check_of_environment() -> dict[str, str]:
    """Return this process's environment, with our own package importable from any folder."""
    root = str(Path(__file__).parents[3])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _framework_check_of_death(code: int, stderr: str) -> str:
    if code < 0:
        return f"crashes when imported ({signal.Signals(-code).name})"
    lines = [line for line in stderr.splitlines() if line.strip()]
    return f"cannot be imported: {lines[-1].strip()[:200] if lines else f'exit code {code}'}"


def _framework_check_of_torch() -> Answer:
    return {
        "lite": _attempt_framework_check(_framework_check_of_lite_interpreter),
        "optimizer": _attempt_framework_check(_framework_check_of_optimizer),
    }


def _attempt_framework_check(action: Callable[[], None]) -> bool | str:
    """Return True, or the framework's error in one line."""
    try:
        action()
    except Exception as error:
        # torch's assertions name a C++ file first and the reason after this request.
        words = str(error).strip().split("report a bug to PyTorch. ")[-1]
        return words.splitlines()[0][:160] if words else type(error).__name__
    return True


def _framework_check_of_scripting() -> Any:
    import torch

    return torch.jit.script(torch.nn.Linear(3, 2).eval())


def _framework_check_of_lite_interpreter() -> None:
    """Save a module for the lite interpreter, load it, and compare its output."""
    import io

    import torch
    from torch.jit.mobile import _load_for_lite_interpreter

    module, x = _framework_check_of_scripting(), torch.ones(1, 3)
    stored = io.BytesIO(module._save_to_buffer_for_lite_interpreter())
    loaded = _load_for_lite_interpreter(stored)  # type: ignore[no-untyped-call]
    if not torch.equal(loaded(x), module(x)):
        raise RuntimeError("its output differs from the module's")


def _framework_check_of_optimizer() -> None:
    from torch.utils.mobile_optimizer import optimize_for_mobile

    optimize_for_mobile(_framework_check_of_scripting())


def _framework_check_of_torchvision() -> Answer:
    from exporter.capture import torchvision_ops

    stand_ins = torchvision_ops.prepare_torchvision_ops()
    import torchvision  # noqa: F401

    return {"operators": stand_ins is None}


def _framework_check_of_executorch() -> Answer:
    from executorch.runtime import Runtime

    registry = Runtime.get().backend_registry
    return {"backends": [n for n in registry.registered_backend_names if registry.is_available(n)]}


def _framework_check_of_onnxruntime() -> Answer:
    import onnxruntime

    return {"providers": onnxruntime.get_available_providers()}


PROBES: dict[str, Callable[[], Answer]] = {
    "torch": _framework_check_of_torch,
    "torchvision": _framework_check_of_torchvision,
    "executorch": _framework_check_of_executorch,
    "onnxruntime": _framework_check_of_onnxruntime,
}


def framework_checks_main(name: str, module: str) -> None:
    """Print what the framework can do; any failure ends the process with a traceback."""
    answer = PROBES[name]() if name in PROBES else {}
    importlib.import_module(module)
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")


if __name__ == "__main__":
    framework_checks_main(sys.argv[1], sys.argv[2])
