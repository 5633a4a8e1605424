"""Data settings become films, whatever the format."""

import cv2
import numpy as np

from pneumo.data import index
from pneumo.data.settings import FolderData, PhantomData, SiimData


def test_phantoms_are_drawn_where_the_runs_are_and_read_like_the_challenges_films(tmp_path):
    drawn = index.read(PhantomData(name="phantom", images=4, positive_rate=0.5), str(tmp_path))
    assert len(drawn.items) == 4
    assert sum(item.positive for item in drawn.items) == 2
    (root,) = (tmp_path / "phantom").glob("4-0.5-seed0-*/train-rle.csv")
    assert all(item.path.is_relative_to(root.parent) for item in drawn.items)
    asked = SiimData(
        name="own",
        root=str(root.parent),
        annotations=str(root),
        patients=str(root.parent / "patients.csv"),
    )
    assert index.read(asked, "nowhere").items == drawn.items


def test_a_folder_of_films_beside_a_folder_of_masks(tmp_path):
    for name in ("films", "masks"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), np.full((64, 64), 255, np.uint8))
    data = FolderData(name="own", root=str(tmp_path / "films"), masks=str(tmp_path / "masks"))
    (item,) = index.read(data, "nowhere").items
    assert (item.id, item.positive) == ("a", True)
    assert item.mask((64, 64)).all()
