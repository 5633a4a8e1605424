"""What a person types wrong is one line on stderr, exit status 1, and the right advice; nothing is
ignored.
"""

import errno
import shutil

import pytest
from conftest import one, say

from pneumo import mistakes
from pneumo.training.settings import Config


@pytest.fixture(scope="module")
def place(finished, model, tmp_path_factory):
    """A folder with finished runs, a bundle, films, and tables with mistakes in them."""
    place = tmp_path_factory.mktemp("mistakes")
    shutil.copytree(finished[0] / "runs", place / "runs")
    shutil.copytree(model, place / "model")
    (films,) = (place / "runs" / "phantom").glob("24-*")
    films.rename(place / "films")
    table = (place / "films" / "train-rle.csv").read_text()
    (place / "table.csv").write_text(table)
    (place / "semicolons.csv").write_text(table.replace(",", ";"))
    (place / "other.csv").write_text("Kaggle_ID,NIH_ID\n1.2.3,00000001_000.png\n")
    (place / "ids.csv").write_text("ImageId,EncodedPixels\n1.2.3,-1\n")
    (place / "empty.csv").write_text("")
    (place / "nothing").mkdir()
    (place / "one").mkdir()
    shutil.copy(sorted((place / "films").rglob("*.dcm"))[0], place / "one")
    (place / "pickle.safetensors").write_bytes(b"\x80\x04not safetensors")
    own = place / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "nofirst.yaml").write_text("experiment: nofirst\nepochs: 3\n")
    (own / "noname.yaml").write_text("# @package _global_\nepochs: 3\n")
    (own / "badkey.yaml").write_text("# @package _global_\nexperiment: badkey\nepocs: 3\n")
    (own / "broken.yaml").write_text("# @package _global_\nexperiment: broken\n  epochs: 3\n")
    run = one(place, "exp5")
    shutil.copytree(run, place / "half", ignore=shutil.ignore_patterns("metrics.json"))
    return place


