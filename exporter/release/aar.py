"""Write the Android library: the model as an asset, and the files that Gradle's plugin requires of an AAR.

Layout: https://developer.android.com/studio/projects/android-library#aar-contents; classes.jar, res/ and
R.txt are what older plugins call mandatory (http://tools.android.com/tech-docs/new-build-system/aar-format).
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import quoteattr

from exporter import files
from exporter.release import zip as archive
from exporter.release.plan import Plan

METADATA = "META-INF/com/android/build/gradle/aar-metadata.properties"
ANDROID_MANIFEST = "AndroidManifest.xml"
SYMBOLS = "R.txt"
JAR = "classes.jar"
FIXED = (ANDROID_MANIFEST, SYMBOLS, JAR, METADATA)
"""The files of every library, except the model."""
PROPERTIES = """\
aarFormatVersion=1.0
aarMetadataVersion=1.0
minCompileSdk=1
minCompileSdkExtension=0
minAndroidGradlePluginVersion=1.0.0
coreLibraryDesugaringEnabled=false
"""
"""The file that the Android Gradle Plugin 8 writes for a library without requirements."""
MIN_SDK = 21
"""The minimum SDK. A merger without one assumes 1, and adds the permissions that old apps had implicitly."""
JAR_MANIFEST_NAME = "META-INF/MANIFEST.MF"
JAR_MANIFEST = b"Manifest-Version: 1.0\r\n\r\n"


def write_aar(plan: Plan, path: Path, scratch: Path) -> None:
    """Write the library with `plan.android` in `assets/<name>/`.

    Args:
        plan: A plan with an artifact for Android.
        path: The AAR.
        scratch: A folder for the files that go into it.
    """
    artifact = plan.android
    assert artifact is not None
    jar = scratch / JAR
    _aar_empty_jar(jar, plan.date)
    asset = aar_asset_path(plan.name, str(artifact.file))
    contents: dict[str, archive.Content] = {
        ANDROID_MANIFEST: _aar_manifest(plan).encode(),
        SYMBOLS: b"",
        JAR: jar,
        "res/": b"",
        METADATA: PROPERTIES.encode(),
        **{f"{asset}{part}": file for part, file in files.files_of_artifact(plan.path(artifact)).items()},
    }
    archive.write_zip(path, contents, plan.date)


def aar_asset_path(name: str, file: str) -> str:
    """Return the model's path in the AAR. Its own folder keeps two models of one app apart."""
    return f"assets/{name}/{file}"


def _aar_empty_jar(path: Path, date: datetime) -> None:
    """Write a jar without classes: the runtime has them all, but an AAR needs a jar, and a jar a manifest."""
    archive.write_zip(path, {JAR_MANIFEST_NAME: JAR_MANIFEST}, date)


def _aar_manifest(plan: Plan) -> str:
    package = f"{plan.request.group}.{re.sub('[^a-z0-9_]', '_', plan.name)}"
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<manifest xmlns:android="http://schemas.android.com/apk/res/android"\n'
        f"    package={quoteattr(package)}>\n\n"
        f'    <uses-sdk android:minSdkVersion="{MIN_SDK}" />\n\n'
        "</manifest>\n"
    )
