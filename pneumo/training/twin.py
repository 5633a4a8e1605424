"""A fit that would train just as a finished one did takes over that training.

Averaging the weights of the last epochs, or exponentially, leaves the training itself untouched
(``averaging``): with and without it, one training is judged and handed on by two sets of weights.
So a fit without averaging goes on from the last checkpoint of its averaged twin, in which no epoch
is left to train, and is otherwise a run like any other, with the very weights of its own training.
"""

import dataclasses
import io
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from pneumo import files, runs
from pneumo.settings import keys
from pneumo.training import record
from pneumo.training.averaging import EmaCallback, LastEpochsSWA
from pneumo.training.options import Ema, PaperAveraging, Plateau, Signal
from pneumo.training.record import Origin, Parent, Record
from pneumo.training.settings import Config, Source
from pneumo.training.weights import read_checkpoint

log = logging.getLogger(__name__)

UNTOUCHED = (PaperAveraging, Ema)  # averaging that leaves the training as it is
# state that the checkpoint need not hold for a fit that is at its end: averages, which have no
# callback to go to, and the places of the twin's own checkpoints
CALLBACKS = (LastEpochsSWA.__name__, EmaCallback.__name__, ModelCheckpoint.__name__)
# neither a name nor what is done with finished weights changes a training; where its parent's
# weights are the same is seen from their content
APART = ("experiment", "parent", "variant", "stage", "averaging", "postprocess", "whole_chain")
INCIDENTAL = [*APART, *keys(Config, "incidental")]
QUICK = ("fold", "seed", "epochs", "resolution")  # looked at first: records are slow to compare


def alike(one: Config, averaged: Config) -> bool:
    """Whether a fit without averaging trains as an averaged one does, given the same start."""
    if one.averaging.name != "none" or not isinstance(averaged.averaging, UNTOUCHED):
        return False
    if one.handoff.source is Source.best or one.handoff.keep:  # its checkpoints are others
        return False
    watched = isinstance(one.scheduler, Plateau) and one.scheduler.watched is not Signal.loss
    by_scores = watched or one.stopping.patience is not None  # of masks, so thresholds matter
    if by_scores and one.postprocess != averaged.postprocess:
        return False
    if any(getattr(one, key) != getattr(averaged, key) for key in QUICK):
        return False
    started = (one.init_from is None) == (averaged.init_from is None)
    return started and not runs.differences(averaged.to_dict(), one.to_dict(), INCIDENTAL)


def take_over(one: Config, others: Iterable[Config]) -> Path | None:
    """Give a fit that has not begun the training of a finished twin among others.

    The fit is then to be made as any other: it goes on from the checkpoint and finds all its epochs
    done. A twin that has begun from other weights, or keeps no checkpoint, is none. Returns the
    twin's folder.
    """
    folder = one.path
    if runs.is_begun(folder):
        return None
    for other in others:
        if not alike(one, other):
            continue
        if not runs.is_finished(other.path) or not (other.path / runs.CHECKPOINT).is_file():
            continue
        theirs = record.read(other.path)
        parent = None
        if one.init_from:
            parent = Parent(one.init_from, files.sha256(Path(one.init_from)))
        begun_alike = (parent and parent.sha256) == (theirs.parent and theirs.parent.sha256)
        if begun_alike and alike(one, theirs.config):
            with runs.lock(folder):
                _copy(one, other.path, dataclasses.replace(theirs, parent=parent))
            return other.path
    return None


def _copy(one: Config, twin: Path, theirs: Record) -> None:
    """Write record, parts, history and checkpoint, the checkpoint last."""
    folder = one.path
    dataclasses.replace(theirs, config=one, origin=Origin.now()).write(folder)
    for name in (runs.PARTS, runs.HISTORY, runs.OWN_LOSS):
        if (twin / name).is_file():
            with files.replacing(folder / name) as temporary:
                shutil.copyfile(twin / name, temporary)
    state = read_checkpoint(twin / runs.CHECKPOINT)
    state["callbacks"] = {
        key: value for key, value in state["callbacks"].items() if not key.startswith(CALLBACKS)
    }
    content = io.BytesIO()
    torch.save(state, content)
    files.write_bytes(folder / runs.CHECKPOINT, content.getvalue())
    log.info("\n%s: trained as %s was, without its averaging", folder, twin)
