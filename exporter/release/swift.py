"""The Swift package: the model as a resource, and a source file that finds and loads it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from exporter.release.plan import Plan
from exporter.report.manifest.schema import Artifact

FOLDER = "swift"
PACKAGE = """\
// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "{module}",
    platforms: [.iOS(.v{ios}), .macOS(.v{macos})],
    products: [.library(name: "{module}", targets: ["{module}"])],
    targets: [
        // Copied as it is: compiling belongs to the device, and keeps the files those that were verified.
        .target(name: "{module}", resources: [.copy("Resources/{file}")])
    ]
)
"""
CORE_ML = """\
import CoreML
import Foundation

/// {title}, made by export-mobile from {architecture}.
public enum {module} {{
    public static let version = "{version}"

    /// The .mlpackage as it was released.
    public static var package: URL {{
        Bundle.module.url(forResource: "{file}", withExtension: nil)!
    }}

    /// Compiles the model and loads it. Compiling takes a moment: keep the result, or the compiled folder.
    public static func load(configuration: MLModelConfiguration = MLModelConfiguration()) throws -> MLModel {{
        let compiled = try MLModel.compileModel(at: package)
        return try MLModel(contentsOf: compiled, configuration: configuration)
    }}
}}
"""
EXECUTORCH = """\
import Foundation

/// {title}, made by export-mobile from {architecture}.
public enum {module} {{
    public static let version = "{version}"

    /// The path for ExecuTorch's `Module(filePath:)`.
    public static var path: String {{
        Bundle.module.path(forResource: "{file}", ofType: nil)!
    }}
}}
"""
PLATFORMS = {"coreml": ("16", "13"), "executorch": ("17", "12")}
"""Format -> iOS and macOS: Core ML packages are made for iOS 16 (`formats/coreml/convert.py`), ExecuTorch's
own package asks for iOS 17."""


def module(plan: Plan) -> str:
    """mobilenet_v2 is "MobilenetV2Model"."""
    return "".join(part.capitalize() for part in re.split("[_-]", plan.name)) + "Model"


def write(plan: Plan, directory: Path) -> None:
    """Write the package as a folder; does nothing when no artifact is for Apple's systems."""
    artifact = plan.apple
    if artifact is None:
        return
    name = module(plan)
    root = directory / FOLDER / name
    sources = root / "Sources" / name
    (sources / "Resources").mkdir(parents=True)
    ios, macos = PLATFORMS[artifact.format]
    words = {"module": name, "file": str(artifact.file), "ios": ios, "macos": macos}
    (root / "Package.swift").write_bytes(PACKAGE.format(**words).encode())
    (sources / f"{name}.swift").write_bytes(_source(plan, artifact).encode())
    source, target = plan.path(artifact), sources / "Resources" / str(artifact.file)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _source(plan: Plan, artifact: Artifact) -> str:
    template = CORE_ML if artifact.format == "coreml" else EXECUTORCH
    return template.format(
        title=plan.title,
        architecture=re.sub(r"[^\w.:/ -]", "?", plan.manifest.source.architecture),
        module=module(plan),
        version=plan.request.version,
        file=artifact.file,
    )
