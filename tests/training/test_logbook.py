"""What a fit shows, and what leaves the machine."""

import dataclasses
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
