"""All finished runs below a folder, judged."""

import dataclasses
import logging
from pathlib import Path

from pneumo import runs
from pneumo.data.settings import PhantomData, SplitKind
from pneumo.errors import PneumoError
from pneumo.evaluation import evaluation
from pneumo.evaluation.blend import without_news
from pneumo.evaluation.members import members_of, typed_besides
from pneumo.evaluation.published import Judged, Run
from pneumo.evaluation.results import Evaluation
from pneumo.evaluation.settings import Evaluate, ReaderFiles, Report, Tune
from pneumo.settings import options_of
from pneumo.training import record
from pneumo.training.settings import Blend, system_of

log = logging.getLogger(__name__)


def collect(settings: Report) -> dict[str, list[Run]]:
    """The finished runs below ``runs_dir``, by setting (data, scale, tag).

    Stages, which are only steps towards their children, come as these children's ancestors. Raises
    PneumoError where there are no runs.
    """
    groups: dict[str, list[Run]] = {}
    for path in sorted(Path(settings.runs_dir).glob(f"*/*/*/{runs.RECORD}")):
        folder = path.parent
        setting = folder.parent.name
        if not runs.is_finished(folder) or settings.setting not in (None, setting):
            continue
        about = record.read(folder)
        if about.config.stage:
            continue
        chain = [*record.ancestors(folder, about), (folder, about)]
        groups.setdefault(setting, []).append(Run(folder, about, chain))
    if not groups:
        which = f" of setting={settings.setting}" if settings.setting else ""
        raise PneumoError(
            f"{settings.runs_dir}: no finished runs{which}; train some with "
            "python -m pneumo.train, or name their folder with runs_dir="
        )
    return groups


def judge_runs(runs_of_setting: list[Run], settings: Report) -> list[Run]:
    """Evaluate runs on validation and, where there is one, on the test set, with and without TTA.

    Folds are also joined. Returns the runs whose validation part could be judged; of the others it
    is logged why not.
    """
    judged = [run for run in runs_of_setting if _judge_one(run, settings)]
    for name in dict.fromkeys(run.name for run in judged):
        folds = [
            run
            for run in judged
            if run.name == name and run.record.config.split.kind is SplitKind.kfold
        ]
        if len(folds) > 1:
            folders = [str(run.folder) for run in folds]
            try:
                folds[0].joined = _evaluate(folders, "val", True, settings, Blend.folds)
            except PneumoError as error:
                log.warning("  %s: its folds could not be joined: %s", name, error)
    return judged


def judge_systems(setting: str, settings: Report) -> list[Judged]:
    """Every system of ``conf/system``, judged on validation where its runs are of this setting."""
    systems = []
    for name in options_of("system"):
        system = system_of(name)
        asked = Evaluate(
            system=name,
            setting=setting,
            runs_dir=settings.runs_dir,
            machine=settings.machine,
            tune=Tune.none,
            resamples=settings.resamples,
        )
        try:
            if typed_besides(system, members_of(asked)):
                raise PneumoError(f"system {name}: no finished run of its own settings")
        except PneumoError as error:
            if "no finished run" not in str(error):
                log.warning("  %s", error)
            systems.append(Judged(name, system.published, None, str(error)))
            continue
        try:
            with without_news():
                found, _ = evaluation.evaluate(asked)
            systems.append(Judged(name, system.published, found))
            log.info("  system %s", name)
        except PneumoError as error:
            log.warning("  system %s: %s", name, error)
            systems.append(Judged(name, system.published, None, str(error)))
    return systems


def _judge_one(run: Run, settings: Report) -> bool:
    source = run.record.config.data
    known = settings.ids or getattr(source, "round1_test", None)
    parts = ["val", "test"] if isinstance(source, PhantomData) or known else ["val"]
    try:
        for part in parts:
            for tta in (False, True):
                run.found[part, tta] = _evaluate(str(run.folder), part, tta, settings)
    except PneumoError as error:
        judged = ("val", True) in run.found
        which = "not judged on the test set" if judged else "left out"
        log.warning("  %s: %s: %s", run.folder, which, error)
        return judged
    log.info("  %s", run.folder)
    return True


def _evaluate(
    run: str | list[str], on: str, tta: bool, settings: Report, blend: Blend | None = None
) -> Evaluation:
    asked = Evaluate(
        run=run,
        blend=blend,
        on=on,
        ids=settings.ids if on == "test" else None,
        runs_dir=settings.runs_dir,
        machine=settings.machine,
        tta=tta,
        tune=Tune.validation if on == "test" else Tune.honest,
        resamples=settings.resamples,
        reader=settings.reader if on == "val" and tta else ReaderFiles(),
    )
    with without_news():
        try:
            return evaluation.evaluate(asked)[0]
        except PneumoError as error:
            if not asked.reader.given:
                raise
            log.warning("  without second readers: %s", error)
            return evaluation.evaluate(dataclasses.replace(asked, reader=ReaderFiles()))[0]
