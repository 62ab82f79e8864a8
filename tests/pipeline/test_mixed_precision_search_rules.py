"""What the search tries, when it ends and what it leaves: on candidates that nobody has to make."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.config.request import Request
from exporter.errors import LoweringError
from exporter.formats import VARIANTS
from exporter.pipeline import (
    labelled_predictions,
    mixed_precision_candidates,
    mixed_precision_search,
    search_evidence,
    stage_results,
)
from exporter.pipeline.context import Event
from exporter.pipeline.host_latency import File
from exporter.pipeline.mixed_precision_candidates import (
    CandidateJudge,
    MixedCandidate,
    is_mixed_precision_candidate_good_enough,
)
from exporter.pipeline.mixed_precision_search import SearchResult, promising_for_precision_search
from exporter.pipeline.stage_results import CheckedArtifactResult, RankedResult
from exporter.quantize.operator_ranking import RankedMix
from exporter.records import Comparison, Latency, MixedPoint, Verdict
from tests import inline

NAMES = ("executorch-xnnpack-mixed", "onnx-mixed")
MIXES = (RankedMix(("a",), 1.0), RankedMix(("a", "b"), 2.0), RankedMix(("a", "b", "c"), 3.0))
DATA = Path("labelled")
SOURCE: Any = object()


Pair = tuple[Any, Any]


def ranked(answer: labelled_predictions.Answer) -> RankedResult:
    assert isinstance(answer, RankedResult)
    return answer


def candidate(
    folder: Path,
    names: Sequence[str],
    decibels: Pair,
    drops: Pair,
    status: str,
    milliseconds: float,
    request: Request,
) -> MixedCandidate:
    """Make a candidate with a file for each format, which says where it comes from."""
    folder.mkdir()
    built, points = [], []
    for name, sqnr_db, drop in zip(NAMES, decibels, drops, strict=True):
        if name not in names:
            continue
        file = f"{name}{VARIANTS[name].suffix}"
        (folder / file).write_text(f"{name} of {folder.name}")
        built.append(stage_results.BuildResult(VARIANTS[name], file))
        passed = is_mixed_precision_candidate_good_enough(request, verdict(sqnr_db, status=status), drop)
        points.append(MixedPoint(name, (), sqnr_db, 1.0, milliseconds, 9, passed, drop=drop))
        (folder / f"{name}.lowering.npz").write_text("on the scenes that choose")
        (folder / mixed_precision_candidates.lowering_file_of_mixed_precision_candidate(name)).write_text(
            f"lowering of {folder.name}"
        )
    checked = {name: CheckedArtifactResult(None, verdict(30.0)) for name in NAMES}
    latencies = {name: Latency(milliseconds, milliseconds, 20, 1) for name in NAMES}
    answers = labelled_predictions.ArtifactPredictions(
        {name: RankedResult(((int(folder.name),),)) for name in NAMES}
    )
    return MixedCandidate((), folder, tuple(built), checked, latencies, tuple(points), answers)


def verdict(sqnr_db: float, agreement: float | None = 1.0, status: Any = "passed") -> Verdict:
    return Verdict(status, None, "", Comparison(8, 0.1, sqnr_db, agreement))


def both(value: float | Pair | None) -> Pair:
    """The values of the two formats; a single value stands for both."""
    return value if isinstance(value, tuple) else (value, value)


class Search:
    """A search over three candidates of given quality, and what was seen of it."""

    def __init__(
        self,
        folder: Path,
        patch: pytest.MonkeyPatch,
        decibels: Sequence[float | Pair],
        drops: Sequence[float | Pair | None] = (None,) * 3,
        statuses: Sequence[str] = ("passed",) * 3,
        times: Sequence[float] = (2.0, 2.1, 2.2),
        before: Callable[[int], None] = lambda _: None,
        **options: Any,
    ) -> None:
        self.made: list[tuple[str, ...]] = []
        self.asked: list[tuple[str, ...]] = []
        self.events: list[Event] = []
        self.context = inline.context(folder, NAMES, self.events.append, search=True, **options)

        def make(*arguments: Any) -> MixedCandidate:
            _, variants, _, kept, number = arguments
            before(number)
            self.made.append(kept)
            self.asked.append(tuple(variant.name for variant in variants))
            result = candidate(
                self.context.folders.work / f"{number}",
                self.asked[-1],
                both(decibels[number]),
                both(drops[number]),
                statuses[number],
                times[number],
                self.context.request,
            )
            return replace(
                result, float_ops=kept, points=tuple(replace(p, float_ops=kept) for p in result.points)
            )

        patch.setattr(mixed_precision_candidates, "make_mixed_precision_candidate", make)
        patch.setattr(mixed_precision_candidates, "mixes_for_mixed_precision_candidates", lambda *_: MIXES)
        patch.setattr(
            search_evidence, "check_int8_on_search_evidence", lambda *_: {}
        )  # as on the scenes that judge it
        patch.setattr(
            mixed_precision_search,
            "_judge_in_precision_search",
            lambda _, best: {name: found.checked[name] for name, found in best.items()},
        )
        patch.setattr(CandidateJudge, "beside_int8", lambda _, files: (None,) * len(files))

    def run(self) -> SearchResult:
        return mixed_precision_search.search_mixed_precision(self.context, SOURCE, [], {}, {})

    def emitted(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted(self.context.folders.out.iterdir())}


def chosen(result: SearchResult) -> set[tuple[str, ...]]:
    return {point.float_ops for point in result.points if point.chosen}


def test_the_first_that_is_good_enough_is_kept_where_the_next_is_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, the fewest operators first; more decibels are worth nothing, and there is no third try."""
    search = Search(tmp_path, monkeypatch, [25.0, 30.0, 40.0])
    result = search.run()
    assert search.made == [("a",), ("a", "b")]
    assert chosen(result) == {("a",)}
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("decibels", "times", "kept", "made"),
    [
        ((25.0, 30.0, 40.0), (2.0, 1.9, 1.8), ("a", "b", "c"), 3),
        ((25.0, 30.0, 40.0), (2.0, 1.9, 1.95), ("a", "b"), 3),
        ((25.0, 30.0, 40.0), (2.0, 2.0, 1.0), ("a",), 2),
        ((25.0, 20.0, 40.0), (2.0, 1.0, 1.0), ("a",), 2),
    ],
)
def test_it_goes_on_while_they_get_faster(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decibels: Sequence[float],
    times: Sequence[float],
    kept: tuple[str, ...],
    made: int,
) -> None:
    """The fastest of those that are good enough, as measured, is emitted."""
    search = Search(tmp_path, monkeypatch, decibels, times=times)
    assert chosen(search.run()) == {kept}
    assert len(search.made) == made


