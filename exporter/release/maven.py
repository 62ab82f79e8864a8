"""Write a Maven repository with one library in the layout of `maven-publish`: POM, metadata, checksums.

There is no `.module` file: Gradle's own metadata only adds variants, and this library has one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape

from exporter.release import aar
from exporter.release.plan import Plan
from exporter.report.manifest.schema import Artifact

FOLDER = "maven"
METADATA = "maven-metadata.xml"
ALGORITHMS = ("md5", "sha1", "sha256", "sha512")
"""Every file gets a checksum of each; the first two are for old clients, which know no others."""
RUNTIMES = {
    "executorch": ("org.pytorch", "executorch-android", "executorch"),
    "onnx": ("com.microsoft.onnxruntime", "onnxruntime-android", "onnxruntime"),
    "torchscript": ("org.pytorch", "pytorch_android_lite", ""),
}
"""Format -> group and artifact of its runtime on Android, and the package whose version it must have."""


def write_maven(plan: Plan, directory: Path, scratch: Path) -> None:
    """Write the repository with the Android library; do nothing when no artifact is for Android."""
    if plan.android is None:
        return
    path = directory / FOLDER / maven_library_path(plan.request.group, plan.name, plan.request.version)
    path.parent.mkdir(parents=True)
    aar.write_aar(plan, path, scratch)
    pom = path.with_name(f"{plan.title}.pom")
    pom.write_bytes(_maven_pom(plan, plan.android).encode())
    metadata = path.parents[1] / METADATA
    metadata.write_bytes(_maven_metadata(plan).encode())
    for file in (path, pom, metadata):
        _add_maven_checksums(file)


def maven_library_path(group: str, name: str, version: str) -> str:
    """Return the library's path in the repository."""
    return f"{group.replace('.', '/')}/{name}/{version}/{name}-{version}.aar"


def maven_file_names(group: str, name: str, version: str) -> set[str]:
    """List every file of the repository."""
    path = PurePosixPath(maven_library_path(group, name, version))
    described = (str(path), f"{str(path).removesuffix('.aar')}.pom", str(path.parents[1] / METADATA))
    return {f"{file}{suffix}" for file in described for suffix in ("", *(f".{a}" for a in ALGORITHMS))}


def _add_maven_checksums(path: Path) -> None:
    for algorithm in ALGORITHMS:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))  # noqa: B023
        path.with_name(f"{path.name}.{algorithm}").write_bytes(digest.hexdigest().encode())


def maven_coordinates(plan: Plan) -> str:
    return f"{plan.request.group}:{plan.name}:{plan.request.version}"


def _maven_pom(plan: Plan, artifact: Artifact) -> str:
    listed = plan.manifest
    summary = f"{listed.source.architecture} as {artifact.name}, by export-mobile."
    description = " ".join((summary, *plan.overridden, *plan.not_measured))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<project xmlns="http://maven.apache.org/POM/4.0.0"\n'
        '    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"\n'
        '    xsi:schemaLocation="http://maven.apache.org/POM/4.0.0 http://maven.apache.org/xsd/maven-4.0.0.xsd">\n'
        "  <modelVersion>4.0.0</modelVersion>\n"
        f"  <groupId>{plan.request.group}</groupId>\n"
        f"  <artifactId>{plan.name}</artifactId>\n"
        f"  <version>{plan.request.version}</version>\n"
        "  <packaging>aar</packaging>\n"
        f"  <name>{plan.name}</name>\n"
        f"  <description>{escape(description)}</description>\n"
        f"{_maven_dependencies(plan, artifact)}"
        "</project>\n"
    )


def _maven_dependencies(plan: Plan, artifact: Artifact) -> str:
    """Write the runtime as an optional dependency: the app chooses the build, and sees the version."""
    group, name, package = RUNTIMES[artifact.format]
    version = plan.manifest.tool.get(package, "").partition("+")[0]
    if not version:
        return ""
    name += "-vulkan" if artifact.backend == "vulkan" else ""
    return (
        "  <dependencies>\n    <dependency>\n"
        f"      <groupId>{group}</groupId>\n      <artifactId>{name}</artifactId>\n"
        f"      <version>{escape(version)}</version>\n      <type>aar</type>\n      <scope>runtime</scope>\n"
        "      <optional>true</optional>\n    </dependency>\n  </dependencies>\n"
    )


def _maven_metadata(plan: Plan) -> str:
    version = plan.request.version
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<metadata>\n'
        f"  <groupId>{plan.request.group}</groupId>\n  <artifactId>{plan.name}</artifactId>\n"
        f"  <versioning>\n    <latest>{version}</latest>\n    <release>{version}</release>\n"
        f"    <versions>\n      <version>{version}</version>\n    </versions>\n"
        f"    <lastUpdated>{plan.date:%Y%m%d%H%M%S}</lastUpdated>\n  </versioning>\n</metadata>\n"
    )
