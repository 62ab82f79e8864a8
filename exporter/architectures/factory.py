"""Build the user's own network: `--arch mypkg.nets:make_net`, imported from the current directory."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.architectures import network_index, weight_loading
from exporter.architectures.built_network import Built
from exporter.architectures.weight_readings import Weights
from exporter.capture import torchvision_ops
from exporter.capture.lowering_errors import lowering_error_source
from exporter.errors import ArchitectureError, UsageError

if TYPE_CHECKING:
    import torch


def build_by_factory(
    arch: str, readings: Sequence[Weights], arguments: Mapping[str, Any], from_arch: bool = False
) -> Built:
    """Import `module:function`, call it with the arguments, and load the weights.

    Args:
        arch: The place of the function.
        readings: The checkpoint's tensors by the names to try.
        arguments: The arguments for the function.
        from_arch: Keep the tensors that the function creates where the file has none.

    Raises:
        UsageError: The function does not exist, or does not take the arguments.
        ArchitectureError: The function fails, returns no module, or returns one with other tensors.
    """
    # Most networks begin by importing torchvision.
    torchvision_ops.prepare_torchvision_ops()
    module_name, _, attribute = arch.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise UsageError(
            f"--arch {arch!r} names no network.",
            f"{_meant_factory(arch)} `mypkg.nets:make_net` stands for a function that returns a module.",
            code="EM-ARCH",
        )
    target = _factory_attribute(_import_factory(module_name, arch), attribute, arch)
    module = _call_factory(target, arguments, arch)
    return Built(module, arch, weight_loading.load_weights(module, readings, arch, from_arch=from_arch))


def _meant_factory(arch: str) -> str:
    names = [entry.name for entry in network_index.network_index_entries()]
    nearest = difflib.get_close_matches(arch.rpartition("/")[2], names, n=1)
    return f"Did you mean torchvision/{nearest[0]}?" if nearest else "Write `torchvision/resnet18`, or:"


def _open_directory_for_factory(name: str) -> None:
    """Make the user's module importable, and what it imports in turn.

    The current directory comes last on the path, so that the user's `onnx.py` never stands in for the real
    one. The module that `--arch` names is the exception: an installed package of its name does not hide it.
    """
    here = str(Path.cwd())
    importlib.invalidate_caches()
    if here not in sys.path:
        sys.path.append(here)
    top = name.partition(".")[0]
    spec = PathFinder.find_spec(top, [here]) if top not in sys.modules else None
    if spec is not None and spec.loader is not None:
        sys.modules[top] = module = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[top]
            raise


def _import_factory(name: str, arch: str) -> Any:
    try:
        _open_directory_for_factory(name)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UsageError(
                f"--arch {arch}: no module {error.name!r} in {Path.cwd()} or among the installed packages.",
                "Run from the directory that holds it.",
                code="EM-ARCH",
            ) from error
        raise ArchitectureError(
            f"--arch {arch}: importing {name} needs {error.name!r}, not installed.",
            code="EM-ARCH",
        ) from error
    except (Exception, SystemExit) as error:
        raise ArchitectureError(
            f"--arch {arch}: importing {name} failed: {_told_by_factory(error)}", code="EM-ARCH"
        ) from error


def _factory_attribute(module: Any, path: str, arch: str) -> Any:
    target = module
    for part in path.split("."):
        if not hasattr(target, part):
            names = [name for name, value in vars(module).items() if callable(value)]
            nearest = difflib.get_close_matches(part, names, n=3)
            raise UsageError(
                f"--arch {arch}: {module.__name__} has no {part!r}.",
                f"Did you mean {' or '.join(nearest)}?" if nearest else "",
                code="EM-ARCH",
            )
        target = getattr(target, part)
    return target


def _call_factory(target: Any, arguments: Mapping[str, Any], arch: str) -> torch.nn.Module:
    import torch

    if isinstance(target, torch.nn.Module) and not arguments:
        return target
    if isinstance(target, torch.nn.Module) or not callable(target):
        raise UsageError(
            f"--arch {arch}: {type(target).__name__} found, not a function that returns a module.",
            code="EM-ARCH",
        )
    _check_factory_arguments(target, arguments, arch)
    try:
        module = target(**arguments)
    except (Exception, SystemExit) as error:
        raise ArchitectureError(
            f"--arch {arch}: the function failed: {_told_by_factory(error)}", code="EM-ARCH"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ArchitectureError(
            f"--arch {arch} returned {type(module).__name__}, not a torch.nn.Module.", code="EM-ARCH"
        )
    return module


def _check_factory_arguments(target: Callable[..., Any], arguments: Mapping[str, Any], arch: str) -> None:
    try:
        signature = inspect.signature(target)
        signature.bind(**arguments)
    except TypeError as error:
        raise UsageError(
            f"--arch {arch}{signature}: {error}.",
            "Give its arguments with `--arch-arg name=value`.",
            code="EM-ARCH",
        ) from error
    except ValueError:
        return  # written in C: it tells by itself when called


def _told_by_factory(error: BaseException) -> str:
    text = next(iter(str(error).splitlines()), "")
    source = lowering_error_source(error)
    where = f" (at {source})" if source else ""
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__) + where
