"""Tables and a page of all finished runs: ``python -m pneumo.report``."""

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig

from pneumo import command, files, runs
from pneumo.evaluation.settings import Report
from pneumo.masks.truth import Truth
from pneumo.settings import checked
from pneumo.tables import counted

FOLDER = "report"


def task(raw: DictConfig) -> None:
    """The command."""
    from pneumo.evaluation import (  # torch takes seconds, and help needs none
        page,
        published,
        report,
    )

    settings = checked(raw)
    groups = report.collect(settings)
    for setting, found in groups.items():
        print(f"\n{setting}: {counted(len(found), 'finished run')}", flush=True)
        found = report.judge_runs(found, settings)
        if not found:
            continue
        made = published.build(found, report.judge_systems(setting, settings))
        folder = Path(settings.runs_dir) / FOLDER / setting
        for table in made:
            files.write_text(folder / f"{table.key}.csv", table.csv())
        how = shlex.join(["python", "-m", "pneumo.report", *sys.argv[1:]])
        title = f"# {setting}\n\nMade by `{how}`, commit {runs.commit()}.\n"
        files.write_text(
            folder / "report.md", "\n".join([title, *(table.markdown() for table in made)])
        )
        files.write_text(folder / "report.tex", "\n".join(table.latex() for table in made))
        shown = [run for run in found if run.found["val", True].truth is Truth.masks]
        if shown:
            content = page.render(setting, how, shown, made, settings.gallery)
            files.write_text(folder / "index.html", content)
        for table in made:
            print("\n" + table.aligned())
        where = folder / "index.html" if shown else "none, since no masks of these films are known"
        print(f"\nPage:   {where}\nTables: {folder / 'report.md'}, report.tex, *.csv", flush=True)


if __name__ == "__main__":
    sys.argv[0] = "pneumo.report"
    command.run(task, Report, "report", "commands")
