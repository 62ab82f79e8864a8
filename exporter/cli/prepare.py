"""Prepares what executes a phone's artifacts on this machine: Arm programs, Vulkan's libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from exporter.errors import MissingDependencyError

if TYPE_CHECKING:
    from exporter.emulated.arm_tools import ArmTools


def prepare_arm_programs() -> ArmTools:
    """Return QEMU and the programs that it runs, prepared in the cache the first time."""
    from exporter.emulated import arm_tools
    from exporter.pipeline import cache

    cache.check_cache_private(cache.default_cache_root())
    if not arm_tools.ready_arm_tools(cache.default_cache_root()):
        typer.echo("Preparing the Arm programs: two wheels are downloaded, once.", err=True)
    return arm_tools.prepare_arm_tools(cache.default_cache_root())


def prepare_software_vulkan() -> None:
    """Prepare what runs Vulkan artifacts, in the cache; from then on exports and `verify` use it."""
    from exporter.emulated.vulkan import vulkan_tools
    from exporter.pipeline import cache

    cache.check_cache_private(cache.default_cache_root())
    if not vulkan_tools.ready_vulkan_tools(cache.default_cache_root()):
        typer.echo("Preparing Vulkan's software runtime: an npm package is downloaded, once.", err=True)
    vulkan_tools.prepare_vulkan_tools(cache.default_cache_root())


def prepare_all_programs() -> None:
    """Prepare everything that this machine has the programs for; say of the rest what is missing."""
    prepare_what_machine_can((prepare_arm_programs, prepare_software_vulkan))


def prepare_what_machine_can(steps: Sequence[Callable[[], object]]) -> None:
    """Take each step; one that lacks a program or the network is told, and stops no other."""
    for step in steps:
        try:
            step()
        except MissingDependencyError as error:
            typer.echo(f"Not prepared. {error}", err=True)
