"""``python -m pneumo.export run=… out=model/``: finished runs → one bundle that describes itself."""

import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pneumo import __version__, bundle, command, config, evaluate, judge, runs
from pneumo.config import Choose, Export, Tune
from pneumo.errors import PneumoError


def task(raw: DictConfig) -> None:
    """The command."""
    settings = config.typed(raw)
    card = export(settings)
    print(f"{settings.out}: {len(card['members'])} network(s); {judge.rule_text(card['postprocess'])} ({card['thresholds']})")
    print(f"\nNext: python -m pneumo.predict model={settings.out} input=<films> out=masks")


def export(settings: Export) -> dict[str, Any]:
    """Write the bundle of ``settings``; returns its card. Raises PneumoError."""
    import numpy as np

    from pneumo import model, predict  # torch takes seconds, and help needs none

    folders = runs.find(settings.run)
    records = [runs.read_record(folder) for folder in folders]
    parts = predict.gather(settings)
    declared = evaluate.declared_rule(settings, records)
    results = judge.judge(parts, declared, settings.tta, Tune.honest, settings.seed)
    rule, how, stated = declared, "declared by the experiment", results[0]
    if settings.choose is Choose.tuned:
        if len(results) < 2:
            raise PneumoError("choose=tuned: thresholds cannot be chosen from these films; use choose=declared")
        stated = results[1]
        everything = np.arange(sum(map(len, parts)))
        rule = judge.search(parts, everything, declared, settings.tta)
        how = (
            f"chosen on all {len(everything):,} validation films; the scores are of choosing and scoring on different films ({stated.how})"
        )
    networks, cards = [], []
    for folder, record in zip(folders, records, strict=True):
        one = config.recorded(record["config"])
        network = model.build(one.model, pretrained=False)
        model.load_weights(network, folder / runs.WEIGHTS, "run")
        networks.append(network.eval())
        cards.append(model.read_card(folder / runs.WEIGHTS))
    names = list(dict.fromkeys(record["config"]["experiment"] for record in records))
    card = {
        "name": "+".join(names),
        "pneumo": __version__,
        "exported_by_commit": runs.commit(),
        "commit": records[0]["origin"]["commit"],
        "made": time.strftime("%Y-%m-%d"),
        "input": {
            "film": "upright, dark lungs (MONOCHROME2), one channel, uint8, resized to a square of each member's size (area mean)",
            "scaling": "x / 255, then (x - mean) / std of each member",
        },
        "output": "probability of pneumothorax, per pixel; the mean of the members",
        "tta": settings.tta,
        "postprocess": judge.plain(rule),
        "thresholds": how,
        "scores_of": "this network"
        if len(folders) == 1
        else "the mean"
        if len(parts) == 1
        else "each network on its own fold, not of the mean",
        "scores": stated.to_dict(settings.resamples, settings.seed),
        "data": [_data(record) for record in records],
        "licence": settings.licence,
        "intended_use": bundle.INTENDED_USE,
        "limits": bundle.LIMITS,
    }
    bundle.write(Path(settings.out), card, networks, cards, settings.onnx)
    return bundle.read_card(Path(settings.out))


def _data(record: dict[str, Any]) -> dict[str, Any]:
    """What a member was trained and validated on; no paths."""
    values = record["config"]
    return {
        "name": values["data"]["name"],
        "round": values["data"]["round"],
        "scale": values["scale"]["name"],
        "split": values["split"],
        "fold": values["fold"],
        "seed": values["seed"],
        **record["data"],
    }


if __name__ == "__main__":
    sys.argv[0] = "pneumo.export"
    command.run(task, "export", "judging")
