"""Any change that can change an artifact changes its key in the cache."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.capture.digest import _Digest, digest_program


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


def test_the_same_network_has_the_same_digest(tmp_path: Any) -> None:
    """A program that is exported again, copied, or saved and loaded keeps its digest."""
    program = exported()
    assert digest_program(program) == digest_program(exported(copy.deepcopy(Everything()))) != ""
    torch.export.save(program, tmp_path / "program.pt2")
    assert digest_program(torch.export.load(tmp_path / "program.pt2")) == digest_program(program)


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


class Recurring(nn.Module):
    """Has a loop, a map with a branch in its body, and a table that the loop's body reads."""

    def __init__(self, **edited: Any) -> None:
        super().__init__()
        values = {"limit": 3, "step": 0.5, "factor": 2.0, "eps": 1e-5, "dtype": torch.float64, "start": 1}
        self.values = {**values, **edited}
        self.register_buffer("table", torch.arange(6.0), persistent=False)

    table: Tensor

    def forward(self, x: Tensor) -> Tensor:
        from torch._higher_order_ops.map import map as map_of_torch

        values, map_rows, while_loop = self.values, cast("Any", map_of_torch), cast("Any", torch.while_loop)

        def body(row: Tensor) -> Tensor:
            def near(t: Tensor) -> Tensor:
                return nn.functional.layer_norm(t, (6,), eps=values["eps"])

            def far(t: Tensor) -> Tensor:
                return t.to(values["dtype"]).cumsum(0).to(torch.float32)

            return torch.cond(row.sum() > values["factor"], near, far, (row,)).clone()  # type: ignore[no-any-return]

        def step(i: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, y * self.table[values["start"] :].mean() + values["step"]

        rows = map_rows(body, x)
        return while_loop(lambda i, y: i < values["limit"], step, (torch.tensor(0), rows))[1]  # type: ignore[no-any-return]


class Options(nn.Module):
    """Calls operators with texts, types, lists, flags, nothing at all, slices and names."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = torch.arange(4.0).reshape(1, 1, 2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = torch.einsum("ab,cb->ac", x, x).to(torch.float16)
        z = nn.functional.pad(x, (1, 0), value=0.25)[:, ::2].flip(1)
        strides, zeros = [1, 1], [0, 0]
        w = torch.convolution(x[None, None], self.kernel, None, strides, zeros, strides, False, zeros, 1)
        return y, z, w, nn.functional.gelu(x, approximate="tanh").sum(1, keepdim=True), x.clamp(min=0.5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "branches in a branch": Everything,
    "a loop, a map and a branch in the map": Recurring,
    "arguments of every kind": Options,
}
GRAPHS = dict(zip(NETWORKS, (5, 6, 1), strict=True))
"""How many graphs each has, with those nested in it."""


def exported_network(net: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(net.eval(), (torch.linspace(-1, 2, 18).reshape(3, 6),))


def changed_value(value: Any) -> Iterator[Any]:
    """Yield an argument with one part of it changed, for every part."""
    if isinstance(value, tuple | list):
        for place, item in enumerate(value):
            for other in changed_value(item):
                yield type(value)([*value[:place], other, *value[place + 1 :]])
    elif isinstance(value, slice):
        for name in ("start", "stop", "step"):
            bounds = {"start": value.start, "stop": value.stop, "step": value.step}
            yield slice(*{**bounds, name: 77}.values())
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
    elif isinstance(value, str):
        yield value + "x"
    elif isinstance(value, torch.dtype):
        yield torch.int8
    elif value is None:
        yield 0


class Place(NamedTuple):
    """An argument of a node: its position, or its name."""

    node: fx.Node
    key: int | str

    @property
    def value(self) -> Any:
        return self.node.args[self.key] if isinstance(self.key, int) else self.node.kwargs[self.key]

    def put(self, value: Any) -> None:
        if isinstance(self.key, int):
            self.node.args = (*self.node.args[: self.key], value, *self.node.args[self.key + 1 :])
        else:
            self.node.kwargs = {**self.node.kwargs, self.key: value}


def places(program: torch.export.ExportedProgram) -> Iterator[Place]:
    for graph in graphs(program):
        for node in graph.graph.nodes:
            if node.op == "call_function":
                yield from (Place(node, key) for key in (*range(len(node.args)), *node.kwargs))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_part_of_every_argument_counts(name: str) -> None:
    """Each is changed alone, in all nested graphs; so is each node's operator, and which value it reads."""
    program = exported_network(NETWORKS[name]())
    seen = [digest_program(program)]
    assert seen[0] != ""
    assert len(graphs(program)) == GRAPHS[name]
    for place in list(places(program)):
        own = place.value
        for other in changed_value(own):
            place.put(other)
            seen.append(digest_program(program))
        earlier = [node for node in place.node.graph.nodes if node.op == "placeholder" and node is not own]
        if isinstance(own, fx.Node) and earlier:
            place.put(earlier[0])
            seen.append(digest_program(program))
        place.put(own)
    for node in {place.node for place in places(program)}:
        target, node.target = node.target, torch.ops.aten.digamma.default
        seen.append(digest_program(program))
        node.target = target
    assert digest_program(program) == seen[0]
    assert len(seen) > 20
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_value_of_every_tensor_counts(name: str) -> None:
    """Weights, buffers and constants of nested graphs count, also a table that is in no checkpoint."""
    program = exported_network(NETWORKS[name]())
    seen = [digest_program(program)]
    holders: list[Mapping[str, Any]] = [program.state_dict, program.constants]
    tensors = [value.data for holder in holders for value in holder.values()]
    for tensor in tensors:
        for place in range(tensor.numel()):
            flat = tensor.reshape(-1)
            own = flat[place].clone()
            flat[place] += 1
            seen.append(digest_program(program))
            flat[place] = own
    assert digest_program(program) == seen[0]
    assert len(set(seen)) == len(seen) > 1


EDITS: Mapping[str, Any] = {
    "limit": 4, "step": 0.25, "factor": 1.0, "eps": 1e-4, "dtype": torch.float32, "start": 2,
}  # fmt: skip


def test_an_edited_loop_or_map_is_another_network() -> None:
    """A number may be in a loop's condition or body, in a map's body, or in a branch of that."""
    edited = [{}, *({name: value} for name, value in EDITS.items())]
    digests = {digest_program(exported_network(Recurring(**values))) for values in edited}
    assert len(digests - {""}) == len(edited)


def test_the_range_of_a_size_counts() -> None:
    """The same graph for more sizes is another artifact; so is one whose two sizes must be equal."""
    net, example = nn.ReLU(), (torch.ones(3, 3),)

    def digest(*shape: Any) -> str:
        return digest_program(torch.export.export(net, example, dynamic_shapes=(dict(enumerate(shape)),)))

    tops = {"a": 8, "b": 9, "c": 8}
    short, long, other = (torch.export.Dim(name, min=2, max=top) for name, top in tops.items())
    sizes = [digest(short), digest(long), digest(short, other), digest(short, short)]
    assert len({*sizes, digest_program(torch.export.export(net, example))} - {""}) == 5


def test_the_place_of_an_operator_in_the_network_counts() -> None:
    """Reports name an operator by its module, and a module without weights has no other name."""

    def net(name: str) -> nn.Module:
        return nn.Sequential(OrderedDict([("first", nn.Linear(6, 6)), (name, nn.ReLU())]))

    torch.manual_seed(0)
    digests = []
    for name in ("relu", "activation"):
        torch.manual_seed(0)
        digests.append(digest_program(exported_network(net(name))))
    assert digests[0] != digests[1]


def test_how_outputs_are_nested_counts() -> None:
    """A tensor alone is another output than a tuple that holds it."""

    class Returns(nn.Module):
        def __init__(self, nested: bool) -> None:
            super().__init__()
            self.nested = nested

        def forward(self, x: Tensor) -> Any:
            return (x * 2,) if self.nested else x * 2

    assert digest_program(exported_network(Returns(True))) != digest_program(exported_network(Returns(False)))


def test_an_operator_of_the_users_own_has_no_digest() -> None:
    """Its code can be edited while its name stays; a compiler runs it where it folds constants."""

    @torch.library.custom_op("tests_of_digest::scaled", mutates_args=())
    def scaled(x: Tensor) -> Tensor:
        return x * 2

    @scaled.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    class Calls(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, scaled, lambda t: t + 1, (x,))  # type: ignore[no-any-return]

    assert digest_program(exported_network(Calls())) == ""


def test_a_module_of_another_class_counts() -> None:
    """Modules whose attributes are alike differ by what they compute."""
    digests = []
    for module in (nn.Tanh(), nn.Sigmoid(), nn.Tanh()):
        digest = _Digest()
        digest.add(module)
        digests.append(digest.hexdigest())
    assert digests[0] == digests[2] != digests[1]
