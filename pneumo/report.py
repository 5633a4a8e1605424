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
        for run in found:
            judge(run, settings)
        made = tables.build(found)
        folder = Path(settings.runs_dir) / FOLDER / setting
        for table in made:
            files.write_text(folder / f"{table.key}.csv", table.csv())
        title = f"# {setting}\n\nMade by `{shlex.join(['python', '-m', 'pneumo.report', *sys.argv[1:]])}`, commit {runs.commit()}.\n"
        files.write_text(folder / "report.md", "\n".join([title, *(table.markdown() for table in made)]))
        files.write_text(folder / "index.html", page.render(setting, found, made, settings.gallery))
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
        groups.setdefault(setting, []).append(Run(folder, record, [*_ancestors(folder, record), (folder, record)], {}))
    if not groups:
        which = f" of setting={settings.setting}" if settings.setting else ""
        raise PneumoError(
            f"{settings.runs_dir}: no finished runs{which}; train some with python -m pneumo.train, or name their folder with runs_dir="
        )
    return groups


def _ancestors(folder: Path, record: dict[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """The runs whose weights this one began with, as far as they are still there, the first one first."""
    if not record.get("parent"):
        return []
    parent = folder.parents[2].joinpath(*Path(record["parent"]["path"]).parent.parts[-3:])
    if not (parent / runs.RECORD).is_file():
        return []
    theirs = runs.read_record(parent)
    return [*_ancestors(parent, theirs), (parent, theirs)]


def judge(run: Run, settings: Report) -> None:
    """Evaluate a run on its validation part and, where there is one, on the test set, with and without TTA."""
    source = config.recorded(run.record["config"]).data
    on = ["val"]
    if isinstance(source, PhantomData) or settings.ids or source.round1_test:
        on.append("test")
    for part in on:
        for tta in (False, True):
            asked = Evaluate(
                run=str(run.folder),
                on=part,
                ids=settings.ids,
                machine=settings.machine,
                tta=tta,
                tune=Tune.honest,
                resamples=settings.resamples,
            )
            try:
                # what preparing says was said when the run was trained
                with contextlib.redirect_stdout(io.StringIO()):
                    run.found[part, tta], _ = evaluate.evaluate(asked)
            except PneumoError as error:
                if part == "val":
                    raise
                print(f"{run.folder}: not judged on the test set: {error}")
                break
    print(f"  {run.folder}", flush=True)


if __name__ == "__main__":
    sys.argv[0] = "pneumo.report"
    command.run(task, "report")
