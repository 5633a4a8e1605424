import numpy as np

from pneumo import postprocess
from pneumo.config import Postprocess, Removal

MAP = np.zeros((8, 8))
MAP[0, :3] = 0.9  # three pixels
MAP[4:6, 4:7] = 0.6  # six
MAP[6, 7] = 0.6  # touches the six at a corner


def test_a_pixel_must_exceed_the_threshold():
    assert postprocess.to_mask(MAP, Postprocess(0.6, 0)).sum() == 3
    assert postprocess.to_mask(MAP, Postprocess(0.59, 0)).sum() == 10


def test_total_rule_empties_the_whole_mask_below_the_threshold():
    assert postprocess.to_mask(MAP, Postprocess(0.5, 10, removal_size=8)).sum() == 10
    assert postprocess.to_mask(MAP, Postprocess(0.5, 11, removal_size=8)).sum() == 0


def test_component_rule_judges_each_8_connected_component():
    assert postprocess.to_mask(MAP, Postprocess(0.5, 4, 8, Removal.component)).sum() == 7
    assert postprocess.to_mask(MAP, Postprocess(0.5, 7, 8, Removal.component)).sum() == 7
    assert postprocess.to_mask(MAP, Postprocess(0.5, 8, 8, Removal.component)).sum() == 0


def test_removal_threshold_scales_with_the_area():
    assert postprocess.removal_pixels(Postprocess(0.5, 2048, 1024), (512, 512)) == 512
    assert postprocess.removal_pixels(Postprocess(0.5, 2048, 1024), (1024, 1024)) == 2048