def test_each_runtime_has_the_first_that_is_good_enough_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has is not made again while the other is looked for; files and answers are its own."""
    search = Search(tmp_path, monkeypatch, [(23.0, 30.0), (23.5, 50.0), (24.0, 50.0)])
    result = search.run()
    assert search.asked == [NAMES, NAMES, NAMES[:1]]
    assert [(point.variant, len(point.float_ops)) for point in result.points if point.chosen] == [
        (NAMES[1], 1),
        (NAMES[0], 3),
    ]
    assert search.emitted() == {
        "executorch-xnnpack-mixed.lowering.npz": "lowering of 2",
        "executorch-xnnpack-mixed.pte": "executorch-xnnpack-mixed of 2",
        "onnx-mixed.lowering.npz": "lowering of 0",
        "onnx-mixed.onnx": "onnx-mixed of 0",
    }
    assert {name: ranked(row).rows for name, row in result.answers.ranked.items()} == {
        NAMES[0]: ((2,),),
        NAMES[1]: ((0,),),
    }
    assert result.warnings == ()


@pytest.mark.parametrize("left", [0, 1])
def test_what_could_not_be_made_or_timed_is_looked_for_further(
    left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidate has no point; the other runtime's may be chosen for all that."""
    search = Search(tmp_path, monkeypatch, [60.0, 30.0, 30.0], times=(2.0, 2.1, 2.1))
    make = mixed_precision_candidates.make_mixed_precision_candidate

    def incomplete(*arguments: Any) -> MixedCandidate:
        result = make(*arguments)
        return replace(result, points=result.points[:left]) if arguments[-1] == 0 else result

    monkeypatch.setattr(mixed_precision_candidates, "make_mixed_precision_candidate", incomplete)
    assert chosen(search.run()) == ({("a",), ("a", "b")} if left else {("a", "b")})
    assert search.asked[1:] == [NAMES, NAMES[1:] if left else NAMES]


