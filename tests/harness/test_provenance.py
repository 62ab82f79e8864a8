"""`android_harness.provenance`: only a phone that proved to be one is measured."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from android_harness import provenance, stats
from android_harness.provenance import Check
from android_harness.records import Latency, Session
from tests.harness import sessions

ROOT = Path(__file__).parents[2]
FINE = Check(1e-6, "")
KINDS = {"MeasuredLatency", "SimulatedLatency", "HostLatency"}


def judged(session: Session, check: Check = FINE, budget_ms: float = 15.0) -> Latency:
    return provenance.latency(session, stats.figures(session), check, budget_ms)


def with_identity(**changes: Any) -> Session:
    return sessions.session(identity=sessions.identity(**changes))


def with_launch(**changes: Any) -> Session:
    launches = tuple(sessions.launch(i, **(changes if i == 4 else {})) for i in range(5))
    return sessions.session(launches=launches)


def test_a_proven_phone_is_measured() -> None:
    """With all the proof there, evidence is measured and 8 ms pass a budget of 15."""
    found = provenance.to_manifest(judged(sessions.session()))
    assert (found["evidence"], found["verdict"]) == ("measured", "pass")


UNPROVEN: dict[str, Session] = {
    "doubt": with_identity(doubts=("There is no /system/build.prop.",)),
    "x86": with_identity(machine="x86_64"),
    "no soc": with_identity(soc=""),
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
    """One missing piece of proof is enough, and it is named."""
    found = provenance.to_manifest(judged(UNPROVEN[case]))
    assert (found["evidence"], found["verdict"]) == ("simulated", "not_measured")
    assert found["device"]["why"]


def test_cores_of_other_makers_prove_nothing() -> None:
    """A server's cores agree with themselves and are still no phone's."""
    foreign = (("0xc0", "0xac3"),) * 8
    launches = tuple(sessions.launch(i, parts=foreign) for i in range(5))
    session = sessions.session(identity=sessions.identity(parts=foreign), launches=launches)
    assert judged(session).evidence == "simulated"


def test_this_machine_is_the_host() -> None:
    """Even if everything else looked like a phone."""
    found = provenance.to_manifest(judged(with_identity(serial="host")))
    assert (found["evidence"], found["verdict"]) == ("host", "not_measured")


@pytest.mark.parametrize(
    ("check", "budget_ms", "expected"),
    [
        (FINE, 5.0, "fail"),
        (FINE, stats.figures(sessions.session()).p90_ms, "inconclusive"),
        (Check(0.5, "top-1 agrees in 3 of 44"), 15.0, "fail"),
        (Check(None, ""), 15.0, "inconclusive"),
        (Check(float("nan"), ""), 15.0, "inconclusive"),
    ],
)
def test_a_measured_verdict_fails_closed(check: Check, budget_ms: float, expected: str) -> None:
    """Too slow, too close, wrong outputs, unchecked outputs."""
    assert provenance.verdict(judged(sessions.session(), check, budget_ms)) == expected


def test_an_unstable_session_decides_nothing() -> None:
    """8 ms against 15 would pass, but the phone was hot."""
    assert (
        provenance.verdict(judged(sessions.session(after=sessions.state(thermal_status=1)))) == "inconclusive"
    )


@settings(max_examples=400)  # mostly proof: a missing piece must stand alone to show that it counts
@given(
    doubts=st.sampled_from([*[()] * 6, ("a doubt",), ("", "two")]).map(list),
    machine=st.sampled_from([*["aarch64"] * 6, "x86_64", ""]),
    soc=st.sampled_from([*["SM8250"] * 6, ""]),
    serial=st.sampled_from([*["R5CR30ABCDE"] * 6, "host"]),
    os=st.sampled_from([*["android"] * 6, "linux", ""]),
    arch=st.sampled_from([*["aarch64"] * 6, "x86_64"]),
    seen=st.sampled_from([*["aarch64"] * 6, "x86_64", ""]),
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
    seen: str,
    parts: tuple[tuple[str, str], ...],
    odd: int,
) -> None:
    """Measured if and only if every piece of proof is there; and nothing else ever passes."""
    runner = {**sessions.RUNNER, "os": os, "arch": arch}
    launches = list(sessions.session().launches)
    launches[odd] = replace(launches[odd], runner=runner, machine=seen, parts=parts)
    who = sessions.identity(doubts=tuple(doubts), machine=machine, soc=soc, serial=serial)
    session = sessions.session(identity=who, launches=tuple(launches))
    found = provenance.to_manifest(provenance.latency(session, FIGURES, FINE, 15.0))
    proven = (not doubts, machine == seen == arch == "aarch64", soc, serial != "host", os == "android")
    assert (found["evidence"] == "measured") == (all(proven) and parts == sessions.PARTS)
    assert (found["verdict"] == "pass") == (found["evidence"] == "measured")


FIGURES = stats.figures(sessions.session())


def mentions(tree: ast.AST) -> Iterator[str]:
    """Where one of the kinds is used other than in `isinstance`, a `case`, an annotation or an import."""
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
    """No other module of the harness or of its caller names a constructor (records defines them)."""
    modules = [*ROOT.glob("android_harness/**/*.py"), *ROOT.glob("exporter/*.py")]
    spared = {ROOT / "android_harness/records.py", ROOT / "android_harness/provenance.py"}
    found = {
        path.name: names
        for path in modules
        if path not in spared and (names := list(mentions(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {}


def test_the_watch_over_constructors_sees_one() -> None:
    """The test above can fail."""
    source = "from r import MeasuredLatency as M\nx: MeasuredLatency = r.MeasuredLatency(1)"
    assert len(list(mentions(ast.parse(source)))) == 2
