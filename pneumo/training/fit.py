"""One Lightning fit from configuration to weights and scores; resumes where it was stopped."""

import dataclasses
import io
import logging
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from pneumo import files, runs, seals
from pneumo.data.films import KNOWN
from pneumo.data.likeness import Look
from pneumo.errors import PneumoError
from pneumo.masks.truth import Truth
from pneumo.settings import keys
from pneumo.tables import counted
from pneumo.training import averaging, best, logbook, processes, sharing
from pneumo.training.device import (
    check_devices,
    device_name,
    precision,
    set_for_training,
    set_threads,
    uses_cuda,
)
from pneumo.training.interruption import Interruption
from pneumo.training.loader import FilmData
from pneumo.training.loss import check_own_loss, own_source
from pneumo.training.module import SegmentationModule
from pneumo.training.network import build_network, check_network
from pneumo.training.options import (
    ENCODER_WEIGHTS,
    CyclesAveraging,
    Ema,
    EpochsAveraging,
    LastEpochs,
    LightningAveraging,
    Plateau,
    Signal,
)
from pneumo.training.record import Origin, Parent, Record, parts_of, read, trained_on
from pneumo.training.settings import Config, Source, Watched
from pneumo.training.weights import (
    encoder_licence,
    load_weights,
    read_checkpoint,
    read_weights,
    renamed,
    save_weights,
)

log = logging.getLogger(__name__)


class WholeCheckpointIO(TorchCheckpointIO):
    """Checkpoints are written under a temporary name and renamed.

    A process that is killed meanwhile leaves the checkpoint before.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        content = io.BytesIO()  # torch's own file writer makes a full disk a RuntimeError
        torch.save(checkpoint, content)
        with files.replacing(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As Lightning's, but of a file that is known to be whole. Raises PneumoError.

        Best epochs are those of the folder where the checkpoint lies now. Of one that was moved,
        Lightning would forget them, and take the next epoch for the best, however bad it is.
        """
        checkpoint = read_checkpoint(Path(path))
        for key, state in checkpoint.get("callbacks", {}).items():
            if key.startswith(ModelCheckpoint.__name__):
                state.update(_in(Path(path).resolve().parent, state))
        return checkpoint


