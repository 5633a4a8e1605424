"""What other readers say of the challenge's films, beside its table of run lengths.

``python -m pneumo.readers annotations=stage_2_train.csv patients=nih_id.csv google=…`` needs tables
alone, no films. At least one reader must be given.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from pneumo import command
from pneumo.evaluation import agreement
from pneumo.evaluation.settings import SecondReaders
from pneumo.files import write_json
from pneumo.settings import checked


def task(raw: DictConfig) -> None:
    """The command."""
    settings = checked(raw)
    found = agreement.compare(settings)
    print(agreement.table_of(found).aligned(), end="\n\n")
    for one in found:
        print(*agreement.described(one), sep="\n")
    out = Path(settings.out or Path(settings.runs_dir, "readers.json"))
    write_json(out, [one.as_json() for one in found])
    print(f"written: {out}")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.readers"
    command.run(task, SecondReaders, "readers", "commands")
