"""`android_harness.provenance`: only a proven phone is measured."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from android_harness import latency_stats, provenance
from android_harness.latencies import Latency
from android_harness.provenance import ProvenanceCheck
from android_harness.records import Session
from tests.harness import sessions

ROOT = Path(__file__).parents[2]
FINE = ProvenanceCheck(1e-6, "")
KINDS = {"MeasuredLatency", "SimulatedLatency", "HostLatency"}


def latency_of(session: Session, check: ProvenanceCheck = FINE, budget_ms: float = 15.0) -> Latency:
    return provenance.latency_with_provenance(session, latency_stats.latency_stats(session), check, budget_ms)


def with_identity(**changes: Any) -> Session:
    return sessions.session(identity=sessions.identity(**changes))


def with_launch(**changes: Any) -> Session:
    launches = tuple(sessions.launch(i, **(changes if i == 4 else {})) for i in range(5))
    return sessions.session(launches=launches)


def test_a_proven_phone_is_measured() -> None:
    """Every proof together makes the evidence "measured", and 8 ms meet a budget of 15."""
    entry = provenance.provenance_to_manifest(latency_of(sessions.session()))
    assert (entry["evidence"], entry["verdict"]) == ("measured", "pass")


UNPROVEN: dict[str, Session] = {
    "doubt": with_identity(doubts=("There is no /system/build.prop.",)),
    "x86": with_identity(machine="x86_64"),
    "other cores": with_identity(parts=sessions.PARTS[:4]),
    "linux runner": with_launch(runner={**sessions.RUNNER, "os": "linux"}),
    "x86 runner": with_launch(runner={**sessions.RUNNER, "arch": "x86_64"}),
    "silent runner": with_launch(runner={}),
    "runner's machine": with_launch(machine="x86_64"),
    "no machine": with_launch(machine=""),
    "runner's cores": with_launch(parts=(("0x41", "0xd0c"),) * 8),
    "no cores": with_launch(parts=()),
}


@pytest.mark.parametrize("case", UNPROVEN)
def test_whatever_is_missing_makes_it_simulated(case: str) -> None:
    """One missing proof is enough, and it is named."""
    entry = provenance.provenance_to_manifest(latency_of(UNPROVEN[case]))
    assert (entry["evidence"], entry["verdict"]) == ("simulated", "not_measured")
    assert entry["device"]["why"]


def test_cores_of_other_makers_prove_nothing() -> None:
    """The cores of a server are consistent but not a phone's."""
    foreign = (("0xc0", "0xac3"),) * 8
    launches = tuple(sessions.launch(i, parts=foreign) for i in range(5))
    session = sessions.session(identity=sessions.identity(parts=foreign), launches=launches)
    assert latency_of(session).evidence == "simulated"


def test_this_machine_is_the_host() -> None:
    """The host is never measured, even if everything else looks like a phone."""
    entry = provenance.provenance_to_manifest(latency_of(with_identity(serial="host")))
    assert (entry["evidence"], entry["verdict"]) == ("host", "not_measured")


@pytest.mark.parametrize(
    ("check", "budget_ms", "expected"),
    [
        (FINE, 5.0, "fail"),
        (FINE, latency_stats.latency_stats(sessions.session()).p90_ms, "inconclusive"),
        (ProvenanceCheck(0.5, "top-1 agrees in 3 of 44"), 15.0, "fail"),
        (ProvenanceCheck(None, ""), 15.0, "inconclusive"),
        (ProvenanceCheck(float("nan"), ""), 15.0, "inconclusive"),
    ],
)
def test_a_measured_verdict_fails_closed(check: ProvenanceCheck, budget_ms: float, expected: str) -> None:
    """Too slow, too close, wrong outputs and unchecked outputs do not pass."""
    assert provenance.verdict_by_provenance(latency_of(sessions.session(), check, budget_ms)) == expected


def test_an_unstable_session_decides_nothing() -> None:
    """8 ms would meet a budget of 15, but the phone was hot."""
    hot = sessions.session(after=sessions.state(thermal_status=1))
    assert provenance.verdict_by_provenance(latency_of(hot)) == "inconclusive"


@settings(max_examples=400)  # mostly proofs, so that often only one is missing
@given(
    doubts=st.sampled_from([*[()] * 6, ("a doubt",), ("", "two")]).map(list),
    machine=st.sampled_from([*["aarch64"] * 6, "x86_64", ""]),
    soc=st.sampled_from([*["SM8250"] * 6, ""]),
    serial=st.sampled_from([*["R5CR30ABCDE"] * 6, "host"]),
    os=st.sampled_from([*["android"] * 6, "linux", ""]),
    arch=st.sampled_from([*["aarch64"] * 6, "x86_64"]),
    reported=st.sampled_from([*["aarch64"] * 6, "x86_64", ""]),
    parts=st.sampled_from([sessions.PARTS, (), sessions.PARTS[:4], (("0x41", "0xd0c"),) * 8]),
    odd=st.integers(0, 4),
)
def test_no_combination_with_a_doubt_is_measured(
    doubts: list[str],
    machine: str,
    soc: str,
    serial: str,
    os: str,
    arch: str,
    reported: str,
    parts: tuple[tuple[str, str], ...],
    odd: int,
) -> None:
    """A latency is measured if and only if every proof is present; nothing else ever passes."""
    runner = {**sessions.RUNNER, "os": os, "arch": arch}
    launches = list(sessions.session().launches)
    launches[odd] = replace(launches[odd], runner=runner, machine=reported, parts=parts)
    who = sessions.identity(doubts=tuple(doubts), machine=machine, soc=soc, serial=serial)
    session = sessions.session(identity=who, launches=tuple(launches))
    entry = provenance.provenance_to_manifest(
        provenance.latency_with_provenance(session, FIGURES, FINE, 15.0)
    )
    proven = (not doubts, machine == reported == arch == "aarch64", serial != "host", os == "android")
    assert (entry["evidence"] == "measured") == (all(proven) and parts == sessions.PARTS)
    assert (entry["verdict"] == "pass") == (entry["evidence"] == "measured")


FIGURES = latency_stats.latency_stats(sessions.session())


def mentions(tree: ast.AST) -> Iterator[str]:
    """Yield where a latency class is used, except in `isinstance`, a `case`, an annotation or an import."""
    allowed: set[int] = set()
    for node in ast.walk(tree):
        spared: list[Any] = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            spared += node.args[1:]
        if isinstance(node, ast.MatchClass):
            spared.append(node.cls)
        allowed |= {id(child) for part in spared if isinstance(part, ast.AST) for child in ast.walk(part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in allowed:
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in KINDS:
                yield f"{name} in line {node.lineno}"
        if isinstance(node, ast.alias) and node.name in KINDS and node.asname:
            yield f"{node.name} under another name"


def test_only_evidence_makes_latencies() -> None:
    """No other module of the harness or the exporter uses a constructor."""
    modules = [*ROOT.glob("android_harness/**/*.py"), *ROOT.glob("exporter/**/*.py")]
    spared = {ROOT / "android_harness/latencies.py", ROOT / "android_harness/provenance.py"}
    uses = {
        path.name: names
        for path in modules
        if path not in spared and (names := list(mentions(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert uses == {}


def test_a_constructor_elsewhere_is_noticed() -> None:
    """The previous test can fail."""
    source = "from r import MeasuredLatency as M\nx: MeasuredLatency = r.MeasuredLatency(1)"
    assert len(list(mentions(ast.parse(source)))) == 2
