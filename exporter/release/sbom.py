"""Write the CycloneDX ML-BOM: the model, its model card, its data, its files and their toolchain.

cyclonedx-python-lib has no `modelCard` yet (CycloneDX/cyclonedx-python-lib#912): it writes everything else,
the card is put into its JSON, and its validator judges the whole.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import files
from exporter.errors import VerificationError
from exporter.records import TensorSpec
from exporter.release import release_extra
from exporter.release.plan import Plan
from exporter.report.manifest.schema import Artifact

if TYPE_CHECKING:
    from cyclonedx.model import HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

MODEL = "model"
"""The bom-ref of the model itself."""
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/capabilities/mlbom/")


def sbom_document(plan: Plan) -> bytes:
    """Return the BOM as CycloneDX 1.6 JSON, with the same bytes for the same plan.

    Raises:
        MissingDependencyError: cyclonedx-python-lib is not installed.
        VerificationError: The result is not valid CycloneDX.
    """
    release_extra.need_release_extra("cyclonedx.validation.json", "A CycloneDX BOM")
    from cyclonedx.output.json import JsonV1Dot6

    written: dict[str, Any] = json.loads(JsonV1Dot6(_make_sbom(plan)).output_as_string())
    written["metadata"]["component"]["modelCard"] = _sbom_model_card(plan)
    text = json.dumps(written, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    validate_sbom(text)
    return text.encode()


def validate_sbom(text: str) -> None:
    """Validate a BOM by CycloneDX' own schema.

    Raises:
        MissingDependencyError: cyclonedx-python-lib is not installed.
        VerificationError: It is not valid.
    """
    release_extra.need_release_extra("jsonschema", "Checking a CycloneDX BOM")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise VerificationError(f"The BOM is not valid CycloneDX 1.6: {str(error)[:300]}.")


def _make_sbom(plan: Plan) -> Bom:
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    model = _sbom_model(plan)
    files = [_sbom_file(artifact, plan.path(artifact)) for artifact in plan.manifest.artifacts]
    tools = [
        _sbom_package(name, version)
        for name, version in plan.manifest.tool.items()
        if name != "export_mobile"
    ]
    own = Component(
        name="export-mobile", version=plan.manifest.tool.get("export_mobile"), type=ComponentType.APPLICATION
    )
    metadata = BomMetaData(component=model, timestamp=plan.date, tools=ToolRepository(components=[own]))
    source = _sbom_source(plan)
    bom = Bom(metadata=metadata, components=[*files, *tools, source], serial_number=_sbom_serial(plan))
    bom.register_dependency(model, files)
    for file in files:
        bom.register_dependency(file, [source, *tools])
    return bom


def _sbom_serial(plan: Plan) -> uuid.UUID:
    """Derive the serial number from the content: the same release has the same number."""
    return uuid.uuid5(NAMESPACE, f"{plan.request.group}:{plan.title}:{plan.date.isoformat()}\n{plan.text}")


def _sbom_model(plan: Plan) -> Component:
    from cyclonedx.model import AttachedText, Property
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense

    licences = []
    if plan.request.licence:
        text = plan.request.licence.read_text("utf-8", "replace")
        title = next((line.strip() for line in text.splitlines() if line.strip()), "see the text")
        licences = [DisjunctiveLicense(name=title[:100], text=AttachedText(content=text))]
    properties = {
        "export-mobile:target": plan.manifest.target.name,
        "export-mobile:budget_ms": f"{plan.manifest.budget_ms:g}",
        "export-mobile:budget": plan.manifest.verdict.budget,
    }
    return Component(
        bom_ref=MODEL,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        group=plan.request.group,
        name=plan.name,
        version=plan.request.version,
        licenses=licences,
        properties=[Property(name=name, value=value) for name, value in properties.items()],
    )


def _sbom_file(artifact: Artifact, path: Path) -> Component:
    """Describe an artifact: by its hash where it is a file, by that of each of its files where a folder."""
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    properties = {"status": artifact.status, "precision": artifact.precision, "backend": artifact.backend}
    # A folder's digest is over its sorted relative paths and contents: no file's hash, so not among hashes.
    folder = path.is_dir()
    if folder:
        properties["sha256-of-folder"] = str(artifact.sha256)
    parts = files.files_of_artifact(path) if folder else {}
    return Component(
        bom_ref=f"artifact/{artifact.name}",
        type=ComponentType.FILE,
        name=str(artifact.file),
        hashes=[] if folder else [_sbom_sha256(str(artifact.sha256))],
        components=[
            Component(
                bom_ref=f"artifact/{artifact.name}{part}",
                type=ComponentType.FILE,
                name=f"{artifact.file}{part}",
                hashes=[_sbom_sha256(files.digest_file(file))],
            )
            for part, file in parts.items()
        ],
        properties=[Property(name=f"export-mobile:{n}", value=v) for n, v in properties.items()],
    )


def _sbom_sha256(digest: str) -> HashType:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _sbom_source(plan: Plan) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    source = plan.manifest.source
    return Component(
        bom_ref="checkpoint",
        type=ComponentType.FILE,
        name=source.file,
        description=f"The trained weights ({source.kind}); not part of the release.",
        hashes=[_sbom_sha256(source.sha256)],
    )


def _sbom_package(name: str, version: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        bom_ref=f"pypi/{name}",
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=PackageURL("pypi", None, name.replace("_", "-"), version),
    )


def _sbom_model_card(plan: Plan) -> dict[str, Any]:
    """Write CycloneDX' model card: https://cyclonedx.org/docs/1.6/json/#metadata_component_modelCard."""
    listed = plan.manifest
    limitations = [*plan.overridden, *plan.not_measured, *plan.not_verified, *listed.warnings]
    return {
        "modelParameters": {
            "modelArchitecture": listed.source.architecture,
            "datasets": [
                _sbom_dataset("calibration", listed.calibration.kind, listed.calibration.count),
                _sbom_dataset("verification", listed.evidence.kind, listed.evidence.count),
            ],
            "inputs": _sbom_formats(listed.inputs),
            "outputs": _sbom_formats(listed.outputs),
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [m for artifact in listed.artifacts for m in _sbom_metrics(artifact)]
        },
        **({"considerations": {"technicalLimitations": limitations}} if limitations else {}),
    }


