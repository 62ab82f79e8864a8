"""Chooses the variants that a run makes: the target's, narrowed by `--formats` and `--precisions`."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.config import targets
from exporter.config.request import Request
from exporter.errors import UsageError
from exporter.records import Variant


def plan_variants(
    target: targets.Target, formats: Sequence[str] = (), precisions: Sequence[str] = (), search: bool = False
) -> tuple[Variant, ...]:
    """Return the variants to make.

    Raises:
        UsageError: A format or precision does not exist, or leaves nothing to do.
    """
    from exporter.formats import VARIANTS

    offered = [VARIANTS[name] for name in target.variants if search or VARIANTS[name].precision != "mixed"]
    if "mixed" in precisions and not search:
        raise UsageError("Precision mixed is what --search looks for.", "Give --search.")
    _check_variant_names("--formats", formats, {v.format for v in VARIANTS.values()} | set(VARIANTS))
    _check_variant_names("--precisions", precisions, {v.precision for v in VARIANTS.values()})
    chosen = tuple(
        v
        for v in offered
        if (not formats or v.format in formats or v.name in formats)
        and (not precisions or v.precision in precisions)
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