def test_what_failed_is_not_chosen_for_its_decibels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is far more exact than what passes after it, but its verdict is another."""
    search = Search(tmp_path, monkeypatch, [60.0, 25.0, 40.0], statuses=("failed", "passed", "passed"))
    assert chosen(search.run()) == {("a", "b")}


def test_the_chosen_ones_files_are_emitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OUT gets the chosen candidate's artifacts and program outputs, and keeps all that is known of it."""
    search = Search(tmp_path, monkeypatch, [20.0, 25.0, 40.0])
    result = search.run()
    assert search.emitted() == {
        "executorch-xnnpack-mixed.lowering.npz": "lowering of 1",
        "executorch-xnnpack-mixed.pte": "executorch-xnnpack-mixed of 1",
        "onnx-mixed.lowering.npz": "lowering of 1",
        "onnx-mixed.onnx": "onnx-mixed of 1",
    }
    assert [item.variant.name for item in result.built] == [*NAMES]
    assert set(result.checked) == set(NAMES)
    assert {ranked(row).rows for row in result.answers.ranked.values()} == {((1,),)}


def test_out_of_reach_the_most_exact_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of each runtime is emitted, wherever it is in the order; a warning says what it reaches."""
    search = Search(tmp_path, monkeypatch, [(23.1, 20.0), (23.5, 23.0), (23.2, 22.0)])
    result = search.run()
    assert search.made == [mix.float_ops for mix in MIXES]
    assert chosen(result) == {("a", "b")}
    first, second = result.warnings
    assert "did not reach 24 dB and the agreement limit for executorch-xnnpack-mixed:" in first
    assert second.endswith("keeps 2 operators in float and reaches 23.0 dB, 100.0% agreement.")


def test_what_loses_too_much_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is exact enough, but the second is the first that keeps enough labels."""
    search = Search(tmp_path, monkeypatch, [30.0, 29.0, 40.0], [2.5, 1.0, 0.0], evaluation=DATA, max_drop=1.0)
    result = search.run()
    assert chosen(result) == {("a", "b")}
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("drops", "kept", "says"),
    [
        ([5.0, 1.5, 2.0], ("a", "b"), "reaches 29.0 dB, 100.0% agreement and loses 1.5 points"),
        ([None, 3.0, None], ("a", "b"), "reaches 29.0 dB, 100.0% agreement and loses 3 points"),
        ([None, None, None], ("a", "b", "c"), "agreement and does not run on labelled samples"),
    ],
)
def test_of_those_that_lose_too_much_the_one_that_loses_least_is_kept(
    drops: list[float | Pair | None],
    kept: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever its decibels: what loses too much is not shipped. No answer is worst."""
    search = Search(tmp_path, monkeypatch, [30.0, 29.0, 40.0], drops, evaluation=DATA, max_drop=1.0)
    result = search.run()
    assert chosen(result) == {kept}
    assert "24 dB and the agreement limit with at most 1 points of top-1 lost for " in result.warnings[0]
    assert says in result.warnings[0]


def test_no_candidate_starts_after_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 400 s of 600: the second begins in time and is finished, the third does not begin."""
    now = [1000.0]

    def take(_: int) -> None:
        now[0] += 400

    search = Search(tmp_path, monkeypatch, [20.0, 21.0, 40.0], before=take, time_limit_s=600.0)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    result = search.run()
    assert search.made == [("a",), ("a", "b")]
    assert chosen(result) == {("a", "b")}
    assert result.warnings[0].endswith("It ended early: its time was over (--time-limit).")


def test_ctrl_c_keeps_the_best_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted search emits the better of the two that were finished."""

    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    search = Search(tmp_path, monkeypatch, [23.0, 22.0, 40.0], before=interrupt)
    result = search.run()
    assert chosen(result) == {("a",)}
    assert all(words.endswith("It ended early: it was interrupted.") for words in result.warnings)
    assert search.emitted()["onnx-mixed.onnx"] == "onnx-mixed of 0"


def no_program(*_: Any) -> tuple[RankedMix, ...]:
    raise LoweringError("torch.export: data-dependent control flow.")


def interrupted(*_: Any) -> tuple[RankedMix, ...]:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("mixes", "why"),
    [
        (lambda *_: (), "the network has too few operators in int8."),
        (no_program, "torch.export: data-dependent control flow."),
        (interrupted, "it was interrupted."),
    ],
)
def test_without_candidates_nothing_is_emitted_and_the_export_goes_on(
    mixes: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning for each artifact that is not there says why."""
    search = Search(tmp_path, monkeypatch, [])
    monkeypatch.setattr(mixed_precision_candidates, "mixes_for_mixed_precision_candidates", mixes)
    result = search.run()
    assert (result.built, result.points, search.emitted()) == ((), (), {})
    assert result.warnings == tuple(f"The search found no {name} artifact: {why}" for name in NAMES)


@pytest.mark.parametrize(("sqnr_db", "asked"), [(23.9, NAMES), (24.0, NAMES[:1])])
def test_nothing_is_looked_for_where_int8_is_good_enough(
    sqnr_db: float, asked: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the other runtime gets candidates; a warning says why there is no mixed artifact."""
    search = Search(tmp_path, monkeypatch, [30.0, 30.0])
    search.context.folders.out.joinpath("onnx-int8").write_text("int8")
    checked = {"onnx-int8": CheckedArtifactResult(None, verdict(sqnr_db))}
    latencies = {"onnx-int8": Latency(3.0, 4.0, 20, 1)}
    built = [stage_results.BuildResult(VARIANTS["onnx-int8"], "onnx-int8")]
    result = mixed_precision_search.search_mixed_precision(search.context, SOURCE, built, checked, latencies)
    assert search.asked[0] == asked
    said = "onnx-int8 reaches 24 dB and the agreement limit as it is: nothing needs to stay in float"
    assert [said in words for words in result.warnings] == [True] * (len(NAMES) - len(asked))


def test_int8_is_timed_by_who_times_the_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The int8 points are timed by the measurer too: a front must not mix times of two machines."""
    search = Search(tmp_path, monkeypatch, [30.0, 30.0])
    search.context.folders.out.joinpath("onnx-int8").write_text("int8")
    checked = {"onnx-int8": CheckedArtifactResult(None, verdict(20.0))}
    built = [stage_results.BuildResult(VARIANTS["onnx-int8"], "onnx-int8")]
    here = {"onnx-int8": Latency(3.0, 4.0, 20, 1)}
    result = mixed_precision_search.search_mixed_precision(
        search.context, SOURCE, built, checked, here, measure=lambda *_: Latency(7.0, 7.0, 20, 1)
    )
    assert result.points[0].p50_ms == 7.0


def test_finalists_are_timed_once_more_and_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is fastest side by side is emitted, not the one that was made in a quiet minute."""
    search = Search(tmp_path, monkeypatch, [25.0, 30.0, 40.0], times=(2.0, 1.9, 1.8))
    timed: list[list[str]] = []

    def beside(_: CandidateJudge, files: Sequence[File]) -> tuple[Latency, ...]:
        timed.append([path.parent.name for path, _ in files])
        return tuple(Latency(ms, ms, 20, 1) for ms in (2.1, 2.0, 2.2))

    monkeypatch.setattr(CandidateJudge, "beside_int8", beside)
    result = search.run()
    assert timed == [["0", "1", "2"]] * len(NAMES)
    assert chosen(result) == {("a", "b")}
    assert [p.p50_ms for p in result.points if p.variant == NAMES[0]] == [2.1, 2.0, 2.2]


def test_it_starts_from_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One point of each runtime that has mixed artifacts: none of other precisions, of `.ort`, or untimed."""
    names = ("onnx-fp32", "executorch-xnnpack-int8", "onnx-int8", "ort-int8")
    search = Search(tmp_path, monkeypatch, [24.0])
    for name in names:
        search.context.folders.out.joinpath(name).write_text(name)
    built = [stage_results.BuildResult(VARIANTS[name], name) for name in names]
    checked = {name: CheckedArtifactResult(None, verdict(21.0, agreement=0.97)) for name in names}
    latencies = {name: Latency(3.0, 4.0, 20, 1) for name in names if name != "executorch-xnnpack-int8"}
    result = mixed_precision_search.search_mixed_precision(search.context, SOURCE, built, checked, latencies)
    assert result.points[0] == MixedPoint("onnx-int8", (), 21.0, 0.97, 3.0, len("onnx-int8"), False)
    assert [point.variant for point in result.points[1:]] == [*NAMES]


def test_progress_tells_what_was_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each candidate: its number of all, and each runtime's front so far, without what is beaten."""
    search = Search(tmp_path, monkeypatch, [20.0, (25.0, 19.0), 40.0])
    search.run()
    assert [(event.stage, event.done, event.total) for event in search.events] == [
        ("search", number, 3) for number in range(3)
    ]
    assert search.events[0].detail == "nothing was measured yet"
    assert search.events[2].detail == (
        "executorch-xnnpack: 1 in float 20.0 dB 2 ms, 2 in float 25.0 dB 2.1 ms; "
        "onnx: 1 in float 20.0 dB 2 ms"
    )


@pytest.mark.parametrize(
    ("result", "drop", "good"),
    [
        (verdict(24.0), 1.0, True),
        (verdict(23.9), 0.0, False),
        (verdict(30.0, agreement=0.94), 0.0, False),
        (verdict(30.0, agreement=None), 0.0, True),
        (verdict(30.0, status="failed"), 0.0, False),
        (Verdict("passed", None, "", None), 0.0, False),
        (verdict(30.0), 1.1, False),
        (verdict(30.0), None, False),
    ],
)
def test_every_limit_must_be_met(result: Verdict, drop: float | None, good: bool) -> None:
    """Decibels, agreement, the verdict itself, and with labelled samples what may be lost."""
    labelled = Request(Path("net.ckpt"), evaluation=DATA, max_drop=1.0)
    assert is_mixed_precision_candidate_good_enough(labelled, result, drop) is good


@pytest.mark.parametrize("drop", [None, 50.0])
def test_without_labelled_samples_nothing_can_be_lost(drop: float | None) -> None:
    """A limit that was given without them has nothing to hold for."""
    assert is_mixed_precision_candidate_good_enough(
        Request(Path("net.ckpt"), max_drop=1.0), verdict(30.0), drop
    )


@pytest.mark.parametrize(
    ("int8_db", "first"), [(22.5, 0), (22.4, 1), (21.5, 1), (21.4, 2), (20.5, 2), (10.0, 2), (None, 0)]
)
def test_what_cannot_reach_the_limit_is_not_made(int8_db: float | None, first: int) -> None:
    """Mixes that miss the limit by over half a decibel are left out; the last is always made."""
    worse = [] if int8_db is None else [MixedPoint("onnx-int8", (), int8_db, 1.0, 2.0, 9, False)]
    better = [MixedPoint("executorch-xnnpack-int8", (), 23.9, 1.0, 2.0, 9, False)] if worse else []
    assert promising_for_precision_search(MIXES, [*better, *worse], 24.0) == MIXES[first:]


def test_where_nothing_is_int8_nothing_is_promising() -> None:
    """As in a program of int8 weights alone."""
    assert promising_for_precision_search((), [], 24.0) == ()
