"""``python -m pneumo.report``: judge all finished runs, then write the paper's tables and one page to look at."""

import contextlib
import io
import shlex
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pneumo import command, config, evaluate, files, page, runs, tables
from pneumo.config import Evaluate, PhantomData, Report, Tune
from pneumo.errors import PneumoError
from pneumo.tables import Run

FOLDER = "report"


def task(raw: DictConfig) -> None:
    """The command."""
    settings = config.typed(raw)
    groups = collect(settings)
    for setting, found in groups.items():
        print(f"\n{setting}: {len(found)} finished runs", flush=True)
        found = judge(found, settings)
        if not found:
            continue
        made = tables.build(found)
        folder = Path(settings.runs_dir) / FOLDER / setting
        for table in made:
            files.write_text(folder / f"{table.key}.csv", table.csv())
        how = shlex.join(["python", "-m", "pneumo.report", *sys.argv[1:]])
        title = f"# {setting}\n\nMade by `{how}`, commit {runs.commit()}.\n"
        files.write_text(folder / "report.md", "\n".join([title, *(table.markdown() for table in made)]))
        files.write_text(folder / "index.html", page.render(setting, how, found, made, settings.gallery))
        for table in made:
            print("\n" + table.aligned())
        print(f"\nPage:   {folder / 'index.html'}\nTables: {folder / 'report.md'}, *.csv", flush=True)


def collect(settings: Report) -> dict[str, list[Run]]:
    """The finished runs below ``runs_dir``, by setting (data, scale, tag); first stages only as ancestors. Raises PneumoError."""
    groups: dict[str, list[Run]] = {}
    for record_path in sorted(Path(settings.runs_dir).glob(f"*/*/*/{runs.RECORD}")):
        folder = record_path.parent
        setting = folder.parent.name
        if folder.parents[1].name.endswith("_stage1") or not runs.is_finished(folder) or settings.setting not in (None, setting):
            continue
        record = runs.read_record(folder)
        groups.setdefault(setting, []).append(Run(folder, record, [*runs.ancestors(folder, record), (folder, record)]))
    if not groups:
        which = f" of setting={settings.setting}" if settings.setting else ""
        raise PneumoError(
            f"{settings.runs_dir}: no finished runs{which}; train some with python -m pneumo.train, or name their folder with runs_dir="
        )
    return groups


def judge(runs_of_setting: list[Run], settings: Report) -> list[Run]:
    """Evaluate runs on validation and, where there is one, on the test set, with and without TTA; folds also joined.

    Returns those whose validation part could be judged; of the others it is said why not.
    """
    judged = [run for run in runs_of_setting if _judge_one(run, settings)]
    for name in dict.fromkeys(run.name for run in judged):
        folds = [run for run in judged if run.name == name and run.record["config"]["split"]["kind"] == "kfold"]
        if len(folds) > 1:
            try:
                folds[0].joined = _evaluate([str(run.folder) for run in folds], "val", True, settings)
            except PneumoError as error:
                print(f"  {name}: its folds could not be joined: {error}")
    return judged


def _judge_one(run: Run, settings: Report) -> bool:
    source = config.recorded(run.record["config"]).data
    parts = ["val", "test"] if isinstance(source, PhantomData) or settings.ids or source.round1_test else ["val"]
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
    with contextlib.redirect_stdout(io.StringIO()):  # what preparing says was said when the run was trained
        return evaluate.evaluate(asked)[0]


if __name__ == "__main__":
    sys.argv[0] = "pneumo.report"
    command.run(task, "report", "judging")
