"""What the page's server judges; tests/commands/test_view.py looks at the page itself."""

import io

import numpy as np
import pytest
from inference.stand_ins import Bright
from PIL import Image

from pneumo.data.settings import MaskSize
from pneumo.inference import server
from pneumo.inference.settings import View
from pneumo.masks import rle
from pneumo.masks.settings import Postprocess


def test_the_page_judges_by_the_whole_rule(film):
    """A triplet rule: other sliders must not drop its top threshold."""
    rule = Postprocess(0.3, 1000, top_threshold=0.95)
    films = server.Films(Bright(rule), View())
    key = films.add("x.dcm", film.read_bytes())
    assert films.describe(key)["pneumothorax"] is False
    assert films.at(key, 0.4, 500).area == 0
    assert films.at(key, 0.4, 0).area > 0


@pytest.mark.parametrize("size", MaskSize)
def test_the_page_reads_run_lengths_at_the_size_that_is_said(tmp_path, size):
    """A picture of another size: the challenge's at 1024², or its own."""
    rows, columns = shape = (600, 400) if size is MaskSize.film else (1024, 1024)
    mask = np.zeros(shape, np.uint8)
    mask[rows // 2 :, columns // 4 : columns // 2] = 1
    (tmp_path / "t.csv").write_text(f"ImageId,EncodedPixels\na,{rle.encode(mask)}\n")
    picture = io.BytesIO()
    Image.fromarray(np.full((600, 400), 90, np.uint8)).save(picture, "PNG")
    films = server.Films(Bright(), View(annotations=str(tmp_path / "t.csv"), mask_size=size))
    truth = films.kept[films.add("a.png", picture.getvalue())].truth
    assert truth.shape == (600, 400)
    assert truth[300:, 100:200].all()
    assert truth.sum() == 300 * 100
