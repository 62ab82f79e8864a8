"""Chooses the variants that a run makes: the target's, narrowed by `--formats` and `--precisions`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from exporter.config import targets
from exporter.config.request import Request
from exporter.errors import MissingDependencyError, UsageError
from exporter.records import Variant
from exporter.verify.contract import PICTURED

DEFAULT = "default"
"""The word of `--formats` for every format that is made when the option is left out."""


def plan_variants(
    target: targets.Target, formats: Sequence[str] = (), precisions: Sequence[str] = (), search: bool = False
) -> tuple[Variant, ...]:
    """Return the variants to make.

    Raises:
        UsageError: A format or precision does not exist, or leaves nothing to do.
    """
    from exporter.formats import VARIANTS

    offered = [
        VARIANTS[name]
        for name in (*target.variants, *target.on_request)
        if search or VARIANTS[name].precision != "mixed"
    ]
    if "mixed" in precisions and not search:
        raise UsageError("Precision mixed is what --search looks for.", "Give --search.")
    known = {v.format for v in VARIANTS.values()} | set(VARIANTS) | {DEFAULT}
    _check_variant_names("--formats", formats, known)
    _check_variant_names("--precisions", precisions, {v.precision for v in VARIANTS.values()})
    chosen = tuple(
        v
        for v in offered
        if _is_variant_named(v, target, formats) and (not precisions or v.precision in precisions)
    )
    if not chosen:
        raise UsageError(
            f"No artifact for {target.name} is left by --formats {','.join(formats) or 'all'} and "
            f"--precisions {','.join(precisions) or 'all'}.",
            f"It offers: {', '.join(v.name for v in offered)}.",
        )
    if search and not any(v.precision == "mixed" for v in chosen):
        mixed = ", ".join(v.name for v in offered if v.precision == "mixed")
        raise UsageError(
            f"--search makes mixed artifacts, and --formats and --precisions leave none of {target.name}'s.",
            f"It offers: {mixed or 'none'}.",
        )
    return chosen


def _is_variant_named(variant: Variant, target: targets.Target, formats: Sequence[str]) -> bool:
    """Tell whether `--formats` asks for a variant; DEFAULT stands for what is made when it is left out."""
    if variant.name in target.variants and (not formats or DEFAULT in formats):
        return True
    return variant.format in formats or variant.name in formats


def check_variant_extras(variants: Sequence[Variant]) -> None:
    """Refuse variants whose extra is not installed; imports nothing.

    Raises:
        MissingDependencyError: The extra, and the command that installs it.
    """
    from exporter.formats import EXTRAS

    for format_name in dict.fromkeys(v.format for v in variants if v.format in EXTRAS):
        extra, modules = EXTRAS[format_name]
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependencyError(
                f"--formats {format_name} needs the packages of the {extra} extra: {', '.join(missing)} is "
                "not installed.",
                f"Run `pip install 'export-mobile[{extra}]'`.",
            )


def check_image_variants(request: Request, variants: Sequence[Variant]) -> None:
    """Refuse `--image-input` where no Core ML package is made, which it would change.

    Raises:
        UsageError: It has no effect.
    """
    if request.image_input and not any(variant.format in PICTURED for variant in variants):
        raise UsageError(
            f"--image-input changes Core ML packages, and none is made for {request.target}.",
            "Add coreml to --formats, or leave --image-input out.",
            code="EM-IMAGE-INPUT",
        )


def check_required_variants(request: Request, required: Sequence[str]) -> None:
    """Refuse a `--require` that nothing of what is to be made could satisfy.

    Raises:
        UsageError: It names no format, precision or artifact of this run.
    """
    variants = plan_variants(
        targets.get_target(request.target), request.formats, request.precisions, request.search
    )
    offered = {name for v in variants for name in (v.format, v.precision, v.name)}
    _check_variant_names("--require", required, offered)


def _check_variant_names(option: str, given: Sequence[str], allowed: set[str]) -> None:
    unknown = [name for name in given if name not in allowed]
    if unknown:
        raise UsageError(
            f"{option} does not know {', '.join(unknown)}.", f"Known: {', '.join(sorted(allowed))}."
        )
