"""What a fit shows, and what leaves the machine."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

from conftest import one

from pneumo.data.settings import SiimData
from pneumo.masks.settings import Postprocess
from pneumo.settings import Log
from pneumo.training import logbook, record


def test_only_drawn_films_are_sent_unasked(finished, monkeypatch):
    monkeypatch.chdir(finished[0])
    drawn = record.read(one(finished[0], "exp5")).config
    films = dataclasses.replace(drawn, data=SiimData(name="siim"))
    assert logbook.pictures_sent(drawn)
    assert not logbook.pictures_sent(films)
    asked = dataclasses.replace(films, log=Log(send_pictures=True))
    assert logbook.pictures_sent(asked)


def test_pictures_are_of_three_positives_to_one_negative_or_of_what_there_is(tmp_path):
    def shown(*positive, count=4):
        parts = SimpleNamespace(validation=list(range(len(positive))))
        data = SimpleNamespace(parts=parts, positive=positive, validation=None)
        log = Log(pictures=count)
        return logbook.Pictures(data, tmp_path, log, Postprocess(), sent=False).indices

    assert shown(0, 1, 0, 1, 1, 1) == [1, 3, 4, 0]
    assert shown(1, 1, 1, 1, 1) == [0, 1, 2, 3]
    assert shown(0, 0, 1, 0, 0) == [2, 0, 1, 3]
    assert shown(1, 0, count=0) == []


def test_weights_and_biases_failing_is_said_once_and_stops_nothing(caplog):
    class Broken:
        summary = property(lambda run: run.fail())

        def fail(self, *args, **kwargs):
            raise RuntimeError("no connection")

        config = log = log_artifact = define_metric = fail

    logger = logbook.GuardedWandbLogger(experiment=Broken())
    logger.summary({"dice": 0.5})
    logger.log_metrics({"dice": 0.5})
    logger.finish()
    (said,) = caplog.messages
    assert said.startswith("Weights & Biases failed and is left out from here on (no connection")


def test_the_time_of_a_fit_adds_up_over_interruptions(monkeypatch):
    def epochs(watch, first, last):
        watch.on_train_start(SimpleNamespace(current_epoch=first), None)
        for _ in range(first, last):
            watch.on_train_epoch_start(None, None)
            watch.on_train_epoch_end(None, None)

    ticks = itertools.count()
    monkeypatch.setattr(logbook.time, "monotonic", lambda: next(ticks))
    before, after, unknown = logbook.Stopwatch(), logbook.Stopwatch(), logbook.Stopwatch()
    epochs(before, 0, 3)
    after.load_state_dict(before.state_dict())
    epochs(after, 3, 5)
    assert after.seconds == 5
    epochs(unknown, 3, 5)  # its checkpoint is of a version that kept no time
    assert math.isnan(unknown.seconds)


def test_an_epoch_shows_what_the_truth_of_its_films_gives(tmp_path, capsys):
    def line(**values):
        trainer = SimpleNamespace(
            is_global_zero=True,
            current_epoch=0,
            max_epochs=1,
            callback_metrics={"train/loss": 1.0, "val/loss": 1.0, **values},
            loggers=[],
            global_step=1,
        )
        history = logbook.History(tmp_path / "metrics.csv")
        history.rate = 0.1
        history.on_train_epoch_end(trainer, None)
        return capsys.readouterr().out

    found = {"val/sensitivity": 0.75, "val/specificity": 0.5}
    assert line(**found).strip().endswith("sensitivity 0.7500, specificity 0.5000")
    masks = {"val/iou": 0.1, "val/dice": 0.2, "val/dice_positive": math.nan}
    assert line(**found, **masks).strip().endswith("IoU 0.1000, Dice 0.2000, on positives nan")


def test_a_history_goes_on_from_its_checkpoint_whatever_the_file_says(tmp_path):
    before, after = logbook.History(tmp_path / "m.csv"), logbook.History(tmp_path / "m.csv")
    before.rows = [{"epoch": 0, "val/dice": 0.5}]
    (tmp_path / "m.csv").write_text("torn")
    after.load_state_dict(before.state_dict())
    after.on_train_start(SimpleNamespace(current_epoch=1, is_global_zero=True), None)
    assert after.rows == before.rows


def test_a_history_whose_checkpoint_holds_none_is_that_of_the_file(tmp_path):
    """As checkpoints of older versions."""
    path = tmp_path / "m.csv"
    path.write_text("epoch,val/dice\n0,0.5\n1,0.6\n")
    after = logbook.History(path)
    after.on_train_start(SimpleNamespace(current_epoch=1, is_global_zero=True), None)
    assert after.rows == [{"epoch": "0", "val/dice": "0.5"}]
