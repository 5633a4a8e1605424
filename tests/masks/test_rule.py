import numpy as np

from pneumo.masks.rule import exceeds, removal_pixels, to_mask
from pneumo.masks.settings import Postprocess, Removal

MAP = np.zeros((8, 8))
MAP[0, :3] = 0.9  # three pixels
MAP[4:6, 4:7] = 0.6  # six
MAP[6, 7] = 0.6  # touches the six at a corner


def test_a_pixel_must_exceed_the_threshold():
    assert to_mask(MAP, Postprocess(0.6, 0)).sum() == 3
    assert to_mask(MAP, Postprocess(0.59, 0)).sum() == 10


def test_total_rule_empties_the_whole_mask_below_the_threshold():
    assert to_mask(MAP, Postprocess(0.5, 10, removal_size=8)).sum() == 10
    assert to_mask(MAP, Postprocess(0.5, 11, removal_size=8)).sum() == 0


def test_component_rule_judges_each_8_connected_component():
    assert to_mask(MAP, Postprocess(0.5, 4, 8, Removal.component)).sum() == 7
    assert to_mask(MAP, Postprocess(0.5, 7, 8, Removal.component)).sum() == 7
    assert to_mask(MAP, Postprocess(0.5, 8, 8, Removal.component)).sum() == 0


def test_removal_threshold_scales_with_the_area():
    assert removal_pixels(Postprocess(0.5, 2048, 1024), (512, 512)) == 512
    assert removal_pixels(Postprocess(0.5, 2048, 1024), (1024, 1024)) == 2048


def test_triplet_rule_counts_above_the_top_and_keeps_what_is_above_the_bottom():
    """sneddy: clf = p > top; m = p > bottom; m is emptied if clf has fewer pixels than the area."""
    assert to_mask(MAP, Postprocess(0.3, 3, 8, top_threshold=0.75)).sum() == 10
    assert to_mask(MAP, Postprocess(0.3, 4, 8, top_threshold=0.75)).sum() == 0


def test_the_gate_empties_films_whose_presence_score_is_too_low():
    """amirassov: a film is empty if its score is below the threshold, so an equal one passes."""
    gated = Postprocess(0.5, 0, presence_threshold=0.4)
    assert [to_mask(MAP, gated, score).sum() for score in (0.39, 0.4, 1.0)] == [0, 10, 10]
    assert to_mask(MAP, Postprocess(0.5, 0), 0.0).sum() == 10


def test_small_outlines_go_and_holes_are_filled():
    ring = np.zeros((16, 16))
    ring[2:9, 2:9] = 0.9
    ring[4:7, 4:7] = (
        0  # a hole of nine pixels; the outline encloses 36 (through the centres of its pixels)
    )
    ring[12:15, 12:15] = 0.9  # an outline that encloses 4
    rule = {"removal_threshold": 0, "removal_size": 16}
    assert to_mask(ring, Postprocess(0.5, **rule)).sum() == 40 + 9
    assert to_mask(ring, Postprocess(0.5, **rule, fill_holes=True)).sum() == 49 + 9
    assert to_mask(ring, Postprocess(0.5, **rule, contour_area=4)).sum() == 40
    assert to_mask(ring, Postprocess(0.5, **rule, contour_area=3.9)).sum() == 40 + 9
    assert to_mask(ring, Postprocess(0.5, **rule, contour_area=4, fill_holes=True)).sum() == 49
    assert (
        to_mask(ring, Postprocess(0.5, **{**rule, "removal_size": 8}, contour_area=1)).sum() == 40
    )


def test_stored_levels_are_judged_as_the_probabilities_they_stand_for():
    levels = np.arange(256, dtype=np.uint8)[None]
    for percent in range(1, 100):
        threshold = percent / 100
        assert np.array_equal(exceeds(levels, threshold), levels / 255 > threshold)
