"""The challenge's file: ``python -m pneumo.submission run=… on=<folder> sample=<csv>``."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from pneumo import command
from pneumo.evaluation.settings import Submission
from pneumo.settings import checked


def task(raw: DictConfig) -> None:
    """The command."""
    from pneumo.data.csv_files import read_ids

    # torch takes seconds, and help needs none
    from pneumo.evaluation import blend, evaluation, members, submission

    settings = checked(raw)

    wanted = read_ids(Path(settings.sample)) if settings.sample else None
    # with a table, films may bear other names than their ids
    if wanted is not None and settings.on not in ("val", "test") and not settings.annotations:
        submission.check_ids(wanted, Path(settings.on), settings.on_error)
    parts = blend.gather(settings)
    rule = evaluation.declared_rule(settings, members.members_of(settings))
    out = Path(settings.out)
    positive, absent = submission.write(out, parts, rule, settings.tta, wanted, settings.on_error)
    total = len(wanted) if wanted is not None else sum(map(len, parts))
    if absent:
        print(
            f"{len(absent):,} ids of {settings.sample} have no film in {settings.on} and were "
            f"given an empty mask, e.g. {absent[0]}"
        )
    print(
        f"{out}: {total:,} images, {positive:,} with a mask; decoded again, all masks as predicted"
    )


if __name__ == "__main__":
    sys.argv[0] = "pneumo.submission"
    command.run(task, Submission, "submission", "commands")
