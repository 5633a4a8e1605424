"""Records outlive the code: what commit 0481b17 wrote is read with the values it meant then."""

import copy
import json

import pytest
import yaml

from pneumo import runs, seals
from pneumo.errors import PneumoError
from pneumo.training import record
from pneumo.training.options import Architecture, Optimizer, Over, PaperAveraging
from pneumo.training.settings import Watched

# config.yaml of a fit by commit 0481b17, version 1: `+experiment=exp5 data=phantom scale=mini`
VERSION_1 = """
config:
  experiment: exp5
  parent: exp5_stage1
  init_from: runs/exp5_stage1/phantom-mini/fold0-seed0/weights.safetensors
  runs_dir: runs
  tag: ''
  variant: ''
  seed: 0
  fold: 0
  epochs: 5
  batch_size: 8
  lr: 0.001
  data: {name: phantom, root: null, annotations: null, patients: null, round: 2, round1_test: null,
         on_error: stop, cache: runs/cache, max_megapixels: 100, images: 2000, positive_rate: 0.22,
         seed: 0}
  split: {kind: holdout, validation: 0.1, folds: 5, group: auto}
  resolution: {size: 128, crop_min: 0.8046875, swa_epochs: 3}
  augmentation: {flip: 0.5, intensity: 0.3, distortion: 0.3, crop: 0.25, contrast_limit: 0.2,
                 brightness_limit: 0.2, gamma_limit: [80, 120], elastic_alpha: 120.0,
                 elastic_sigma: 6.0, optical_limit: 2.0, grid_limit: 0.3}
  model: {name: unet_resnet34, encoder: resnet34, encoder_weights: none, stem: repeat, mean: 0.0,
          std: 1.0}
  loss: {bce: 1.0, dice: 1.0, smooth: 1.0, dice_per_image: false}
  scheduler: {name: cosine, lr_min: 0.0}
  swa: {name: paper, epochs: 2}
  postprocess: {binarization_threshold: 0.75, removal_threshold: 2048, removal_size: 1024,
                removal: total, top_threshold: null, contour_area: 0.0, fill_holes: false}
  scale: {name: mini, images: 440, positive_rate: 0.5, size: 0.25, epochs: 0.05, batch: 0.125,
          encoder_weights: none}
  handoff: {source: swa}
  machine: {accelerator: auto, devices: 1, precision: auto, workers: -1, threads: 0,
            deterministic: true, compile: false}
  log: {wandb: auto, project: pneumo, tensorboard: false, pictures: 4, pictures_every: 5}
origin:
  commit: 0481b17f22559a69e2003fdde2314158a579f2a6
  command: python -m pneumo.train +experiment=exp5 data=phantom scale=mini
  versions: {python: 3.11.7, pneumo: 0.1.0}
data:
  films: 128px-9a911545dac41155
  parts: ccf67247bf74c8287bbb96036c712db0c0fb20c8f5c9db35a9ddaa2e1c3af095
  annotations: f280a27e1d064289f2e379e77117554b4f6bef2311303745137acd778ed8637c
  training: 396
  validation: 44
  validation_positive: 22
  by_patient: true
  validation_positives_sharing_a_patient: 0.0
  left_aside: {}
parent:
  path: runs/exp5_stage1/phantom-mini/fold0-seed0/weights.safetensors
  sha256: 97ef7d9b4553855e5ca119a4fae45c855039ddd2e0a2a4e14771749c0936541b
"""


def written(folder, change=lambda values: None):
    values = yaml.safe_load(VERSION_1)
    change(values)
    (folder / runs.RECORD).write_text(yaml.safe_dump(values))
    return folder


def test_a_record_of_version_1_means_what_it_meant(tmp_path):
    about = record.read(written(tmp_path))
    config = about.config
    assert config.averaging == PaperAveraging(epochs=2)
    assert config.optimizer == Optimizer()
    assert config.model.architecture is Architecture.unet
    assert (config.model.mean, config.model.std) == ([0], [1])
    assert (config.loss.bce, config.loss.dice, config.loss.focal) == (1, 1, 0)
    assert (config.data.format, config.data.images, config.data.seed) == ("phantom", 2000, 0)
    assert not config.stage
    assert about.data.validation == 44
    assert about.parent.sha256.startswith("97ef7d9b")


def test_todays_command_asks_for_the_same_fit_with_stronger_distortions(tmp_path):
    from hydra import compose, initialize_config_dir

    from pneumo.settings import CONF
    from pneumo.training import lineage
    from pneumo.training.settings import load_config

    # of the scale of then
    typed = ["+experiment=exp5", "data=phantom", "scale=mini", "scale.epochs=0.05"]
    with initialize_config_dir(CONF, version_base="1.3"):
        wanted = load_config(compose("train", typed)).scaled({"experiment", "data", "scale"})
    recorded = record.read(written(tmp_path)).config
    assert runs.differences(recorded.to_dict(), wanted.to_dict(), lineage.INCIDENTAL) == [
        "augmentation.elastic_affine: 0.0 → 3.6",
        "augmentation.grid_normalized: True → False",
    ]


