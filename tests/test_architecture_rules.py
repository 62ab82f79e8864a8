"""Tests of the architecture: imports point one way, frameworks load in workers, only the CLI prints."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import android_harness
import exporter

ROOT = Path(exporter.__file__).parent
MODULES = {
    ".".join(("exporter", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

TIERS = (
    {"exporter.__main__", "exporter.cli"},
    {"exporter.nightly", "exporter.release"},
    {"exporter.bench"},
    {"exporter.pipeline"},
    {
        "exporter.architectures",
        "exporter.data",
        "exporter.emulated",
        "exporter.estimate",
        "exporter.formats",
        "exporter.report",
    },
    {"exporter.capture", "exporter.checkpoints", "exporter.config"},
    {"exporter.android", "exporter.quantize", "exporter.verify"},
    {
        "exporter.array_file",
        "exporter.files",
        "exporter.temporary_files",
        "exporter.records",
        "exporter.staging",
    },
    {"exporter.errors", "exporter.sandbox"},
)
"""First to last: a module imports only from its own tier and from later ones.

The package root re-exports the public names and has no tier: nothing inside the package imports it.
"""
MAX_TIERS = 9

TORCH_AT_THE_TOP = {
    "exporter.architectures.detector_heads",
    "exporter.architectures.instance_heads",
    "exporter.architectures.region_crops",
    "exporter.architectures.region_heads",
    "exporter.architectures.dictionary_inputs",
    "exporter.architectures.huggingface.key_value_cache",
    "exporter.architectures.huggingface.wrapper_modules",
    "exporter.capture.calls",
    "exporter.capture.digest",
    "exporter.capture.replaced_clocks",
    "exporter.capture.dynamic_shapes",
    "exporter.capture.photo_resize",
    "exporter.capture.embedded_preprocessing",
    "exporter.capture.explicit_state",
    "exporter.capture.folded_weights",
    "exporter.capture.forced_draws",
    "exporter.capture.random_generators",
    "exporter.capture.captured_program",
    "exporter.capture.other_roundings",
    "exporter.capture.other_ties",
    "exporter.capture.randomness",
    "exporter.capture.float64_reference",
    "exporter.capture.scripted",
    "exporter.capture.state",
    "exporter.capture.sigmoid_trials",
    "exporter.capture.untrained_norms",
    "exporter.capture.widened_casts",
    "exporter.formats.coreai.coreai_float16",
    "exporter.formats.coreml.interpreter.activations",
    "exporter.formats.coreml.interpreter.arrangements",
    "exporter.formats.coreml.interpreter.mil_call",
    "exporter.formats.coreml.interpreter.convolutions",
    "exporter.formats.coreml.interpreter.elementwise",
    "exporter.formats.coreml.interpreter.matrix_products",
    "exporter.formats.coreml.interpreter.norms",
    "exporter.formats.coreml.interpreter.ordering",
    "exporter.formats.coreml.interpreter.pooling",
    "exporter.formats.coreml.interpreter.mil_program",
    "exporter.formats.coreml.interpreter.mil_recurrent",
    "exporter.formats.coreml.interpreter.reductions",
    "exporter.formats.coreml.interpreter.resizing",
    "exporter.formats.coreml.interpreter.table",
    "exporter.formats.lookalike_runners",
    "exporter.formats.simulation",
    "exporter.quantize.int8_scheme",
    "exporter.quantize.dynamic_int8",
    "exporter.quantize.own_operands",
    "exporter.quantize.rounding_ties",
    "exporter.quantize.float_head",
    "exporter.quantize.float_operators",
    "exporter.quantize.cross_layer_equalization",
    "exporter.quantize.equalization_choice",
    "exporter.quantize.graphs",
    "exporter.quantize.integer",
    "exporter.quantize.index_arithmetic",
    "exporter.quantize.magnitudes",
    "exporter.quantize.mixed_precision",
    "exporter.quantize.data_movement",
    "exporter.quantize.batch_norms",
    "exporter.quantize.constant_arithmetic",
    "exporter.quantize.matmul_layers",
    "exporter.quantize.embeddings",
    "exporter.quantize.error_probes",
    "exporter.quantize.layer_correction",
    "exporter.quantize.moment_factor",
    "exporter.quantize.activation_ranges",
    "exporter.quantize.recurrent_cells",
    "exporter.quantize.recurrent_float",
    "exporter.quantize.recurrent_weights",
    "exporter.quantize.weight_rounding",
    "exporter.quantize.channel_spread",
    "exporter.quantize.sensitivity",
    "exporter.quantize.float_tail",
    "exporter.quantize.weights_only",
    "exporter.pipeline.workers.preload",
}
"""Modules that only worker processes import."""
FRAMEWORKS = {
    "coreai",
    "coreai_torch",
    "coremltools",
    "executorch",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxruntime_qnn",
    "onnxscript",
    "torch",
    "torchao",
    "torchvision",
}
MAY_SPEAK = ("exporter.cli", "exporter.data.demo", "exporter.report")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((MODULES | HARNESS)[module].read_text(encoding="utf-8"))


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node: ast.AST, functions: bool = True) -> Iterator[ast.AST]:
    """Yield the nodes that run below a node; `functions=False` yields only those that run on import."""
    for child in ast.iter_child_nodes(node):
        if is_for_types(child) or (
            not functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ):
            continue
        yield child
        yield from walk(child, functions)


@cache
def imports(module: str, functions: bool = True) -> frozenset[str]:
    """Return the full names of the modules that a module imports."""
    imported: set[str] = set()
    for node in walk(tree(module), functions):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write imports out in full"
            base = str(node.module)
            names = {f"{base}.{alias.name}" for alias in node.names}
            imported |= {name if name in MODULES else base for name in names}
    return frozenset(imported)


def tier(module: str) -> int:
    """Return the tier of a module, or of the package that contains it."""
    names = {module, *(module.rsplit(".", i)[0] for i in range(1, module.count(".")))}
    (index,) = (i for i, members in enumerate(TIERS) if members & names)
    return index


def test_there_are_few_tiers_of_existing_modules() -> None:
    """Every rule names an existing module, and there are at most 9 tiers."""
    assert set().union(*TIERS) <= set(MODULES)
    assert len(TIERS) <= MAX_TIERS


def packages(module: str, functions: bool = True) -> set[str]:
    """Return the names of the packages that a module imports from."""
    return {name.split(".")[0] for name in imports(module, functions)}


def test_imports_point_one_way() -> None:
    """No module imports from an earlier tier, and none imports the package root."""
    wrong = {
        (module, name)
        for module in MODULES.keys() - {"exporter"}
        for name in imports(module)
        if name.split(".")[0] == "exporter" and (name == "exporter" or tier(name) < tier(module))
    }
    assert not wrong


def test_frameworks_are_imported_inside_functions() -> None:
    """The command line starts at once, and a broken framework affects no other."""
    allowed = {module: {"torch", "torchao", "torchvision"} for module in TORCH_AT_THE_TOP}
    top = {module: packages(module, functions=False) & FRAMEWORKS for module in MODULES}
    assert {module: names for module, names in top.items() if not names <= allowed.get(module, set())} == {}


CALLS_THAT_SPEAK = {"print", "sys.exit", "exit", "quit"}


def calls_that_speak(module: str) -> set[str]:
    """Return the calls of a module that print, other than to stderr, or that exit."""
    return {
        ast.unparse(node)
        for node in walk(tree(module))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in CALLS_THAT_SPEAK
        and "stderr" not in ast.unparse(node)  # a worker's stderr is export.log
    }


def test_only_the_command_line_prints_and_exits() -> None:
    """A library that prints cannot be used from another program."""
    silent = [module for module in MODULES if not module.startswith(MAY_SPEAK)]
    assert {module: calls for module in silent if (calls := calls_that_speak(module))} == {}
    assert [module for module in silent if "typer" in packages(module)] == []


TALK_TO_DEVICES = {
    "exporter.bench",
    "exporter.bench.bench_storing",
    "exporter.cli",
    "exporter.cli.device",
    "exporter.cli.history_filter",
    "exporter.cli.history",
    "exporter.nightly.comparing",
    "exporter.nightly.devices",
    "exporter.nightly.night_judging",
    "exporter.nightly.night_measuring",
    "exporter.nightly.night_rows",
    "exporter.nightly.night_run",
    "exporter.nightly.night_scalars",
    "exporter.nightly.night_views",
    "exporter.nightly.writing",
    "exporter.cli.doctor.phone",
    "exporter.bench.bench_artifacts",
    "exporter.emulated.arm_tools",
    "exporter.emulated.run",
}
"""Emulation runs the harness' runner, and no device."""