TRAIN = "train +experiment=exp2 data=phantom "
SIIM = "train +experiment=exp2 data=siim data.root=films "
VAL = "run=runs/exp5/*/* "
# what is typed → what the one line says
MISTAKES = {
    # settings that do not exist
    "train +experiment=exp5 learning_rate=0.01": "did you mean lr?",
    "train +experiment=exp5 +learning_rate=0.01": "did you mean lr?",
    "train +experiment=exp5 +epocs=7": "did you mean epochs?",
    "train +experiment=exp5 ++epocs=7": "did you mean epochs?",
    "train +experiment=exp5 epoch=7": "did you mean epochs?",
    "train +experiment=exp5 +data.rot=films": "did you mean data.root?",
    "train +experiment=exp5 +model.encodr=x": "did you mean model.encoder?",
    "train +experiment=exp5 scheduler.patience=3": "belongs to scheduler=plateau",
    "train +experiment=exp5 batchsize=3": "did you mean batch_size?",
    "train +experiment=exp5 xyzzy=1": "xyzzy: no such setting; see --help",
    "train +experiment=exp5 ~lr": "settings can be set, not removed",
    f"evaluate {VAL}+threshold=0.3": "did you mean postprocess.binarization_threshold?",
    f"evaluate {VAL}thresold=0.3": "did you mean postprocess.binarization_threshold?",
    f"evaluate {VAL}lr=0.3": "lr: no such setting",
    f"evaluate {VAL}log.pictures=3": "log.pictures: no such setting",
    "predict model=model input=films +threshold=0.99": "postprocess.binarization_threshold?",
    "predict model=model inputs=films": "did you mean input?",
    f"export {VAL}output=model2": "did you mean out?",
    f"submission {VAL}+smaple=ids.csv": "did you mean sample?",
    "report run_dir=runs": "did you mean runs_dir?",
    "view model=model prot=80": "did you mean port?",
    f"{TRAIN}loss.own=nofile.loss": "nofile.py in",
    # what cannot be read as a setting
    "train +experiment=exp5 --epochs 7": "without dashes, epochs=<value>",
    "report --epochs=7": "without dashes",
    "train +experiment=exp5 epochs": "write key=value",
    "train +experiment=exp5 epochs=[1, 2]": "a list is [1,2] without blanks",
    "train +experiment=exp1,exp2": "need a sweep, python -m pneumo.train -m +experiment=exp1,exp2",
    "train +experiment=exp5 seed=0,1": "need a sweep",
    "train +experiment=exp5 --cfg=everything": "invalid choice",
    # values that do not fit
    "train +experiment=exp5 epochs=x": "epochs=x: must be a whole number",
    "train +experiment=exp5 epochs=1.5": "epochs=1.5: must be a whole number",
    "train +experiment=exp5 lr=": "lr=: must be a number",
    "train +experiment=exp5 machine.deterministic=maybe": "machine.deterministic=maybe",
    "train +experiment=exp5 handoff.source=x": "expected one of [swa, best, last]",
    "train +experiment=exp5 epochs=0": "epochs=0: must be at least 1",
    "train +experiment=exp5 lr=-1": "lr=-1",
    "train +experiment=exp5 split=kfold5 fold=5": "fold=5: must be 0 to 4",
    "train +experiment=exp5 resolution.size=100": "a multiple of 32",
    "train +experiment=exp5 machine.accelerator=abacus": "abacus",
    "train +experiment=exp5 tag=a/b": "letters, digits",
    "train +experiment=exp5 averaging.epochs=900": "must not exceed epochs",
    "view model=model port=99999": "port=99999: must be 1 to 65535",
    # choices that do not exist
    "train +experiment=exp5 resolution=512": "did you mean resolution=px512?",
    "train +experiment=exp5 model=resnet": "unet_resnet34",
    "train +experiment=exp5 data=siimm": "did you mean data=siim?",
    "train +experiment=exp55": "did you mean +experiment=exp5?",
    "train +experiment=exp5 scale=tiny": "choose one of full, mini",
    "train data=phantom": "no experiment chosen: add +experiment=",
    "evaluate +system=exp4_exp6": "did you mean system=exp4_exp5?",
    f"{TRAIN}model.encoder=resnt34": "did you mean resnet34",
    f"{TRAIN}model.encoder=tu-resnt34": "did you mean tu-resnet34",
    # experiments' own files
    "train --config-dir own +experiment=nofirst": "its first line must be `# @package _global_`",
    "train --config-dir own +experiment=noname": "needs the line `experiment: noname`",
    "train --config-dir own +experiment=badkey": "badkey.yaml: epocs: no such setting; did you",
    "train --config-dir own +experiment=broken": "broken.yaml: not YAML",
    # data that is not there, or is something else
    "train +experiment=exp2 data.root=/absent data.annotations=table.csv": "data.root=/absent: no",
    f"{SIIM}": "data.annotations is not set",
    f"{SIIM}data.annotations=absent.csv": "absent.csv: no such file",
    f"{SIIM}data.annotations=other.csv": "columns Kaggle_ID, NIH_ID; expected ImageId, Encoded",
    f"{SIIM}data.annotations=ids.csv": "none of its",
    "train +experiment=exp2 data=siim data.root=one data.annotations=table.csv": "23 of the 24",
    f"{SIIM}data.annotations=empty.csv": "no annotations in it",
    "train +experiment=exp2 data=folder data.root=films": "data.masks is not set",
    "train +experiment=exp2 data=siim data.root=/absent data.annotations=table.csv": "/absent",
    f"{TRAIN}init_from=/absent.safetensors": "/absent.safetensors: no such file",
    # runs, bundles and films
    "evaluate": "run is not set",
    "evaluate run=5": "run=5: must be a run's folder",
    "evaluate run=runs/absent": "runs/absent: no finished run here",
    "evaluate run=half": "not finished; run its python -m pneumo.train command again",
    "predict run=runs/exp5/*/* model=model": "run and model are both set",
    f"predict {VAL}on=/absent": "on=/absent: must be val, test, or a folder",
    "evaluate run=runs/exp5": "run=runs/exp5: no run itself; below it are runs/exp5/phantom-mini",
    "predict model=half input=films": "a run, not a bundle; make one first, python -m pneumo.exp",
    "predict model=absent input=films": "absent: not a bundle",
    "predict model=model": "input is not set",
    "predict model=model input=/absent": "input=/absent: no such file or folder",
    "predict model=model input=nothing": "no films in nothing",
    "evaluate run=[runs/exp5/*/*,runs/exp5_stage1/*/*]": "blend=mean",
    f"submission {VAL}": "on is not set: give the folder of the films to submit",
    f"submission {VAL}on=films sample=ids.csv": "1 of the 1 ids of the sample submission",
    "view": "model is not set",
    "view model=nothing": "nothing: not a bundle",
    "report setting=absent": "absent",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_one_line_and_the_right_advice(place, monkeypatch, typed):
    before = set(place.rglob("*"))
    module, *arguments = typed.split()  # as a shell does, blanks in lists included
    status, _, errors = say(module, arguments, place, monkeypatch)
    lines = errors.splitlines()
    assert status == 1, errors
    assert len(lines) == 1, errors
    assert lines[0].startswith("error: ")
    assert MISTAKES[typed] in lines[0]
    left = [path.name for path in place.rglob("*") if path not in before and path.is_file()]
    assert set(left) <= {".lock", "train.log"}


@pytest.mark.parametrize(
    "said",
    [
        "unable to resize file </torch_17_104_12> to the right size: File too large (27)",
        "unable to write to file </torch_17_104_12>: No space left on device (28)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory. Please try to raise your limit.",
    ],
)
def test_shared_memory_that_is_full_is_named_with_a_way_out(said):
    error = RuntimeError(said)
    assert mistakes.is_memory(error)
    told = mistakes.explain(error, Config)
    assert "/dev/shm" in told
    assert "--shm-size" in told
    assert mistakes.explain(RuntimeError("CUDA out of memory"), Config).startswith("not enough")


def test_a_place_that_may_not_be_written_to_is_named_with_a_way_out():
    error = OSError(errno.EROFS, "Read-only file system", "/archive/runs/.lock")
    told = mistakes.explain(error, Config)
    assert told.startswith("/archive/runs/.lock: nothing can be written there")
    assert "runs_dir=<folder>" in told
