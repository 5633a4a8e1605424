"""A study's figure shows every arm where its scores and its cost put it."""

from xml.etree import ElementTree

from evaluation.test_study import example

from pneumo.evaluation import figure

SVG = "{http://www.w3.org/2000/svg}"


def circles(text):
    """The points (those with a title) of an SVG: title, x, y, fill."""
    root = ElementTree.fromstring(text)
    return [
        (one[0].text, float(one.get("cx")), float(one.get("cy")), one.get("fill"))
        for one in root.iter(f"{SVG}circle")
        if len(one)
    ]


def test_points_stand_where_scores_and_costs_are():
    found = example()
    text = figure.svg(found)
    first, _, other, _ = circles(text)
    assert first[0].startswith("reference: 0.")
    assert other[1] > first[1]  # it cost more
    assert other[2] < first[2]  # and is better, which is above
    assert [point[3] == "#fff" for point in circles(text)] == [False, True, False, True]
    words = " ".join(ElementTree.fromstring(text).itertext())
    for said in ("<better>", "minutes of training on CPU", "Dice on positives", found.basis):
        assert said in words


def test_where_a_time_is_not_known_compute_stands_for_it():
    at, unit = figure.costs(example((None, 60.0)))
    assert at == [1, 2]
    assert unit == "compute, reference = 1"


def test_arms_of_equal_cost_stand_side_by_side():
    places = [point[1] for point in circles(figure.svg(example((600.0, 600.0))))]
    assert places == sorted(places)
    assert len(set(places)) == 4
    assert max(places) - min(places) == figure.APART + figure.PAIR
    assert figure._side_by_side([100, 300, 101, 99]) == [100, 300, 130, 70]
    assert figure._side_by_side([100, 110]) == [90, 120]


def test_axes_have_round_ticks():
    axis = figure.Axis(0.12, 0.58, 400, 62)
    assert [tick["text"] for tick in axis.ticks()] == ["0.2", "0.3", "0.4", "0.5"]
    assert axis.at(0.12) == 400
    assert axis.at(2.0) == 62
    assert [tick["text"] for tick in figure.Axis(0, 13, 0, 9).ticks()][:3] == ["0", "2", "4"]


def test_the_page_holds_both_arms_and_needs_no_network():
    page = figure.html(example())
    assert "reference, no TTA" in page
    assert 'src="http' not in page
