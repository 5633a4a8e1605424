"""What a user sees of ``python -m pneumo.plan``."""

from conftest import TINY, say


def test_a_finished_fit_and_those_that_are_left_are_planned_without_measuring(
    finished, monkeypatch
):
    own = ["-m", "+experiment=exp5", *TINY, "seed=0,1", "measure=0"]
    status, out, errors = say("plan", own, finished[0], monkeypatch)
    assert (status, errors) == (0, "")
    rows = [line.split("  ") for line in out.splitlines() if line.startswith("exp5 ")]
    assert rows
    (total,) = [line.split() for line in out.splitlines() if line.startswith("all ")]
    assert total[1:3] == ["3", "2"]
    assert "Left out: decoding films" in out
    assert "for the cache of films" in out


def test_mistakes_are_one_line_and_nothing_is_made(tmp_path, monkeypatch):
    for typed, said in (
        (["data=phantom"], "no experiment chosen"),
        (["+experiment=exp2"], "data.root is not set"),
        (["+experiment=exp2", "measure=-1"], "measure=-1.0: must be 0 or more"),
    ):
        status, _, errors = say("plan", typed, tmp_path, monkeypatch)
        assert status == 1
        assert len(errors.splitlines()) == 1
        assert said in errors
    assert not list(tmp_path.iterdir())
