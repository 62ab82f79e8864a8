"""Checks the graph of a `torch.export` archive before torch turns it into Python.

torch builds source code from the graph's names, evaluates its shape expressions with sympy (which is
`eval`), looks operators up by any dotted path below `torch`, and imports what a tree specification names.
So every string of the graph must be what it claims to be, or the file is refused.
"""

from __future__ import annotations

import ast
import json
import math
import re
from typing import Any

from exporter.errors import BoundsError, CheckpointError, CodeInFileError

IDENTIFIER = re.compile(r"(?!__)[A-Za-z_]\w*|", re.ASCII)
DOTTED = re.compile(r"(?!__)\w+(\.\w+)*|", re.ASCII)
VERSION = re.compile(r"[\w.+<=-]*", re.ASCII)

DOTTED_KEYS = frozenset({"parameter_name", "buffer_name", "tensor_constant_name", "user_input_name", "fqn"})
FREE_TEXT_KEYS = frozenset({"as_string", "as_strings"})
"""Arguments such as einsum's equation: torch writes them as quoted literals."""

KEPT_METADATA = ("stack_trace", "nn_module_stack", "torch_fn")
"""Plain strings that say where a node came from; the others make torch look objects up."""

NAMESPACES = "aten|prims|quantized_decomposed|torchvision|torchao|dim_order_ops"
HIGHER_ORDER = "cond|while_loop|map_impl|scan|associative_scan|wrap_with_set_grad_enabled|wrap_with_autocast"
ARITHMETIC = (
    "add|sub|mul|floordiv|truediv|mod|neg|pow|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|lshift|rshift"
)
OPERATORS = re.compile(
    rf"torch\.ops\.(?:{NAMESPACES})\.(?!save\b|from_file\b|load_tensor\b)\w+\.\w+"
    rf"|torch\.ops\.higher_order\.(?:{HIGHER_ORDER})"
    rf"|_operator\.(?:{ARITHMETIC})|torch\._?sym_\w+|math\.(?:floor|ceil|trunc|sqrt)",
    re.ASCII,
)

EXPRESSION_NAMES = frozenset(
    {
        "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Mod", "Max", "Min", "Eq", "Equality", "Ne",
        "Unequality", "Le", "LessThan", "Lt", "StrictLessThan", "Ge", "GreaterThan", "Gt",
        "StrictGreaterThan", "And", "Or", "Not", "floor", "ceiling", "FloorDiv", "ModularIndexing", "Where",
        "PythonMod", "CleanDiv",
        "CeilToInt", "FloorToInt", "CeilDiv", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt",
        "RoundToInt", "ToFloat", "Identity", "True", "False", "true", "false", "oo", "int_oo", "zoo", "nan",
    }
)  # fmt: skip
EXPRESSION_NODES = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.UnaryOp, ast.USub, ast.BinOp,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Compare, ast.Eq, ast.NotEq, ast.Lt,
    ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
"""No powers: a tower of them never finishes."""

TREE_TYPES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})

TRUST = "Pass --trust if you trust whoever made the file."


def sanitize_exported_program_json(program: bytes) -> bytes:
    """The graph with what could run taken out, as torch may safely read it.

    Args:
        program: `models/<name>.json` of the archive.

    Returns:
        The same JSON without guards and foreign metadata, and with every tensor on the CPU.

    Raises:
        CheckpointError: A string is no name, operator, expression or tree specification of a plain model.
    """
    return json.dumps(_sanitize_exported_program_json(json.loads(program), "")).encode()


def _sanitize_exported_program_json(value: Any, key: str) -> Any:
    if key == "guards_code":
        return []  # Python source, which `ExportedProgram.module` would run.
    if key == "metadata":
        metadata = value if isinstance(value, dict) else {}
        return {name: metadata[name] for name in KEPT_METADATA if isinstance(metadata.get(name), str)}
    if key in ("device", "as_device"):
        return {"type": "cpu", "index": None}
    if isinstance(value, dict):
        return {
            _exported_program_json_name(name, "."): _sanitize_exported_program_json(item, name)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_sanitize_exported_program_json(item, key) for item in value]
    return _exported_program_json_text(value, key) if isinstance(value, str) else value


