"""A model to hand on, with its card.

``python -m pneumo.export run=runs/…/fold0-seed0 out=model``.
"""

import sys

from omegaconf import DictConfig

from pneumo import command
from pneumo.evaluation.settings import Export
from pneumo.settings import checked
from pneumo.tables import counted


def task(raw: DictConfig) -> None:
    """The command."""
    from pneumo.evaluation import bundling  # torch takes seconds, and help needs none
    from pneumo.masks.rule import rule_text

    settings = checked(raw)
    card = bundling.export(settings)
    networks = counted(len(card["members"]), "network")
    rule = rule_text(card["postprocess"])
    print(f"{settings.out}: {networks}; {rule} ({card['thresholds']})")
    print(f"A film's probability: {card['calibration']['how']}")
    print(f"\nNext: python -m pneumo.predict model={settings.out} input=<films> out=masks")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.export"
    command.run(task, Export, "export", "commands")
