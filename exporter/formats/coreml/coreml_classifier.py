"""Makes a package a classifier, which gives a label and each label's probability beside the model's outputs.

Xcode and Vision know such packages: `VNClassificationObservation` has the label and its confidence. The
scores stay an output, so that nothing of the model is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.errors import LoweringError
from exporter.formats.coreml import coreml_edit
from exporter.formats.coreml.coreml_package import coremltools_quietly_for_package
from exporter.records import Array, Captured
from exporter.verify.contract import classes_by_contract, classified_by_contract

LABEL, PROBABILITIES = "classLabel", "classLabel_probs"
"""The names that coremltools gives these outputs, and so those that iOS developers know."""
TOLERANCE = 1e-3
"""How far a probability may be from that of the scores."""
_MOVES = frozenset({"cast", "expand_dims", "identity", "reshape", "squeeze"})
_PROBABLE = frozenset({"softmax", "sigmoid"})


@dataclass(frozen=True)
class Classifier:
    """The classifier in a package, by the names of its values."""

    label: str
    probabilities: str
    scores: str
    """The output whose scores are classified."""
    classes: tuple[str, ...]
    normalized: bool
    """Whether the scores are probabilities already, so that no softmax is between."""

    def check(self, values: Mapping[str, Any]) -> None:
        """Compare the label and the probabilities of one call with the scores.

        Args:
            values: Every output by name.

        Raises:
            ValueError: They are not what the scores say.
        """
        import numpy as np

        label, given = values[self.label], values[self.probabilities]
        if tuple(given) != self.classes:
            raise ValueError("its classifier gives probabilities of other classes than it lists")
        expected = _coreml_classifier_probabilities(
            np.asarray(values[self.scores], np.float64).reshape(-1), self.normalized
        )
        actual = np.array(list(given.values()), np.float64)
        if not np.allclose(actual, expected, rtol=0, atol=TOLERANCE, equal_nan=True):
            worst = int(np.abs(actual - expected).argmax())
            raise ValueError(
                f"its classifier gives {self.classes[worst]!a} the probability {actual[worst]:.3f}, "
                f"its scores {expected[worst]:.3f}"
            )
        if given.get(label) != max(given.values()):
            raise ValueError(f"its classifier predicts {label!a}, which is not the most probable class")


def _coreml_classifier_probabilities(scores: Array, normalized: bool) -> Array:
    import numpy as np

    if normalized:
        return scores
    powers = np.exp(scores - scores.max())
    probabilities: Array = powers / powers.sum()
    return probabilities


def add_coreml_classifier(spec: Any, captured: Captured) -> None:
    """Add a classifier where the model has labels and one output of their scores, in place."""
    output = classified_by_contract(captured.outputs, captured.about.labels)
    if output is None:
        return
    block = coreml_edit.coreml_edited_block(spec)
    scores = spec.description.output[captured.outputs.index(output)].name
    probabilities = (
        scores
        if _is_coreml_classifier_possible(block, scores)
        else _softmax_for_coreml_classifier(spec, scores)
    )
    names = (
        coreml_edit.unused_coreml_edit_name(spec, LABEL),
        coreml_edit.unused_coreml_edit_name(spec, PROBABILITIES),
    )
    block.operations.append(
        _coreml_classifier_operator(probabilities, names, classes_by_contract(captured.about.labels))
    )
    block.outputs.extend(names)
    label, table = spec.description.output.add(name=names[0]), spec.description.output.add(name=names[1])
    label.type.stringType.SetInParent()
    label.shortDescription = "The label of the most probable class."
    table.type.dictionaryType.stringKeyType.SetInParent()
    table.shortDescription = "The probability of each label."
    spec.description.predictedFeatureName, spec.description.predictedProbabilitiesName = names


def _is_coreml_classifier_possible(block: Any, name: str) -> bool:
    """Tell whether a value is a softmax or a sigmoid, or only another shape or type of one."""
    makers = {output.name: operation for operation in block.operations for output in operation.outputs}
    while name in makers and makers[name].type in _MOVES:
        name = makers[name].inputs["x"].arguments[0].name
    return name in makers and makers[name].type in _PROBABLE


def _softmax_for_coreml_classifier(spec: Any, scores: str) -> str:
    import numpy as np

    block = coreml_edit.coreml_edited_block(spec)
    (value,) = [
        output for operation in block.operations for output in operation.outputs if output.name == scores
    ]
    axis = coreml_edit.unused_coreml_edit_name(spec, f"{scores}_axis")
    probabilities = coreml_edit.unused_coreml_edit_name(spec, f"{scores}_probabilities")
    block.operations.append(coreml_edit.coreml_edit_constant(axis, np.array(-1, np.int32)))
    block.operations.append(
        coreml_edit.coreml_edit_call("softmax", {"x": scores, "axis": axis}, {probabilities: value.type})
    )
    return probabilities


def _coreml_classifier_operator(probabilities: str, names: tuple[str, str], classes: Sequence[str]) -> Any:
    from coremltools.converters.mil.backend.mil import helper

    mil = coremltools_quietly_for_package().proto.MIL_pb2
    text = helper.create_scalar_value("").type
    table = mil.ValueType()
    table.dictionaryType.keyType.CopyFrom(text)
    table.dictionaryType.valueType.tensorType.dataType = mil.DataType.FLOAT64
    operation = coreml_edit.coreml_edit_call(
        "classify", {"probabilities": probabilities}, {names[0]: text, names[1]: table}
    )
    listed = helper.create_list_scalarvalue(list(classes), str)
    operation.inputs["classes"].arguments.add().value.CopyFrom(listed)
    return operation


def read_coreml_classifier(spec: Any) -> Classifier | None:
    """Return the classifier in a package; None where it has none.

    Raises:
        LoweringError: Its description and its program differ about it.
    """
    description, block = spec.description, coreml_edit.coreml_edited_block(spec)
    calls = [operation for operation in block.operations if operation.type == "classify"]
    named = (description.predictedFeatureName, description.predictedProbabilitiesName)
    others = [f.name for f in description.output if f.type.WhichOneof("Type") != "multiArrayType"]
    if not calls and not any(named) and not others:
        return None
    if len(calls) != 1 or not ([output.name for output in calls[0].outputs] == list(named) == others):
        raise LoweringError("Its description and its program differ about the classifier's outputs.")
    read = calls[0].inputs["probabilities"].arguments[0].name
    makers = {output.name: operation for operation in block.operations for output in operation.outputs}
    normalized = read in block.outputs
    scores = read if normalized else makers[read].inputs["x"].arguments[0].name
    if scores not in block.outputs or (not normalized and makers[read].type != "softmax"):
        raise LoweringError(f"Its classifier reads {read}, which is no output and no softmax of one.")
    return Classifier(*named, scores, _classes_of_coreml_classifier(block, calls[0]), normalized)


def _classes_of_coreml_classifier(block: Any, call: Any) -> tuple[str, ...]:
    binding = call.inputs["classes"].arguments[0]
    if binding.WhichOneof("binding") == "value":
        value = binding.value
    else:
        (value,) = [
            operation.attributes["val"]
            for operation in block.operations
            if operation.outputs and operation.outputs[0].name == binding.name
        ]
    return tuple(item.immediateValue.tensor.strings.values[0] for item in value.immediateValue.list.values)
