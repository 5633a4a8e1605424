import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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


def regions(mask, steps):
    """The connected regions of a mask, each a set of pixels, by flooding."""
    left, found = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        region, front = set(), [left.pop()]
        while front:
            y, x = front.pop()
            region.add((y, x))
            near = {(y + down, x + across) for down, across in steps} & left
            left -= near
            front += near
        found.append(region)
    return found


SIDES = [(0, 1), (1, 0), (0, -1), (-1, 0)]
CORNERS = [*SIDES, (1, 1), (1, -1), (-1, 1), (-1, -1)]


def flooded(probability, rule):
    """What ``to_mask`` promises, pixel by pixel, without outlines' areas."""
    mask = probability > rule.binarization_threshold
    least = rule.removal_threshold * mask.size / rule.removal_size**2
    kept = np.zeros(mask.shape, np.uint8)
    top = rule.top_threshold
    counted = (probability > (rule.binarization_threshold if top is None else top)).sum()
    for region in regions(mask, CORNERS):
        if (len(region) if rule.removal is Removal.component else counted) >= least:
            for pixel in region:
                kept[pixel] = 1
    if rule.fill_holes:
        around = np.pad(kept, 1)
        for region in regions(around == 0, SIDES):
            if (0, 0) not in region:
                for y, x in region:
                    kept[y - 1, x - 1] = 1
    return kept


LEVELS = arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 76, 77, 128, 179, 255]))


@given(
    LEVELS,
    st.sampled_from([0.2, 0.3, 0.5]),
    st.integers(0, 20),
    st.sampled_from([4, 8]),
    st.sampled_from([(Removal.component, None), (Removal.total, None), (Removal.total, 0.7)]),
    st.booleans(),
)
def test_a_rule_is_what_flooding_pixel_by_pixel_makes_of_it(
    levels, threshold, area, size, removal, fill
):
    kind, top = removal
    rule = Postprocess(threshold, area, size, kind, top, fill_holes=fill)
    expected = flooded(levels / 255, rule)
    for given_map in (levels, levels / 255):
        mask = to_mask(given_map, rule)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, expected)
