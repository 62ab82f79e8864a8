"""Runs a captured network as its reference: in float64 where it can, in float32, or rounded anew."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.capture import rounding_errors
from exporter.capture.calls import call_runner, copy_module_for_calls, first_line_of_call_error
from exporter.capture.untrained_norms import untrained_norm
from exporter.capture.widened_casts import with_widened_casts
from exporter.errors import CaptureError
from exporter.records import Captured, Runner, Sample
from exporter.verify.reference_io import Stacks

if TYPE_CHECKING:
    from torch import nn


class ReferenceNetwork:
    """The captured network, which can start sequences of calls."""

    def __init__(
        self,
        captured: Captured,
        widen: bool,
        seed: int | None = None,
        size: float = rounding_errors.NUDGE,
        casts: bool = False,
    ) -> None:
        """Remember how the network is computed.

        Args:
            captured: The network.
            widen: In float64.
            seed: With weights and inputs changed at random; None leaves them.
            size: By this share.
            casts: With casts to float32 made casts to float64.
        """
        self.captured, self.widen, self.seed, self.size, self.casts = captured, widen, seed, size, casts
        self._names = [spec.name for spec in captured.inputs]

    @functools.cached_property
    def _module(self) -> nn.Module:
        """The network that every sequence starts from; widened once, as copies share its weights.

        Copies of a TorchScript network share nothing: it is widened anew each time.
        """
        from torch.jit import ScriptModule

        module = self.captured.module
        if not self.widen or isinstance(module, ScriptModule):
            return module
        return copy_module_for_calls(module).double()

    def start(self) -> Runner:
        """Return a runner that starts with the checkpoint's state."""
        module = copy_module_for_calls(self._module)
        if self.seed is not None:
            return rounding_errors.rounding_errors_runner(
                module, lambda network: call_runner(network, False, self._names), self.seed, self.size
            )
        run = call_runner(module.double() if self.widen else module, self.widen, self._names)
        return with_widened_casts(run) if self.casts else run

    def untrained_norm(self, samples: Sequence[Sample], outputs: Stacks) -> str:
        """Return the name of a batch norm that never saw what reaches it; empty when none is found."""
        module = copy_module_for_calls(self.captured.module)
        return untrained_norm(module, lambda net: call_runner(net, False, self._names), samples, outputs)

    def sequence(self, samples: Sequence[Sample]) -> list[Sample]:
        """Call the network on the samples, one after the other."""
        run = self.start()
        return [run(sample) for sample in samples]

    def sequences(self, samples: Sequence[Sample]) -> list[list[Sample]]:
        """Do the same; return nothing where the network refuses a changed sample."""
        with contextlib.suppress(Exception):  # the model's own code may raise anything
            return [self.sequence(samples)]
        return []


def widest_reference_network(
    captured: Captured, samples: Sequence[Sample]
) -> tuple[ReferenceNetwork, tuple[str, ...]]:
    """Return the network in float64; in float32, with a note, where its code insists on float32."""
    network = ReferenceNetwork(captured, widen=True)
    reason = _narrow_reference_network(network, samples)
    if not reason:
        return network, ()
    network = ReferenceNetwork(captured, widen=True, casts=True)
    if not _narrow_reference_network(network, samples):
        return network, ()
    note = f"The reference is eager float32, not float64: the model does not run in float64 ({reason})."
    return ReferenceNetwork(captured, widen=False), (note,)


def _narrow_reference_network(network: ReferenceNetwork, samples: Sequence[Sample]) -> str:
    """Return why a network does not compute in float64; an empty string when it does."""
    try:
        run = network.start()
        outputs = [output for sample in samples for output in run(sample)]
    except (CaptureError, TypeError, RuntimeError) as error:
        return first_line_of_call_error(error.__cause__ or error)
    narrow = any(o.dtype.name in ("float32", "complex64") for o in outputs)
    return "its output stays float32" if narrow else ""


def single_reference_network(
    captured: Captured, exact: ReferenceNetwork, samples: Sequence[Sample]
) -> ReferenceNetwork:
    """Return the network in float32, whose distance from the reference is float32's own error.

    Where the reference itself is float32, the network is rounded anew: against itself it would have no error.
    """
    single = ReferenceNetwork(captured, widen=False)
    if exact.widen:
        return single
    anew = ReferenceNetwork(captured, widen=False, seed=0, size=rounding_errors.STEP)
    return anew if anew.sequences(samples) else single
