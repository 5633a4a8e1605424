"""``python -m pneumo.submission run=… on=<folder> sample=<csv>``: the challenge's file, verified by decoding it again."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from pneumo import command, runs
from pneumo.evaluation.settings import Submission
from pneumo.settings import checked


def task(raw: DictConfig) -> None:
    """The command."""
    from pneumo.data.sources import siim
    from pneumo.evaluation import evaluation, submission
    from pneumo.inference import mapping  # torch takes seconds, and help needs none

    settings = checked(raw)

    wanted = siim.read_ids(Path(settings.sample)) if settings.sample else None
    parts = mapping.gather(settings)
    rule = evaluation.declared_rule(
        settings, [runs.read_record(folder) for folder in runs.find(settings.run)]
    )
    out = Path(settings.out)
    positive, absent = submission.write(out, parts, rule, settings.tta, wanted, settings.on_error)
    total = len(wanted) if wanted is not None else sum(map(len, parts))
    if absent:
        print(
            f"{len(absent):,} ids of {settings.sample} have no film in {settings.on} and were given an empty mask, e.g. {absent[0]}"
        )
    print(
        f"{out}: {total:,} images, {positive:,} with a mask; decoded again, all masks as predicted"
    )


if __name__ == "__main__":
    sys.argv[0] = "pneumo.submission"
    command.run(task, Submission, "submission", "judging")
