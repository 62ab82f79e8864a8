"""Any change that can change an artifact changes its key in the cache."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.capture.digest import digest_program


class Everything(nn.Module):
    """A network with weights, a buffer, a constant, numbers, and graphs nested in graphs."""

    def __init__(self, inner: float = 3.0, outer: float = 2.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 4)
        self.register_buffer("scale", torch.rand(4))
        self.register_buffer("shift", torch.rand(4), persistent=False)
        self.offset = torch.arange(4) * 0.5
        self.inner, self.outer = inner, outer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x) * self.scale + self.shift + self.offset
        y = nn.functional.leaky_relu(y, 0.1)
        return torch.cond(y.sum() > 0, self.rare, lambda t: t - self.outer, (y,))  # type: ignore[no-any-return]

    def rare(self, y: Tensor) -> Tensor:
        return torch.cond(y.max() > 1, lambda t: t * self.inner, lambda t: t + 1.0, (y,))  # type: ignore[no-any-return]


def exported(net: nn.Module | None = None) -> torch.export.ExportedProgram:
    return torch.export.export((net or Everything()).eval(), (torch.ones(1, 6),))


def graphs(program: torch.export.ExportedProgram) -> list[fx.GraphModule]:
    return [m for m in program.graph_module.modules() if isinstance(m, fx.GraphModule)]


def mutated_arguments(node: fx.Node) -> Iterator[Callable[[], None]]:
    """Yield a change of every argument that is a number."""
    for position, value in enumerate(node.args):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield functools.partial(node.update_arg, position, value + 1)


def test_the_same_network_has_the_same_digest(tmp_path: Any) -> None:
    """A program that is exported again, copied, or saved and loaded keeps its digest."""
    program = exported()
    assert digest_program(program) == digest_program(exported(copy.deepcopy(Everything()))) != ""
    torch.export.save(program, tmp_path / "program.pt2")
    assert digest_program(torch.export.load(tmp_path / "program.pt2")) == digest_program(program)


def test_every_number_in_every_nested_graph_counts() -> None:
    """Each argument, mutated alone, changes the digest, down to the branch of a branch."""
    program = exported()
    assert len(graphs(program)) == 5
    seen = {digest_program(program)}
    mutations = 0
    for index, graph in enumerate(graphs(program)):
        for position, node in enumerate(graph.graph.nodes):
            for number, _ in enumerate(mutated_arguments(node)):
                changed = copy.deepcopy(program)
                other = list(graphs(changed)[index].graph.nodes)[position]
                list(mutated_arguments(other))[number]()
                seen.add(digest_program(changed))
                mutations += 1
    assert mutations >= 6
    assert len(seen) == mutations + 1


def test_every_operator_in_every_nested_graph_counts() -> None:
    """A branch that adds where it multiplied is another network."""
    program = exported()
    seen, swapped = {digest_program(program)}, 0
    swap = {
        torch.ops.aten.mul.Tensor: torch.ops.aten.add.Tensor,
        torch.ops.aten.add.Tensor: torch.ops.aten.sub.Tensor,
    }
    for index, graph in enumerate(graphs(program)):
        for position, node in enumerate(graph.graph.nodes):
            if node.target in swap:
                changed = copy.deepcopy(program)
                list(graphs(changed)[index].graph.nodes)[position].target = swap[node.target]
                seen.add(digest_program(changed))
                swapped += 1
    assert swapped >= 4
    assert len(seen) == swapped + 1


def test_every_tensor_counts_to_its_last_bit() -> None:
    """Weights, buffers (those not in the state_dict too), and constants change the digest."""
    program = exported()
    names = [*program.state_dict, *program.constants]
    assert {"layer.weight", "layer.bias", "scale", "shift", "offset"} <= set(names)
    seen = {digest_program(program)}
    for name in names:
        changed = copy.deepcopy(program)
        holder = changed.state_dict if name in changed.state_dict else changed.constants
        with torch.no_grad():
            flat = holder[name].data.reshape(-1)
            flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf))
        seen.add(digest_program(changed))
    assert len(seen) == len(names) + 1


@pytest.mark.parametrize("change", ["dtype", "shape", "layout"])
def test_a_tensors_kind_counts(change: str) -> None:
    """Equal bytes in another dtype, shape or memory layout make another file."""
    program = exported()
    weight = program.state_dict["layer.weight"].detach()
    changed = {
        "dtype": weight.view(torch.int32),
        "shape": weight.reshape(2, 12),
        "layout": weight.t().contiguous().t(),
    }[change]
    other = copy.deepcopy(program)
    other.state_dict["layer.weight"] = changed
    assert digest_program(other) != digest_program(program)


def test_what_an_output_is_for_counts() -> None:
    """The same graph may give an output to the caller, or keep it in a buffer."""
    program = exported()
    before = digest_program(program)
    program.graph_signature.output_specs[0].target = "scale"
    assert digest_program(program) not in ("", before)


@pytest.mark.parametrize("form", ["none", "tanh"])
def test_an_option_by_its_name_counts(form: str) -> None:
    """PyTorch keeps some arguments by name: GELU's form, a type, how a division rounds."""
    net = nn.Sequential(nn.Linear(2, 2), nn.GELU(approximate=form))
    program = torch.export.export(net.eval(), (torch.ones(1, 2),))
    named = [node for node in program.graph.nodes if node.kwargs]
    assert len(named) == (form == "tanh")
    before = digest_program(program)
    for node in named:
        node.kwargs = {**node.kwargs, "approximate": "none"}
    assert (digest_program(program) == before) == (not named)


@pytest.mark.parametrize("name", ["inner", "outer"])
def test_an_edited_branch_is_another_network(name: str) -> None:
    """A constant that is edited in the source changes the digest."""
    assert digest_program(exported(Everything(**{name: 5.0}))) != digest_program(exported())


def test_what_it_does_not_know_has_no_digest() -> None:
    """An unknown value makes the digest empty, so that nothing is cached under a wrong key."""
    program = exported()
    program.constants["odd"] = object()
    assert digest_program(program) == ""


class Swapped(nn.Module):
    """A network with two branches that are the same but for their order."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda t: t + self.first, lambda t: t + self.second, (x,))  # type: ignore[no-any-return]


def test_exchanged_branches_are_another_network() -> None:
    """The digest has each nested graph where it stands, not only that it is there."""
    assert digest_program(exported(Swapped(1.0, 2.0))) != digest_program(exported(Swapped(2.0, 1.0)))


def scripted(weight: float) -> torch.jit.ScriptModule:
    module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, weight)
    nn.init.zeros_(module.bias)
    return torch.jit.script(module)


def test_a_script_module_counts_with_its_weights() -> None:
    """A constant that TorchScript holds changes the digest by any of its values."""
    digests = []
    for weight in (1.0, 1.0, 2.0):
        program = exported(Swapped(1.0, 2.0))
        program.constants["scripted"] = scripted(weight)
        digests.append(digest_program(program))
    assert digests[0] == digests[1] != ""
    assert digests[2] not in ("", digests[0])


def test_no_program_has_no_digest() -> None:
    """Nothing is cached under an empty key."""
    assert digest_program(None) == ""


def test_a_value_that_contains_itself_has_no_digest() -> None:
    """The walk ends, and nothing is cached; a value that comes twice is no such circle."""
    program = exported(Swapped(1.0, 2.0))
    twice = [1, 2]
    program.constants["twice"] = (twice, twice)
    assert digest_program(program) != ""
    twice.append(twice)  # type: ignore[arg-type]
    assert digest_program(program) == ""