def _exported_program_json_text(value: str, key: str) -> str:
    if key in FREE_TEXT_KEYS:
        return value
    if key in ("target", "as_operator"):
        return _exported_program_json_matching(OPERATORS, value, "operator")
    if key == "expr_str":
        return _exported_program_json_expression(value)
    if key in ("in_spec", "out_spec"):
        return _exported_program_json_tree(value)
    if key == "torch_version":
        return _exported_program_json_matching(VERSION, value, "version")
    return _exported_program_json_name(value, "." if key in DOTTED_KEYS else "")


def _exported_program_json_name(value: str, separator: str) -> str:
    return _exported_program_json_matching(DOTTED if separator else IDENTIFIER, value, "name")


def _exported_program_json_matching(pattern: re.Pattern[str], value: str, noun: str) -> str:
    if not pattern.fullmatch(value):
        raise CodeInFileError(
            f"The exported program has the {noun} {value[:80]!r}, which a plain model never has.", TRUST
        )
    return value


MAX_EXPRESSION = 4_000
MAX_NODES = 600
MAX_NESTING = 100
MAX_TERMS = 1_000
"""Bounds on one size's expression: sympy expands products of sums, and simplifies what it nests."""


def _exported_program_json_expression(value: str) -> str:
    if len(value) > MAX_EXPRESSION:
        raise BoundsError(
            f"The exported program has a size of {len(value)} characters, expected {MAX_EXPRESSION} at most.",
            "Export it again with fixed shapes.",
        )
    try:
        nodes = list(ast.walk(ast.parse(value, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"The exported program has the size {value[:80]!r}, which is no expression."
        ) from error
    if not all(map(_is_exported_program_json_harmless, nodes)):
        raise CodeInFileError(
            f"The exported program has the size {value[:80]!r}, expected sums and products of symbols.", TRUST
        )
    if len(nodes) > MAX_NODES or max(_exported_program_json_expression_terms(nodes[0])) > 1:
        raise BoundsError(
            f"The exported program has the size {value[:80]!r}, which takes too long to simplify.",
            "Export it again with fixed shapes.",
        )
    return value


def _exported_program_json_expression_terms(node: ast.AST) -> tuple[float, float]:
    """How many terms an expression has once its products are expanded, and how deep it nests.

    Both as shares of what is allowed.
    """
    inside = [_exported_program_json_expression_terms(child) for child in ast.iter_child_nodes(node)]
    deepest = max((nesting for _, nesting in inside), default=0.0)
    counts = [max(terms * MAX_TERMS, 1) for terms, _ in inside]
    match node:
        case ast.Call(func=ast.Name(id="Mul")) | ast.BinOp(op=ast.Mult()):
            terms = math.prod(counts)
        case ast.Call() | ast.BinOp() | ast.Expression():
            terms = sum(counts)
        case _:
            terms = 1
    return terms / MAX_TERMS, deepest + 1 / MAX_NESTING


def _is_exported_program_json_harmless(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name):
            return name in EXPRESSION_NAMES or re.fullmatch(r"[suzf]+\d+", name) is not None
        case ast.Call(func=function):
            return isinstance(function, ast.Name)
        case ast.Constant(value=str(text)):
            return re.fullmatch(r"-?[\w.]{1,40}", text, re.ASCII) is not None
        case ast.Constant(value=number):
            return isinstance(number, int | float) and abs(number) < 2**64
    return isinstance(node, EXPRESSION_NODES)


def _exported_program_json_tree(value: str) -> str:
    parsed = json.loads(value)
    match parsed:
        case [1, dict(root)]:
            _check_exported_program_json_tree(root)
            return value
    raise CodeInFileError("The exported program nests its inputs in an unknown way.", TRUST)


def _check_exported_program_json_tree(node: dict[str, Any]) -> None:
    if node.get("type") not in TREE_TYPES:
        raise CodeInFileError(
            f"The exported program takes or returns a {str(node.get('type'))[:80]!r}, expected tensors in "
            "plain tuples, lists and dictionaries.",
            TRUST,
        )
    context = node.get("context")
    keys = json.loads(context) if isinstance(context, str) and context else context
    if keys is not None and not (isinstance(keys, list) and all(isinstance(k, str | int) for k in keys)):
        raise CodeInFileError("The exported program nests its inputs in an unknown way.", TRUST)
    for child in node.get("children_spec", ()):
        _check_exported_program_json_tree(child)
