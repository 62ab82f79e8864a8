"""Makes torch's random operators draw chosen values: both ends of their distribution, and mixtures.

A value is chosen as a quantile between 0 and 1, which each distribution turns into a number that it can draw:
a coin that always falls on one side still does.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exporter.capture.lowering_errors import is_lowering_error_of_user

LOW, HIGH = 2.0**-24, 1 - 2.0**-24
"""The quantiles at both ends: the least that float32 tells from 0 and from 1."""
LEVELS = (LOW, *(eighth / 8 for eighth in range(1, 8)), HIGH)
UNWRITTEN = frozenset(
    {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
)
"""Operators that give memory as it is, with whatever an earlier call left there."""
UNWRITTEN_TRIALS = 3
"""Patterns that are tried where a network takes fresh memory and draws nothing: most write to it at once."""
FARTHEST_NORMAL = 8.0
"""How many standard deviations from the mean the ends of a normal distribution are."""

Pattern = Callable[[int, int], Tensor]
"""Makes the quantiles of a draw from the draw's position in the call and its number of values."""


@dataclass(frozen=True)
class Draw:
    """Where a network draws random numbers, or reads a clock."""

    operator: str
    source: str | None
    """`file:line` of the user's code, where known."""
    action: str = "draws random numbers"


def forced_draw_patterns() -> list[Pattern]:
    """List patterns of quantiles, those that show most networks' draws first."""
    ends = ((LOW, HIGH), (HIGH, LOW))
    return [
        *(_ramp_forced_draws(*pair) for pair in ends),
        *(_cycle_forced_draws((level,)) for level in LEVELS),
        *(_cycle_forced_draws(pair) for pair in ends),
        *(_mix_forced_draws(seed, whole) for whole in (False, True) for seed in range(4)),
    ]


def _ramp_forced_draws(first: float, last: float) -> Pattern:
    """Vary along each draw, so that a softmax of it is not uniform."""
    return lambda _, count: torch.linspace(first, last, count, dtype=torch.float64)


def _cycle_forced_draws(levels: Sequence[float]) -> Pattern:
    """Give each draw one level, and the next draw the next level."""
    return lambda position, count: torch.full((count,), levels[position % len(levels)], dtype=torch.float64)


def _mix_forced_draws(seed: int, whole: bool) -> Pattern:
    """Mix the levels at random, within each draw or from draw to draw (`whole`)."""

    def quantiles(position: int, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + position)
        choice = torch.randint(len(LEVELS), (1 if whole else count,), generator=generator)
        return torch.tensor(LEVELS, dtype=torch.float64)[choice].expand(count).clone()

    return quantiles