def _sbom_dataset(name: str, kind: str, count: int) -> dict[str, Any]:
    facts = {"kind": kind, "count": str(count)}
    properties = [{"name": f"export-mobile:{key}", "value": value} for key, value in facts.items()]
    return {"type": "dataset", "name": name, "contents": {"properties": properties}}


def _sbom_formats(specs: Iterable[TensorSpec]) -> list[dict[str, str]]:
    return [{"format": f"{spec.name}: {spec.dtype} {list(spec.shape)}"} for spec in specs]


def _sbom_metrics(artifact: Artifact) -> list[dict[str, str]]:
    """List what was measured, with the artifact as the slice; what was not measured is left out."""
    verification, host, device = artifact.verification, artifact.host_latency, artifact.device_latency
    values: dict[str, float | None] = {
        "max_error": verification.max_error if verification else None,
        "sqnr_db": verification.sqnr_db if verification else None,
        "top1_agreement": verification.top1_agreement if verification else None,
        "accuracy_top1": artifact.accuracy.top1 if artifact.accuracy else None,
        "host_latency_p50_ms": host.p50_ms if host else None,
        "size_bytes": artifact.size_bytes,
    }
    rows = {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
        if value is not None
    }
    if device and device.evidence == "measured":
        rows["device_latency_p90_ms"] = f"{device.p90_ms:g}"
    return [{"type": name, "value": value, "slice": artifact.name} for name, value in rows.items()]
