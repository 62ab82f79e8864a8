"""Write the Swift package: the model as a resource, and a source file that finds and loads it."""

from __future__ import annotations

import re
from pathlib import Path

from exporter.files import copy_file_or_folder
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
        // Copied unchanged: the device compiles it, so the files stay those that were verified.
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

    /// The released .mlpackage, unchanged.
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
"""Format -> iOS and macOS: Core ML packages are made for iOS 16 (`coreml_convert.py`), ExecuTorch's own
package asks for iOS 17."""


def swift_module(name: str) -> str:
    """Return the name of a model's Swift module: mobilenet_v2 is "MobilenetV2Model"."""
    return "".join(part.capitalize() for part in re.split("[_-]", name)) + "Model"


def swift_sources(name: str) -> tuple[str, str]:
    """Return the paths of the package's two source files, below `FOLDER`."""
    own = swift_module(name)
    return f"{own}/Package.swift", f"{own}/Sources/{own}/{own}.swift"


def swift_resource(name: str, file: str) -> str:
    """Return the model's path in its package, below `FOLDER`."""
    own = swift_module(name)
    return f"{own}/Sources/{own}/Resources/{file}"


def write_swift(plan: Plan, directory: Path) -> None:
    """Write the package as a folder; do nothing when no artifact is for Apple's systems."""
    artifact = plan.apple
    if artifact is None:
        return
    package, code = (directory / FOLDER / file for file in swift_sources(plan.name))
    source = plan.path(artifact)
    target = directory / FOLDER / swift_resource(plan.name, str(artifact.file))
    target.parent.mkdir(parents=True)
    ios, macos = PLATFORMS[artifact.format]
    words = {"module": swift_module(plan.name), "file": str(artifact.file), "ios": ios, "macos": macos}
    package.write_bytes(PACKAGE.format(**words).encode())
    code.write_bytes(_swift_source(plan, artifact).encode())
    copy_file_or_folder(source, target)


def _swift_source(plan: Plan, artifact: Artifact) -> str:
    template = CORE_ML if artifact.format == "coreml" else EXECUTORCH
    return template.format(
        title=plan.title,
        architecture=re.sub(r"[^\w.:/ -]", "?", plan.manifest.source.architecture),
        module=swift_module(plan.name),
        version=plan.request.version,
        file=artifact.file,
    )