def test_the_best_epoch_was_that_of_the_best_iou(tmp_path):
    def best(values):
        values["config"]["handoff"]["source"] = "best"

    assert record.read(written(tmp_path, best)).config.handoff.score is Watched.iou


def test_a_learned_stem_was_of_3_by_3(tmp_path):
    def conv(values):
        values["config"]["model"]["stem"] = "conv"

    assert record.read(written(tmp_path, conv)).config.model.stem_kernel == 3


def test_the_one_seed_of_older_records_also_divided_the_films(tmp_path):
    def reseed(values):
        values["config"]["seed"] = 7

    first = record.read(written(tmp_path, reseed)).config
    values = first.to_dict()
    del values["split"]["seed"]
    second = record.read_config(values, 2)
    assert (first.seed, first.split.seed) == (second.seed, second.split.seed) == (7, 7)


@pytest.mark.parametrize(("per_image", "over"), [(True, Over.image), (False, Over.batch)])
def test_dice_of_older_records_was_of_each_image_or_of_the_batch(tmp_path, per_image, over):
    def of_images(values):
        values["config"]["loss"]["dice_per_image"] = per_image

    assert record.read(written(tmp_path, of_images)).config.loss.dice_over is over


def test_a_stage_of_version_1_is_known_by_its_name(tmp_path):
    def stage(values):
        values["config"]["experiment"] = "exp5_stage1"

    assert record.read(written(tmp_path, stage)).config.stage


def test_phantoms_of_version_1_are_known_whatever_their_name(tmp_path):
    def rename(values):
        values["config"]["data"]["name"] = "mine"

    data = record.read(written(tmp_path, rename)).config.data
    assert (data.name, data.format, data.images) == ("mine", "phantom", 2000)


def test_weights_were_trained_on_their_own_films_and_on_those_of_their_ancestors(tmp_path):
    """Which is not known where the parent is gone."""
    folders = [
        tmp_path / experiment / "phantom-mini" / "fold0-seed0"
        for experiment in ("exp5_stage1", "exp5")
    ]
    for folder, film in zip(folders, "ab", strict=True):
        folder.mkdir(parents=True)
        parts = {"training": {film: f"patient {film}"}, "validation": {"c": None}}
        (folder / runs.PARTS).write_text(json.dumps(parts))
    child = written(folders[1])
    assert record.trained_on(child, record.read(child)) is None
    parent = written(folders[0], lambda values: values.update(parent=None))
    assert record.trained_on(parent, record.read(parent)) == {"a": "patient a"}
    known = record.trained_on(child, record.read(child))
    assert known == {"a": "patient a", "b": "patient b"}


def test_what_is_written_comes_back(tmp_path):
    about = record.read(written(tmp_path))
    about.write(tmp_path)
    assert yaml.safe_load((tmp_path / runs.RECORD).read_text())["version"] == record.VERSION
    assert record.read(tmp_path) == about


def test_a_record_without_a_setting_of_today_takes_its_default(tmp_path):
    about = record.read(written(tmp_path))
    values = about.config.to_dict()
    less = copy.deepcopy(values)
    del less["loss"]["focal_gamma"], less["model"]["presence"], less["optimizer"]["clip"]
    assert record.read_config(less).to_dict() == values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["config"].update(colour=1), r"colour"),
        (lambda v: v["config"]["scheduler"].update(name="spiral"), r"scheduler\.name=spiral"),
        (lambda v: v.update(version=99), r"record version 99 is newer.*update pneumo"),
        (lambda v: v["data"].pop("parts"), r"parts"),
    ],
)
def test_one_that_is_not_understood_names_its_writer(tmp_path, change, message):
    with pytest.raises(PneumoError, match=message) as error:
        record.read(written(tmp_path, change))
    assert "written by pneumo 0.1.0 (commit 0481b17" in str(error.value)


def test_a_value_that_changed_on_the_disk_is_noticed(tmp_path):
    """One that could have been meant: it is neither YAML's mistake nor an unknown setting."""
    record.read(written(tmp_path)).write(tmp_path)
    path = tmp_path / runs.RECORD
    text = path.read_text()
    before = next(line for line in text.splitlines() if line.startswith("  epochs:"))
    path.write_text(text.replace(before, "  epochs: 9"))
    with pytest.raises(PneumoError, match=r"config\.yaml: damaged \(not as it was written"):
        record.read(tmp_path)
    by_hand = [line for line in path.read_text().splitlines() if not line.startswith("seal:")]
    path.write_text("\n".join(by_hand))
    assert record.read(tmp_path).config.epochs == 9


def test_damaged_parts_are_not_taken_for_unknown_ones(tmp_path):
    assert record.parts_of(tmp_path) is None
    path = tmp_path / runs.PARTS
    parts = {"training": {"a": "p", "b": None}, "validation": {"c": "q"}}
    seals.write_json(path, parts)
    assert record.parts_of(tmp_path) == parts
    path.write_text(path.read_text().replace('"c"', '"d"'))
    with pytest.raises(PneumoError, match=r"parts\.json: damaged"):
        record.parts_of(tmp_path)
    path.write_text('{"training": {}}')
    with pytest.raises(PneumoError, match=r"parts\.json: damaged"):
        record.parts_of(tmp_path)