def _in(folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    """The paths in the state of a ``ModelCheckpoint``, as they are in a folder."""

    def here(path: str) -> str:
        return str(folder / Path(path).name) if path else ""

    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    best_ones = {here(path): score for path, score in state["best_k_models"].items()}
    own = {name: here(state[name]) for name in names}
    return {"dirpath": str(folder), "best_k_models": best_ones, **own}


def fit(config: Config, folder: Path) -> dict[str, float]:
    """Train ``config`` in ``folder`` (locked by the caller) and return its validation scores.

    Leaves ``config.yaml`` first, ``last.ckpt`` and ``metrics.csv`` each epoch, then
    ``weights.safetensors`` and, last of all, ``metrics.json``. Validation, weights and hand-off
    hold the averaged model where weights were averaged.

    Of several processes that ``torchrun`` started, the first is to call it before the others, which
    wait for its word (``processes.first_said``); it alone writes.

    Raises:
        PneumoError: data, parent weights or an interrupted run's files that do not fit; several
            nodes without ``torchrun``, once the record is saved that it starts from.
    """
    _quiet()
    machine = config.machine
    to_be_started = machine.nodes > 1 and not processes.launched()  # on each node, by a user
    if not to_be_started:
        check_devices(machine)
    set_threads(machine)
    parent = _parent(config)
    data = FilmData(config)
    data.prepare(_division(config, folder))
    log.info(data.parts.describe(data.positive))
    record = Record(config, Origin.now(), data.facts(), parent, _differences(config, data))
    _check_watched(config, record.data.validation_positive, data.truth)
    checkpoint = folder / runs.CHECKPOINT
    resuming = checkpoint.is_file()
    if resuming:
        _check_unchanged(folder, record)
        if processes.is_first():
            _add_differences(folder, record.differs_from_one_device)
    elif parent:
        _check_apart(Path(parent.path), data)
    if not resuming and processes.is_first():
        record.write(folder)
        seals.write_json(folder / runs.PARTS, data.parts_by_id())
        if config.loss.own:
            files.write_text(folder / runs.OWN_LOSS, own_source(config.loss.own))
    if to_be_started:
        (folder / runs.PLAN).unlink(missing_ok=True)  # what is saved now counts
        raise PneumoError(
            f"machine.nodes={machine.nodes}: {folder / runs.RECORD} is saved; to start it, type on "
            f"each node: {processes.by_hand(folder, machine)}"
        )
    processes.say(processes.BEGUN)
    if machine.processes > 1:
        log.info(
            "%d processes share each batch: loss and batch norm are of the films of all",
            machine.processes,
        )

    # each fit anew: it must not depend on fits before it
    pl.seed_everything(config.seed, workers=True, verbose=False)
    network = build_network(config.model, pretrained=parent is None and not resuming)
    if parent and not resuming:
        load_weights(network, Path(parent.path))
    if machine.processes > 1:
        network = sharing.share_batch_norm(network, uses_cuda(machine))
    if machine.compile:
        network.compile()
    module = SegmentationModule(network, config, data.steps, data.truth)
    about = _shareable(record)
    chosen = logbook.loggers(config, folder, about) if processes.is_first() else []
    try:
        trainer = _trainer(config, folder, data, chosen)
        if config.handoff.inherit and parent and not resuming:
            score = _score_before(module, config, data)
            best.inherit(network, score, trainer.callbacks)  # type: ignore[attr-defined]
        _run(
            trainer,
            lambda: trainer.fit(
                module,
                datamodule=data,
                ckpt_path=str(checkpoint) if resuming else None,
                weights_only=True,  # a checkpoint that came from elsewhere runs nothing
            ),
        )
        kept = _choose(module, config, folder)
        _run(trainer, lambda: trainer.validate(module, datamodule=data, verbose=False))
        scores = {
            name.removeprefix("val/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        if trainer.is_global_zero:
            # NaN, of a score over no films, is no JSON
            known = {name: None if math.isnan(value) else value for name, value in scores.items()}
            about = card(config, record, known, kept, data.look())
            save_weights(network, folder / runs.WEIGHTS, about)
            # from the checkpoint, which holds the callbacks' state whichever process ran
            state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
            best.convert(folder, state, config.handoff.score.name, network, about)
            cost = {
                runs.TRAIN_SECONDS: _train_seconds(state),
                runs.DEVICE: device_name(machine),
            }
            if (folder / runs.HISTORY).is_file():
                cost[runs.HISTORY_SHA256] = files.sha256(folder / runs.HISTORY)
            seals.write_json(folder / runs.METRICS, {**known, "weights": kept, **cost})
            runs.tidy(folder, config.log.checkpoints)
            for logger in chosen:
                if isinstance(logger, logbook.GuardedWandbLogger):
                    logger.summary({f"final/{name}": value for name, value in scores.items()})
    finally:
        logbook.close(chosen)
    if processes.launched():
        torch.distributed.destroy_process_group()
    return scores


def check(config: Config, starts_here: bool = True) -> None:
    """Raise PneumoError for a fit that is bound to fail; reads no film.

    Args:
        config: the fit.
        starts_here: whether its parent's weights, if it has a parent, must be there already.
    """
    config.data.check_places()
    check_network(config.model)
    if config.loss.own:
        check_own_loss(config.loss.own)
    if starts_here:
        _parent(config)


def card(
    config: Config, record: Record, scores: dict[str, float | None], kept: str, look: Look
) -> dict[str, Any]:
    """What the weights say of themselves.

    Enough to rebuild the network and judge its output as it was judged here.
    """
    values = config.to_dict()
    return {
        "architecture": config.model.architecture.name,
        "model": values["model"],
        "input": {
            "channels": 1,
            "dtype": "uint8",
            "size": config.resolution.size,
            "mean": config.model.mean,
            "std": config.model.std,
        },
        "output": "logits of pneumothorax, (N, 1, H, W)",
        "postprocess": values["postprocess"],
        "encoder_licence": encoder_licence(config.model),
        "experiment": config.experiment,
        "scale": config.scale.name,
        "data": config.data.name,
        "split": values["split"],
        "fold": config.fold,
        "seed": config.seed,
        "weights": kept,
        "commit": record.origin.commit,
        "parent": record.parent.sha256 if record.parent else None,
        "validation": scores,
        "look": look.to_dict(),
    }


def _parent(config: Config) -> Parent | None:
    """The weights to start from, checked before any work is done."""
    if not config.init_from:
        return None
    path = Path(config.init_from)
    if not path.is_file():
        raise PneumoError(
            f"init_from={path}: no such file; give weights that exist, or leave init_from out "
            "to train the parent first"
        )
    read_weights(path, "init_from")
    return Parent(str(path), files.sha256(path))


def _division(config: Config, folder: Path) -> dict[str, dict[str, str | None]] | None:
    """The parts that a fit goes on with: its own if it was interrupted, else its parent's.

    So validation films stay validation films, also where other code has divided them.
    """
    if (folder / runs.CHECKPOINT).is_file():
        return parts_of(folder)
    beside = Path(config.init_from).parent if config.init_from else None
    if beside is None or not (beside / runs.RECORD).is_file():
        return None
    theirs = read(beside).config
    same = (theirs.split, theirs.fold) == (config.split, config.fold)
    return parts_of(beside) if same else None


def _check_apart(weights: Path, data: FilmData) -> None:
    """Refuse to validate on films that the weights to start from were trained on.

    Of weights that no run lies beside nothing is known.
    """
    if not (weights.parent / runs.RECORD).is_file():
        return
    trained = trained_on(weights.parent, read(weights.parent))
    if trained is None:
        log.warning("%s: which films it was trained on is not known", weights)
        return
    validation = data.parts_by_id()["validation"]
    own = {image.rpartition("/")[2] for image in trained}  # a set's name may stand before it
    seen = sum(image.rpartition("/")[2] in own for image in validation)
    if seen:
        raise PneumoError(
            f"{weights}: trained on {seen:,} of the {len(validation):,} validation films; start "
            "from weights of the same films, split, split.seed and fold, or delete that run to "
            "train it anew"
        )


def _differences(config: Config, data: FilmData) -> list[str]:
    """In what a fit on several devices differs from the same fit on one, for its record."""
    devices = config.machine.processes
    if devices == 1:
        return []
    differences = [
        "each process draws dropout and stochastic depth for its own films",
        "sums over films are added up in another order, so weights differ in their last digits",
    ]
    counts = {data.drawn.count(epoch) for epoch in range(config.epochs)}
    left = [count % devices for count in counts if count < config.batch_size]
    if any(left):
        differences.append(
            f"an epoch that is shorter than a batch lacks up to {counted(max(left), 'film')}"
        )
    return differences


def _add_differences(folder: Path, differences: list[str]) -> None:
    """Note in a run's record that it goes on on several devices, if it began on one."""
    before = read(folder)
    if not set(differences) <= set(before.differs_from_one_device):
        dataclasses.replace(before, differs_from_one_device=differences).write(folder)


def _check_watched(config: Config, positives: int, truth: Truth) -> None:
    """Refuse to go by a score that no validation film has, or that the truth does not give."""
    handoff = config.handoff
    patient = config.stopping.patience is not None
    counts = handoff.source is Source.best or handoff.keep > 0 or patient
    if counts and truth is not Truth.masks:
        raise PneumoError(
            f"handoff.score={handoff.score.name}: a score of masks, but known of these films are "
            f"{KNOWN[truth]}; use handoff.source=last without handoff.keep and stopping.patience"
        )
    if counts and handoff.score is Watched.dice_positive and not positives:
        raise PneumoError(
            "handoff.score=dice_positive: no validation film shows pneumothorax; use "
            "handoff.source=last without handoff.keep and stopping.patience, or another split"
        )
    course = config.scheduler
    by_masks = isinstance(course, Plateau) and course.watched is not Signal.loss
    if by_masks and truth is not Truth.masks:
        raise PneumoError(
            f"scheduler.watched: a score of masks, but known of these films are {KNOWN[truth]}; "
            "use scheduler.watched=loss"
        )
    reduces = isinstance(course, Plateau) and course.watched is Signal.dice_positive
    if reduces and not positives:
        raise PneumoError(
            "scheduler.watched=dice_positive: no validation film shows pneumothorax; use "
            "scheduler.watched=loss, or another split"
        )


def _check_unchanged(folder: Path, record: Record) -> None:
    """Refuse to go on with other data or another parent than the interrupted run began with."""
    before = read(folder)
    data = before.data.films == record.data.films and before.data.parts == record.data.parts
    hashes = [one.parent.sha256 if one.parent else None for one in (before, record)]
    own = record.config.loss.own
    code = not own or (folder / runs.OWN_LOSS).read_text(encoding="utf-8") == own_source(own)
    unchanged = {"data": data, "parent": hashes[0] == hashes[1], "loss.own": code}
    for name, same in unchanged.items():
        if not same:
            raise PneumoError(
                f"{folder}: its {name} changed since this run was interrupted; "
                "delete the folder to train it anew"
            )


def _shareable(record: Record) -> dict[str, Any]:
    """The record without paths of this machine, for Weights & Biases."""
    values = record.config.to_dict()
    for key in keys(Config, "place"):
        section, _, name = key.rpartition(".")
        (values[section] if section else values).pop(name, None)
    if values["model"]["encoder_weights"] not in ENCODER_WEIGHTS:
        values["model"]["encoder_weights"] = "a local file"
    origin = {"commit": record.origin.commit, "versions": record.origin.versions}
    parent = record.parent.sha256 if record.parent else None
    return {
        "config": values,
        "origin": origin,
        "data": dataclasses.asdict(record.data),
        "parent": parent,
    }


def _trainer(config: Config, folder: Path, data: FilmData, chosen: list[Any]) -> pl.Trainer:
    interactive = os.isatty(2)
    callbacks: list[pl.Callback] = [logbook.Stopwatch(), logbook.History(folder / runs.HISTORY)]
    if config.log.pictures:
        callbacks.append(
            logbook.Pictures(
                data,
                folder / runs.PICTURES,
                config.log,
                config.postprocess,
                logbook.pictures_sent(config),
            )
        )
    if interactive:
        callbacks.append(logbook.RunBar(data))
    batches = [data.batches(epoch) for epoch in range(config.epochs)]
    steps = [math.ceil(count / config.optimizer.accumulate) for count in batches]
    ends = config.scheduler.cycle_ends(steps)
    average = averaging.build(config.averaging, config.epochs, ends)
    if average is not None:
        callbacks.append(average)
    if config.handoff.source is Source.best:
        callbacks.append(
            _checkpoints(
                folder,
                runs.BEST,
                monitor=f"val/{config.handoff.score.name}",
                mode="max",
                save_weights_only=True,
            )
        )
    score, patience = config.handoff.score.name, config.stopping.patience
    if patience is not None:
        callbacks.append(best.Stopping(score, patience))
    if config.handoff.keep:
        callbacks.append(best.BestEpochs(folder / runs.CHECKPOINTS, score, config.handoff.keep))
    callbacks.append(Interruption(folder / runs.CHECKPOINT))
    # after the others, so that it holds their state of this epoch
    callbacks.append(_checkpoints(folder, runs.CHECKPOINT))
    machine = config.machine
    chosen_precision = precision(machine)
    if isinstance(config.averaging, LightningAveraging) and chosen_precision == "16-mixed":
        raise PneumoError(
            "averaging=lightning cannot run in 16-mixed (its batch-norm epoch has no gradients to "
            "scale); use bf16-mixed or averaging=paper"
        )
    set_for_training()
    strategy = "auto"
    if processes.launched():
        strategy = "ddp"  # which starts no process under torchrun
    elif machine.processes > 1:
        strategy = "ddp_spawn"  # ddp would run the command, and with it the sweep, once more
    try:
        return pl.Trainer(
            max_epochs=config.epochs,
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy=strategy,
            precision=chosen_precision,  # type: ignore[arg-type]
            gradient_clip_val=config.optimizer.clip or None,
            accumulate_grad_batches=config.optimizer.accumulate,
            deterministic="warn" if machine.deterministic else None,
            benchmark=not machine.deterministic,
            use_distributed_sampler=False,  # EpochSampler gives each process its share
            # Lightning stops an epoch after the batches that it counted when it loaded
            reload_dataloaders_every_n_epochs=int(data.epochs_differ),
            callbacks=callbacks,
            logger=chosen,
            # SLURM's own would handle signals, and count the tasks of the job
            plugins=[WholeCheckpointIO(), _environment()],
            default_root_dir=folder,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except MisconfigurationException as error:
        raise PneumoError(
            f"machine.accelerator={machine.accelerator}, machine.devices={machine.devices}: "
            f"not on this machine ({error})"
        ) from None


def _environment() -> ClusterEnvironment:
    return TorchElasticEnvironment() if processes.launched() else LightningEnvironment()


def _checkpoints(folder: Path, name: str, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(
        folder,
        name.removesuffix(".ckpt"),
        save_on_train_epoch_end=True,
        enable_version_counter=False,
        auto_insert_metric_name=False,
        **options,
    )


def _run(trainer: pl.Trainer, action: Callable[[], Any]) -> None:
    """Run a part of the fit. Lightning turns Ctrl-C into SystemExit, which is turned back."""
    try:
        with warnings.catch_warnings():
            # on a CPU the main process loads films: worker processes would compete with the
            # network for its cores
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            # Lightning 2.6 with torch 2.14
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
            warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", ".*`srun` command is available.*")
            # the sampler serves what is left of an epoch that was broken off
            warnings.filterwarnings("ignore", ".*checkpoint that ended before the epoch ended.*")
            action()
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def _choose(module: SegmentationModule, config: Config, folder: Path) -> str:
    """Put the weights that are judged and handed on into the module; says which they are."""
    source = config.handoff.source
    if source is not Source.swa:
        path = folder / (runs.BEST if source is Source.best else runs.CHECKPOINT)
        saved = read_checkpoint(path)
        module.load_state_dict(renamed(saved["state_dict"], "network."))
        if source is Source.best and saved["epoch"] == best.BEFORE:
            return f"those it started from: no epoch was better by {config.handoff.score.name}"
        by = f" by {config.handoff.score.name}" if source is Source.best else ""
        return f"{source.name} epoch{by}"
    match config.averaging:  # the callback has loaded the average
        case LastEpochs():
            return f"average of {config.averaging.epochs} epochs"
        case EpochsAveraging():
            return f"average of {len(config.averaging.at)} epochs"
        case CyclesAveraging():
            return f"average of the ends of {config.averaging.cycles} cycles"
        case Ema():
            return f"exponential moving average, decay {config.averaging.decay:g}"
        case _:
            return "last epoch"


def _train_seconds(state: dict[str, Any]) -> float | None:
    """The time that training took, from a checkpoint's content."""
    seconds = state["callbacks"].get(logbook.Stopwatch.__name__, {}).get("seconds", math.nan)
    return None if math.isnan(seconds) else seconds


def _score_before(module: SegmentationModule, config: Config, data: FilmData) -> float:
    """The validation score of the weights that a fit starts from."""
    judge = pl.Trainer(
        accelerator=config.machine.accelerator,
        devices=[processes.on_node()] if uses_cuda(config.machine) else 1,
        precision=precision(config.machine),  # type: ignore[arg-type]
        plugins=[LightningEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    _run(judge, lambda: judge.validate(module, datamodule=data, verbose=False))
    return float(judge.callback_metrics[f"val/{config.handoff.score.name}"])


def _quiet() -> None:
    """Lightning's greetings are not news."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
