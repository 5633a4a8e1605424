"""``python -m pneumo.train +experiment=exp5 …``: train an experiment, its parents first; then a table and the next command."""

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from pneumo import command, config, runs
from pneumo.config import Config
from pneumo.errors import PneumoError

# in a run's path already, or where things lie and how they are done: another data set there is refused, not kept apart
NAMED = {"experiment", "data", "scale", "fold", "seed", "tag", "variant", "runs_dir", "machine", "log", "hydra"}
NAMED |= {f"data.{key}" for key in ("root", "annotations", "patients", "round1_test", "cache", "max_megapixels")}
JOBS = "jobs.jsonl"
COLUMNS = ("dice", "dice_positive", "iou", "sensitivity", "specificity", "all_empty_dice")


def task(raw: DictConfig) -> None:
    """One Hydra job: a single run, or one of a sweep."""
    overrides = list(HydraConfig.get().overrides.task)
    typed = {override.lstrip("+").partition("=")[0] for override in overrides}
    for key, name in zip(("tag", "variant"), runs.tags(overrides, config.SHARED, NAMED), strict=True):
        if key not in typed:
            raw[key] = name
    rows = train(config.load(raw), typed)
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        with open(Path(HydraConfig.get().sweep.dir) / JOBS, "a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    else:
        print("\n" + table(rows))
        print(f"\nNext: look at the pictures in {rows[-1]['folder']}; scores, thresholds and a page of it:")
        print(f"  python -m pneumo.evaluate run={rows[-1]['folder']}")
        print(f"  python -m pneumo.report runs_dir={raw.runs_dir}")


def train(declared: Config, typed: set[str]) -> list[dict[str, Any]]:
    """Train an experiment, after its ancestors; those that are finished are used as they are.

    Args:
        declared: what the experiment and the command line say, not yet scaled.
        typed: keys the user set on the command line; they are not scaled.

    Returns:
        A row for each fit of the chain, ancestors first: name, folder, whether it was trained now, seconds, scores.
    """
    fits = chain(declared, typed)
    finished = [place for place, one in enumerate(fits) if _already(one, one.path)]
    return [_make(one) for one in fits[finished[-1] if finished else 0 :]]  # what led to a finished fit is not needed again


def chain(declared: Config, typed: set[str]) -> list[Config]:
    """The fits that lead to an experiment, scaled, the first ancestor first."""
    child = declared.scaled(typed)
    if not child.parent or child.init_from != str(_handed_on(child)):
        return [child]
    shared = {key for key in typed if key.partition(".")[0] in config.SHARED}
    return [*chain(parent_of(declared), shared), child]


def parent_of(child: Config) -> Config:
    """The declared configuration of a child's parent: its own recipe on the child's data, fold, seed, scale and machine."""
    overrides = [
        f"+experiment={child.parent}",
        f"data.name={child.data.name}",
        f"runs_dir={json.dumps(child.runs_dir)}",
        f"fold={child.fold}",
    ]
    overrides += [f"seed={child.seed}", f"scale.name={child.scale.name}", f"tag='{child.tag}'"]
    if command.is_composing():
        raw = compose("train", overrides)
    else:
        with initialize_config_dir(config.CONF, version_base="1.3"):
            raw = compose("train", overrides)
    parent = config.load(raw)
    if parent.experiment == child.experiment:
        raise PneumoError(f"experiment {child.experiment} is its own parent")
    return dataclasses.replace(parent, **{key: getattr(child, key) for key in config.SHARED})


def _handed_on(child: Config) -> Path:
    return dataclasses.replace(child, experiment=child.parent or "", variant="").path / runs.WEIGHTS


def _make(one: Config) -> dict[str, Any]:
    """Train one fit unless it is finished, holding its folder's lock."""
    folder, started = one.path, time.monotonic()
    with runs.lock(folder), contextlib.ExitStack() as out:
        trained = not _already(one, folder)
        if trained:
            for left in folder.glob(".*.partial"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            out.enter_context(runs.logged(folder))
            swa = f", averaging the last {one.swa.epochs}" if hasattr(one.swa, "epochs") else ""
            start = f"from {one.init_from}" if one.init_from else f"encoder weights: {one.model.encoder_weights}"
            print(
                f"\n{one.experiment}: {one.resolution.size}², batch {one.batch_size}, {one.epochs} epochs{swa}; {start}\n  → {folder}",
                flush=True,
            )
            from pneumo.fit import fit  # torch and Lightning take seconds, and `--help` needs neither

            fit(one, folder)
        else:
            print(f"{one.experiment}: finished before, used as it is ({folder})", flush=True)
        scores = {key: value for key, value in runs.read_metrics(folder).items() if isinstance(value, float)}
    return {
        "experiment": one.experiment,
        "folder": str(folder),
        "trained": trained,
        "seconds": time.monotonic() - started,
        **scores,
    }


def _already(one: Config, folder: Path) -> bool:
    """Whether a folder holds this very fit, finished. Raises PneumoError if it holds another."""
    if not runs.is_begun(folder):
        return False
    found = runs.differences(runs.read_record(folder)["config"], one.to_dict())
    if found:
        shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
        raise PneumoError(
            f"{folder} holds a run with other settings (recorded → wanted: {shown}); "
            "keep both with tag=<name> or runs_dir=<folder>, or delete that folder"
        )
    return runs.is_finished(folder)


def table(rows: list[dict[str, Any]]) -> str:
    """Scores on validation, one line a fit."""
    width = max(len(row["experiment"]) for row in rows)
    names = ("Dice", "positives", "IoU", "sensit.", "specif.", "all-empty")
    lines = [" " * width + "  " + " ".join(f"{name:>9}" for name in names) + "      time"]
    for row in rows:
        scores = " ".join(f"{row.get(key, float('nan')):>9.4f}" for key in COLUMNS)
        spent = f"{row['seconds']:>6.0f} s" if row["trained"] else "  before"
        lines.append(f"{row['experiment']:<{width}}  {scores}  {spent}")
    lines.append("Validation scores; Dice is the challenge's (both empty = 1), beside what empty masks alone would score.")
    return "\n".join(lines)


class SweepTable(Callback):
    """Hydra's callback that ends a sweep with a table of its jobs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table of the jobs that finished, by any launcher."""
        jobs = Path(config.hydra.sweep.dir) / JOBS
        if not jobs.is_file():
            return
        rows = [json.loads(line) for line in jobs.read_text(encoding="utf-8").splitlines()]
        print("\n" + table(rows))
        if not any(row["trained"] for row in rows):
            print("Nothing was trained: every run was finished before.")
        print(f"\nNext: tables and a page of all runs:\n  python -m pneumo.report runs_dir={config.runs_dir}", flush=True)


if __name__ == "__main__":
    sys.argv[0] = "pneumo.train"
    command.run(task, "train")