def test_only_bench_imports_the_harness() -> None:
    """Exporting does not import the harness."""
    assert {module for module in MODULES if "android_harness" in packages(module)} == TALK_TO_DEVICES


HARNESS_ROOT = Path(android_harness.__file__).parent
HARNESS = {
    ".".join(("android_harness", *path.relative_to(HARNESS_ROOT).with_suffix("").parts)): path
    for path in sorted(HARNESS_ROOT.rglob("*.py"))
}
HEAVY = {"adbutils", "alembic", "numpy", "pyarrow", "ruptures", "scipy", "sqlalchemy"}
AT_THE_TOP = {"android_harness.adb_client": {"adbutils"}} | {
    f"android_harness.history.{name}": {"sqlalchemy"}
    for name in ("database", "pruning", "table_rows", "schema", "store", "tables")
}
"""Modules that are imported only when a device or a history is used."""
MIGRATIONS = "android_harness.history.migrations."
"""Modules that Alembic imports."""
HARNESS_MAY_SPEAK = {"android_harness.simulator.__main__"}


def test_the_harness_knows_neither_frameworks_nor_the_exporter() -> None:
    """The harness imports neither frameworks nor the exporter."""
    unknown = FRAMEWORKS | {"exporter", "typer", "rich"}
    assert {module: names for module in HARNESS if (names := packages(module) & unknown)} == {}


