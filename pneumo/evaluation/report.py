"""All finished runs below a folder, judged."""

import contextlib
import io
from pathlib import Path
from typing import Any

from pneumo import runs
from pneumo.data.settings import PhantomData
from pneumo.errors import PneumoError
from pneumo.evaluation import evaluation
from pneumo.evaluation.published import Run
from pneumo.evaluation.settings import Evaluate, Report, Tune
from pneumo.training.settings import recorded_config


def collect(settings: Report) -> dict[str, list[Run]]:
    """The finished runs below ``runs_dir``, by setting (data, scale, tag); first stages only as ancestors. Raises PneumoError."""
    groups: dict[str, list[Run]] = {}
    for record_path in sorted(Path(settings.runs_dir).glob(f"*/*/*/{runs.RECORD}")):
        folder = record_path.parent
        setting = folder.parent.name
        if (
            folder.parents[1].name.endswith("_stage1")
            or not runs.is_finished(folder)
            or settings.setting not in (None, setting)
        ):
            continue
        record = runs.read_record(folder)
        groups.setdefault(setting, []).append(
            Run(folder, record, [*runs.ancestors(folder, record), (folder, record)])
        )
    if not groups:
        which = f" of setting={settings.setting}" if settings.setting else ""
        raise PneumoError(
            f"{settings.runs_dir}: no finished runs{which}; train some with python -m pneumo.train, or name their folder with runs_dir="
        )
    return groups


def judge_runs(runs_of_setting: list[Run], settings: Report) -> list[Run]:
    """Evaluate runs on validation and, where there is one, on the test set, with and without TTA; folds also joined.

    Returns those whose validation part could be judged; of the others it is said why not.
    """
    judged = [run for run in runs_of_setting if _judge_one(run, settings)]
    for name in dict.fromkeys(run.name for run in judged):
        folds = [
            run
            for run in judged
            if run.name == name and run.record["config"]["split"]["kind"] == "kfold"
        ]
        if len(folds) > 1:
            try:
                folds[0].joined = _evaluate(
                    [str(run.folder) for run in folds], "val", True, settings
                )
            except PneumoError as error:
                print(f"  {name}: its folds could not be joined: {error}")
    return judged


def _judge_one(run: Run, settings: Report) -> bool:
    source = recorded_config(run.record["config"]).data
    parts = (
        ["val", "test"]
        if isinstance(source, PhantomData) or settings.ids or source.round1_test
        else ["val"]
    )
    try:
        for part in parts:
            for tta in (False, True):
                run.found[part, tta] = _evaluate(str(run.folder), part, tta, settings)
    except PneumoError as error:
        which = "not judged on the test set" if ("val", True) in run.found else "left out"
        print(f"  {run.folder}: {which}: {error}", flush=True)
        return ("val", True) in run.found
    print(f"  {run.folder}", flush=True)
    return True


def _evaluate(run: str | list[str], on: str, tta: bool, settings: Report) -> dict[str, Any]:
    asked = Evaluate(
        run=run,
        on=on,
        ids=settings.ids if on == "test" else None,
        runs_dir=settings.runs_dir,
        machine=settings.machine,
        tta=tta,
        tune=Tune.honest,
        resamples=settings.resamples,
    )
    with contextlib.redirect_stdout(
        io.StringIO()
    ):  # what preparing says was said when the run was trained
        return evaluation.evaluate(asked)[0]
