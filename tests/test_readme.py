"""What the README tells people to type is understood: every command and every setting of it."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import say

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = re.findall(r"python -m pneumo\.\w+[^`\n]*", README)
TYPED = sorted({line.partition("  #")[0].strip(" &") for line in LINES if "<name>" not in line})


def write_examples(folder):
    """The files that the README tells people to write, below ``mine``."""
    for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL):
        (name,) = re.findall(r"# mine/([\w/]+\.yaml)", text)
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


def test_there_is_something_to_type():
    assert len(TYPED) >= 15


@pytest.mark.parametrize("typed", TYPED)
def test_a_command_of_the_readme_is_understood(tmp_path, monkeypatch, typed):
    """Composed and checked for settings that do not exist; three dots stand for a user's own."""
    arguments = shlex.split(typed.replace("run=…", "run=x").replace("=…", "=x").replace("…", ""))
    module = arguments[2].removeprefix("pneumo.")
    given = [one for one in arguments[3:] if one != "-m"]
    swept = [re.sub(r"^(\+?[\w.]+=)([^,\[]+),.*", r"\1\2", one) for one in given]
    if module == "train" and not any("experiment=" in o or "+system=" in o for o in swept):
        swept.append("+experiment=exp5")
    if {"+experiment=wide", "+experiment=ours"} & set(swept):  # its own examples, to be written
        swept = ["+experiment=exp5"]
    write_examples(tmp_path / "mine")
    status, out, errors = say(module, ["--cfg", "job", *swept], tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert "runs_dir" in out


def test_the_example_files_of_the_readme_work_from_a_folder_of_ones_own(tmp_path, monkeypatch):
    write_examples(tmp_path)
    own = ["--cfg", "job", "--config-dir", str(tmp_path)]
    status, out, errors = say("train", [*own, "+experiment=wide"], tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert "encoder: resnet50" in out
    status, out, errors = say("train", [*own, "+experiment=ours"], tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert "encoder: resnet50" in out
    assert "window: 512" in out
    status, out, errors = say("train", [*own, "+system=exp5_wide"], tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert "blend: mean" in out
