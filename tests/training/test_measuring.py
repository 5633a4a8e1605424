"""A short piece of a fit is measured, and put in proportion to the whole batch."""

from pneumo.training import lineage, measuring
from pneumo.training.network import build_network


def test_a_step_and_memory_of_the_whole_batch_come_from_fewer_films(monkeypatch):
    typed = ["+experiment=exp2", "data=phantom", "scale=mini", "model.encoder=tu-test_resnet"]
    one = lineage.scaled(lineage.declared(typed), typed)
    known = measuring.measure(one, seconds=0, steps=10)  # no time for more than two films
    assert known.films == 2 < one.batch_size == 8
    weights = build_network(one.model, pretrained=False).state_dict().values()
    assert measuring.weights_of(one.model) == sum(value.nbytes for value in weights)
    fixed = 1000 + 3 * measuring.weights_of(one.model)  # gradients and moments
    monkeypatch.setattr(measuring, "_run", lambda *given: (0.5, 0.25, 1000, fixed + 600))
    known = measuring.measure(one, seconds=0, steps=10)
    assert (known.batch, known.validation, known.memory) == (2.0, 1.0, fixed + 4 * 600)


def test_a_whole_batch_is_measured_where_there_is_time(monkeypatch):
    typed = ["+experiment=exp2", "data=phantom", "scale=mini", "model.encoder=tu-test_resnet"]
    one = lineage.scaled(lineage.declared(typed), typed)
    asked = []

    def run(config, network, films, count, steps):
        asked.append((films, count))
        return 0.01 * films, 0.01 * films, 0, 100 * films

    monkeypatch.setattr(measuring, "_run", run)
    known = measuring.measure(one, seconds=100, steps=10)
    assert asked == [(2, 1), (8, measuring.MOST)]
    assert (known.films, known.batch, known.memory) == (8, 0.08, 800)
