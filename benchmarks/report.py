"""What is computed once maps lie on disk: blends, bootstrap, the page of a report.

A blend against the mean of all maps in memory; a bootstrap of all scores, as one matrix product,
against a loop that draws films and computes the scores anew; and a whole report of a setting, by
its share that the evaluations take.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import made, table
from benchmarks.table import Row
from pneumo.evaluation import blend, choosing, page, published, report, scores
from pneumo.evaluation.members import Member
from pneumo.evaluation.scores import Outcomes
from pneumo.evaluation.settings import Report
from pneumo.inference import maps
from pneumo.masks.scores import summary
from pneumo.masks.settings import Postprocess
from pneumo.training import record


def loop_of_resamples(films: Outcomes, count: int) -> dict[str, tuple[float, float]]:
    """Intervals by drawing patients and computing every score of their films anew."""
    rng = np.random.default_rng(0)
    rows_of: dict[str | None, list[int]] = {}
    for row, patient in enumerate(films.patients):
        rows_of.setdefault(patient, []).append(row)
    patients = list(rows_of)
    found: dict[str, list[float]] = {}
    for _ in range(count):
        drawn = rng.integers(0, len(patients), len(patients))
        rows = [row for number in drawn for row in rows_of[patients[number]]]
        for key, value in summary(films[np.array(rows)]).items():
            found.setdefault(key, []).append(float(value[0]))
    return {key: scores.middle(np.array(values)) for key, values in found.items()}


def measure(quick: bool) -> list[Row]:
    """Blend, bootstrap and report."""
    count, side = (12, 16) if quick else (400, 256)
    rounds = {"rounds": 1 if quick else 3, "warm": 0 if quick else 1}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folders = [made.finished_run(place / "runs", count, side, seed) for seed in range(2)]
        each = [maps.load(folder / maps.FOLDER / "val") for folder in folders]
        rows = [_blend(each, folders, place, rounds)]
        resamples = 20 if quick else 1000
        films = choosing.outcomes(each[:1], Postprocess(), tta=True)
        rows.append(_bootstrap(films, resamples, rounds))
        rows.append(_report(place / "runs", len(folders) * count, resamples))
    return rows


def _blend(
    each: list[maps.Predictions], folders: list[Path], place: Path, rounds: dict[str, int]
) -> Row:
    members = [Member(folder, record.read(folder)) for folder in folders]
    numbers = iter(range(10**6))

    def ours() -> None:  # into another folder each time: what is there is not made again
        blend.united(each, members, place / f"blend{next(numbers)}")

    def in_memory() -> None:
        mean = np.mean([one.plain for one in each], axis=0).round().astype(np.uint8)
        flip = np.mean([one.flip for one in each], axis=0).round().astype(np.uint8)
        np.savez(place / "mean.npz", mean, flip)

    timed = table.alternate({"ours": ours, "memory": in_memory}, **rounds)
    side = each[0].plain.shape[1]
    return table.compared(
        f"blend of {len(each)} systems, {side}²",
        timed["ours"],
        timed["memory"],
        per=len(each[0]),
        against="all maps in memory, numpy's mean, one file; ours goes on after a stop",
    )


def _bootstrap(films: Outcomes, count: int, rounds: dict[str, int]) -> Row:
    few = max(5, count // 20)
    timed = table.alternate(
        {
            "ours": lambda: scores.intervals(films, count),
            "loop": lambda: loop_of_resamples(films, few),
        },
        **rounds,
    )
    loop = timed["loop"]
    share = few / count
    loop.rounds = [table.Spent(one.wall / share, one.cpu / share) for one in loop.rounds]
    return table.compared(
        f"bootstrap by patient of all scores, {len(films)} films",
        timed["ours"],
        loop,
        per=count,
        of="resample",
        against=f"loop that draws and scores anew, extrapolated from {few} of {count}",
    )


def _report(runs_dir: Path, films: int, resamples: int) -> Row:
    settings = Report(runs_dir=str(runs_dir), resamples=resamples)
    shown: dict[str, list[published.Run]] = {}

    def judged() -> None:
        for setting, found in report.collect(settings).items():
            shown[setting] = report.judge_runs(found, settings)

    def drawn() -> None:
        for setting, found in shown.items():
            tables = published.build(found, [])
            page.render(setting, "", found, tables, 4)

    first, again, last = table.spent(judged), table.spent(judged), table.spent(drawn)
    whole = first.cpu + last.cpu
    return Row(
        f"report of {len(shown)} setting, {films} films in all",
        1000 * whole / films,
        1000 * (again.cpu + last.cpu) / films,
        "ms of CPU a film",
        [whole / (again.cpu + last.cpu)],
        against="the same once more: what was counted is kept beside the maps",
        limit=f"{last.cpu / whole:.0%} of it tables and page, the rest evaluations",
    )
