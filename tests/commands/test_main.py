"""What a user sees of ``python -m pneumo``."""

import sys

import pytest

from pneumo import __main__, __version__


def test_the_commands_are_listed_and_started_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pneumo"])
    __main__.main()
    listed = capsys.readouterr().out
    for name in ("train", "predict", "view", "list"):
        assert f"  {name} " in listed
    monkeypatch.setattr(sys, "argv", ["pneumo", "trian", "+experiment=exp5"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert capsys.readouterr().err == "error: trian: no such command; did you mean train?\n"
    monkeypatch.setattr(sys, "argv", ["pneumo", "list", "--version"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert capsys.readouterr().out == f"pneumo {__version__}\n"