def operator_forced_draws(
    operator: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bool:
    """Tell whether a call of an operator draws: dropout in eval mode, for one, does not."""
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return False
    values = _forced_draw_arguments(operator, args, kwargs)
    if values.get("train") is False or values.get("training") is False:
        return False
    return not any(values.get(name) == 0 for name in ("dropout_p", "dropout") if name in values)


def _forced_draw_arguments(
    operator: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Name the arguments of a call, with the defaults."""
    schema = operator._schema.arguments
    defaults = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    given = zip([argument.name for argument in schema], args, strict=False)
    return {**defaults, **dict(given), **kwargs}


def forced_draw_name(operator: torch._ops.OpOverload) -> str:
    """Name an operator: "aten.rand"."""
    return operator._schema.name.replace("::", ".")


class ForcedDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes random operators draw a pattern's values, and remembers the lines that called them."""

    def __init__(self, pattern: Pattern) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pattern = pattern
        self.draws: list[Draw] = []
        self.unwritten: list[Draw] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, torch._ops.OpOverload) and func._opname in UNWRITTEN:
            return self._leave_unwritten(func, func(*args, **(kwargs or {})))
        if not isinstance(func, torch._ops.OpOverload) or not operator_forced_draws(func, args, kwargs or {}):
            return func(*args, **(kwargs or {}))
        values = _forced_draw_arguments(func, args, kwargs or {})
        # An operator that works in place overwrites its arguments.
        values = {key: v.clone() if isinstance(v, Tensor) else v for key, v in values.items()}
        result = func(*args, **(kwargs or {}))
        self._force(func._opname.rstrip("_"), values, result)
        self.draws.append(_caller_of_forced_draw(forced_draw_name(func)))
        return result

    def _leave_unwritten(self, operator: torch._ops.OpOverload, memory: Tensor) -> Tensor:
        """Fill fresh memory with a pattern that no two calls share; whole numbers below 100, and NaN."""
        quantiles = self.pattern(len(self.unwritten), memory.numel()).reshape(memory.shape)
        if memory.is_floating_point():
            memory.copy_(torch.where(quantiles >= HIGH, math.nan, quantiles))
        else:
            memory.copy_(100 * quantiles)
        self.unwritten.append(
            replace(
                _caller_of_forced_draw(forced_draw_name(operator)),
                action="reads memory that nothing has written",
            )
        )
        return memory

    def _force(self, operator: str, values: dict[str, Any], result: Any) -> None:
        distribution = DISTRIBUTIONS.get(operator.removesuffix("_like"))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if operator == "native_dropout":
            kept = self._quantiles(tensors[1]) >= values["p"]
            tensors[0].copy_(values["input"] * kept / max(1 - values["p"], LOW))
            tensors[1].copy_(kept)
        elif distribution is not None:
            tensors[0].copy_(distribution(values, self._quantiles(tensors[0]), tensors[0]))
        else:
            for tensor in tensors:
                if tensor.is_floating_point():
                    tensor.copy_(self._quantiles(tensor))

    def _quantiles(self, tensor: Tensor) -> Tensor:
        return self.pattern(len(self.draws), tensor.numel()).reshape(tensor.shape)


def _forced_draw_uniform(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    first: float
    last: float
    first, last = values.get("from", 0.0), values.get("to", 1.0)
    below_one = 1 - torch.finfo(result.dtype).eps / 2
    return first + (last - first) * quantiles.clamp(max=below_one)


def _forced_draw_deviations(quantiles: Tensor) -> Tensor:
    """Turn quantiles into numbers of standard deviations."""
    far = torch.where(quantiles < 0.5, -FARTHEST_NORMAL, FARTHEST_NORMAL)
    end = (quantiles <= LOW) | (quantiles >= HIGH)
    return torch.where(end, far, torch.special.ndtri(quantiles))


def _forced_draw_normal(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    return values.get("mean", 0.0) + values.get("std", 1.0) * _forced_draw_deviations(quantiles)  # type: ignore[no-any-return]


def _forced_draw_exponential(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    return -torch.log1p(-quantiles) / values["lambd"]  # type: ignore[no-any-return]


def _forced_draw_cauchy(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    return values["median"] + values["sigma"] * torch.tan(math.pi * (quantiles - 0.5))  # type: ignore[no-any-return]


def _forced_draw_geometric(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    failure = max(1 - values["p"], LOW)
    return torch.ceil(torch.log1p(-quantiles) / min(math.log(failure), -LOW)).clamp(min=1)


def _forced_draw_bernoulli(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    chance = values["p"] if values.get("p") is not None else values["self"]
    ones: Tensor = quantiles < chance
    return ones.double()


def _forced_draw_integers(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    first = values.get("low", values.get("from")) or 0
    end = values.get("high", values.get("to"))
    last = int(end) - 1 if end is not None else _largest_forced_draw(result.dtype)
    numbers = first + torch.floor((last - first + 1) * quantiles)
    return numbers.to(torch.int64).masked_fill(quantiles >= HIGH, last)


def _largest_forced_draw(dtype: torch.dtype) -> int:
    """Return the largest integer that `random_` draws without limits."""
    if dtype == torch.bool:
        return 1
    return 2**11 if dtype.is_floating_point else int(torch.iinfo(dtype).max)


def _forced_draw_permutation(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    count = quantiles.numel()
    if not count:
        return result
    order = torch.arange(count).roll(int(quantiles[0] * count))
    return order.flip(0) if quantiles[0] > 0.5 else order


def _forced_draw_multinomial(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    weights = values["self"].double()
    if values["replacement"]:
        sums = weights.cumsum(-1)
        return torch.searchsorted(sums, quantiles * sums[..., -1:], right=True).clamp(max=sums.shape[-1] - 1)
    # Each category waits for a time of its own, the shorter the heavier it is; the first ones are drawn.
    spread = torch.linspace(LOW, HIGH, weights.shape[-1], dtype=torch.float64)
    spread = spread if quantiles.flatten()[0] < 0.5 else spread.flip(-1)
    waits = torch.where(weights > 0, -torch.log(spread) / weights, math.inf)
    return waits.argsort(-1)[..., : result.shape[-1]]


def _forced_draw_poisson(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    rate = values["self"].double()
    number = rate + rate.sqrt() * _forced_draw_deviations(quantiles)
    return torch.where(quantiles > 0.5, number.ceil(), number.floor()).clamp(min=0)


def _forced_draw_binomial(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    count, chance = values["count"].double(), values["prob"].double()
    certain = (chance <= 0) | (chance >= 1)
    return torch.where(certain, count * chance, (count * quantiles).round())


def _forced_draw_gamma(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    return values["self"].double() * _forced_draw_deviations(quantiles).exp()  # type: ignore[no-any-return]


def _forced_draw_dirichlet(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    weights = _forced_draw_gamma(values, quantiles, result)
    return weights / weights.sum(-1, keepdim=True)


def _forced_draw_rrelu(values: dict[str, Any], quantiles: Tensor, result: Tensor) -> Tensor:
    slope: Tensor = values["lower"] + (values["upper"] - values["lower"]) * quantiles
    return torch.where(values["self"] <= 0, values["self"] * slope, values["self"])


DISTRIBUTIONS: Mapping[str, Callable[[dict[str, Any], Tensor, Tensor], Tensor]] = {
    "rand": _forced_draw_uniform,
    "uniform": _forced_draw_uniform,
    "randn": _forced_draw_normal,
    "normal": _forced_draw_normal,
    "normal_functional": _forced_draw_normal,
    "log_normal": lambda *call: _forced_draw_normal(*call).exp(),
    "exponential": _forced_draw_exponential,
    "cauchy": _forced_draw_cauchy,
    "geometric": _forced_draw_geometric,
    "bernoulli": _forced_draw_bernoulli,
    "randint": _forced_draw_integers,
    "random": _forced_draw_integers,
    "randperm": _forced_draw_permutation,
    "multinomial": _forced_draw_multinomial,
    "poisson": _forced_draw_poisson,
    "binomial": _forced_draw_binomial,
    "_standard_gamma": _forced_draw_gamma,
    "_sample_dirichlet": _forced_draw_dirichlet,
    "rrelu_with_noise": _forced_draw_rrelu,
}
"""Turns quantiles into drawn values, by operator without `_` and `_like`; others draw the quantiles."""


WRAPPERS = ("__torch_dispatch__", "_call_impl", "_wrapped_call_impl", "forward", "inner", "_fn")
"""Functions of torch that only pass a call on."""


def _caller_of_forced_draw(operator: str) -> Draw:
    """Name the function that the user's line calls (`dropout`), or else the operator."""
    frames = traceback.extract_stack()[:-2]
    inner = ""
    for frame in reversed(frames):
        if is_lowering_error_of_user(frame.filename):
            return Draw(f"{operator} (in {inner})" if inner else operator, f"{frame.filename}:{frame.lineno}")
        if frame.name not in WRAPPERS:
            inner = frame.name
    return Draw(operator, None)
