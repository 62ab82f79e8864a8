"""Write load-and-run code for the bundle: the report's snippets, with the model's place in the libraries."""

from __future__ import annotations

from dataclasses import replace

from exporter import files
from exporter.release import aar, maven, swift
from exporter.release.plan import Plan
from exporter.report.manifest import restore
from exporter.report.snippets import Libraries
from exporter.report.snippets import make_snippets as of_report

FOLDER = "snippets"
GRADLE = """\
// settings.gradle.kts
// dependencyResolutionManagement {{ repositories {{ maven {{ url = uri("maven") }} }} }}
// build.gradle.kts
// dependencies {{ implementation("{coordinates}") }}
// android {{ androidResources {{ noCompress += {suffixes} }} }}
"""
PACKAGE = "// Xcode: File, Add Package Dependencies, Add Local: {folder}/{module}\n"


def release_snippet_files(plan: Plan) -> dict[str, bytes]:
    """Return name -> code for each platform that a chosen artifact runs on."""
    report = restore.restore_report(plan.manifest)
    sources: dict[str, bytes] = {}
    if plan.android:
        libraries = Libraries(
            asset=aar.aar_asset_path(plan.name, str(plan.android.file)).removeprefix("assets/")
        )
        names = [path.name for path in files.files_of_artifact(plan.path(plan.android)).values()]
        suffixes = ", ".join(f'"{suffix}"' for suffix in sorted({name.rpartition(".")[2] for name in names}))
        listed = suffixes if len(names) == 1 else f"listOf({suffixes})"
        head = GRADLE.format(coordinates=maven.maven_coordinates(plan), suffixes=listed)
        shown = of_report(replace(report, selected=plan.android.name), libraries)
        sources |= {
            f"{FOLDER}/LoadAndRun.kt": f"{head}{s.code}\n".encode() for s in shown if "Kotlin" in s.title
        }
    if plan.apple:
        module = swift.swift_module(plan.name)
        head = PACKAGE.format(folder=swift.FOLDER, module=module)
        shown = of_report(replace(report, selected=plan.apple.name), Libraries(module=module))
        mine = [s for s in shown if "Swift" in s.title and s.file == plan.apple.file]
        sources |= {f"{FOLDER}/LoadAndRun.swift": f"{head}{s.code}\n".encode() for s in mine}
    return sources