def test_the_harness_imports_heavy_packages_inside_functions() -> None:
    """The command line imports the harness, and must start at once."""
    quick = [module for module in HARNESS if not module.startswith(MIGRATIONS)]
    top = {module: (packages(module, functions=False) & HEAVY) for module in quick}
    assert {
        module: names for module, names in top.items() if not names <= AT_THE_TOP.get(module, set())
    } == {}


def test_nothing_of_the_harness_imports_what_is_heavy_at_the_top() -> None:
    """No module of the harness imports a heavy module at the top."""
    importers = {
        module
        for module in HARNESS
        for node in walk(tree(module), functions=False)
        if isinstance(node, ast.Import | ast.ImportFrom) and _full_names(node) & AT_THE_TOP.keys()
        if module not in AT_THE_TOP and not module.startswith(MIGRATIONS)
    }
    assert not importers


def _full_names(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}


def test_the_harness_neither_prints_nor_exits() -> None:
    """The harness reports through observers, records and exceptions."""
    speaking = {
        module
        for module in HARNESS.keys() - HARNESS_MAY_SPEAK
        for node in walk(tree(module))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS_THAT_SPEAK
    }
    assert not speaking


def test_no_imports_of_the_harness_form_a_circle() -> None:
    """No imports, also inside functions, form a circle."""
    graph = {module: _imported_from_the_harness(module) for module in HARNESS}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError and names the circle


def _imported_from_the_harness(module: str) -> set[str]:
    """Return the modules of the harness that a module imports, also for annotations."""
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & HARNESS.keys()
            names |= submodules or {str(node.module)}
    return {name if name in HARNESS else f"{name}.__init__" for name in names} & HARNESS.keys()
