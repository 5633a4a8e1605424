"""Arms compared over folds and seeds: ``python -m pneumo.study +study=two_stage …``.

Trains what is missing, judges all arms on the same films, and ends with a table of which
differences are real and a figure. Stopped, it goes on where it was. What is typed besides
(``data=phantom scale=mini``) holds for every fit; ``study.plan=true`` only says what is left to do.
"""

import shlex
import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo import command, files
from pneumo.errors import PneumoError
from pneumo.evaluation.settings import StudyFits
from pneumo.settings import checked


def task(raw: DictConfig) -> None:
    """The command."""
    settings = checked(raw)
    typed = list(HydraConfig.get().overrides.task)
    from pneumo.evaluation import figure, plan, study  # torch takes seconds, and help needs none

    planned = plan.plan(settings, typed)
    if planned.study.plan:
        print("\n".join([*planned.listed(), f"{planned.study.name}: {planned.told()}"]))
        return
    plan.make(planned)
    folder = plan.folder(settings, typed)
    how = shlex.join(["python", "-m", "pneumo.study", *typed])
    try:
        found = study.judge(planned, folder.name, how, settings.machine)
    finally:
        for path, reason in planned.failed.items():
            print(f"failed: {path}: {reason}\n  {planned.command(path)}", flush=True)
    made = study.tables(found)
    about = f"# Study {found.name}\n\nMade by `{how}`, commit {found.commit}; {found.basis}.\n"
    files.write_json(folder / "study.json", found.to_dict())
    picture = f"![Dice on positives against cost]({figure.SVG})\n"
    files.write_text(
        folder / "study.md", "\n".join([about, picture, *(table.markdown() for table in made)])
    )
    files.write_text(folder / figure.SVG, figure.svg(found))
    files.write_text(folder / figure.HTML, figure.html(found))
    for table in made:
        print("\n" + table.aligned())
    print(f"\nTables: {folder / 'study.md'}, study.json\nFigure: {folder / figure.SVG}, study.html")
    if planned.failed:
        raise PneumoError(f"{len(planned.failed)} fits failed; they are listed above")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.study"
    command.run(task, StudyFits, "study")
