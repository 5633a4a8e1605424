"""A study's figure: Dice on positives against what training cost, with intervals.

As SVG, which a README can show, and as an interactive page.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pneumo import templates
from pneumo.evaluation.study import TITLES, ArmFound, StudyFound, Value

SVG, HTML = "study.svg", "study.html"
SCORE = "dice_positive"
# Okabe and Ito 2008, jfly.uni-koeln.de/color: told apart by colour-blind readers too
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8A8A00",
    "#999999",
    "#332288",
    "#882255",
    "#44AA99",
)
WIDTH, HEIGHT = 900, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 620, 62, 400  # of the axes
PAIR = 12  # pixels between the two points of an arm
APART = 30  # pixels between arms that would lie on each other


@dataclass
class Axis:
    """A range of values on a range of pixels."""

    low: float
    high: float
    start: float
    stop: float

    def at(self, value: float) -> float:
        """The place of a value; one outside lies on the axis' end."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start), 1)

    def ticks(self) -> list[dict[str, Any]]:
        """Round values on the axis, with their places."""
        step = _step(self.high - self.low)
        first = np.ceil(self.low / step - 1e-9) * step + 0.0  # never -0
        values = np.arange(first, self.high + step * 1e-6, step)
        return [{"at": self.at(float(value)), "text": f"{value:.6g}"} for value in values]


def _step(span: float) -> float:
    """A round step of which four to ten make up a span."""
    power = 10.0 ** np.floor(np.log10(span))
    for factor in (0.1, 0.2, 0.5):
        if span / (factor * power) <= 8:
            return float(factor * power)
    return float(power)


def costs(found: StudyFound) -> tuple[list[float], str]:
    """What each arm cost, and in which unit.

    Time of training, where that of every arm is known; else compute.
    """
    times = [arm.mean_seconds for arm in found.arms]
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return [arm.compute for arm in found.arms], f"compute, {found.reference} = 1"
    device = f" on {', '.join(found.devices)}" if found.devices else ""
    longest = max(known)
    unit, size = ("hours", 3600) if longest >= 5400 else ("minutes", 60)
    return [time / size for time in known], f"{unit} of training{device}, parents included"


def _shown(arm: ArmFound) -> list[tuple[Value, bool]]:
    """The points of an arm: with and without TTA."""
    both = [(arm.tta[SCORE], True), (arm.plain[SCORE], False)]
    return [(value, tta) for value, tta in both if np.isfinite(value.value)]


def svg(found: StudyFound) -> str:
    """The figure as SVG."""
    at, unit = costs(found)
    values = [value for arm in found.arms for value, _ in _shown(arm)]
    bounds = [bound for one in values for bound in (one.low, one.high) if np.isfinite(bound)]
    low, high = min(bounds, default=0.0), max(bounds, default=1.0)
    margin = 0.06 * max(high - low, 0.02)
    vertical = Axis(max(0.0, low - margin), min(1.0, high + margin), BOTTOM, TOP)
    beyond = max(0.5 * (max(at) - min(at)), 0.3 * max(at))
    horizontal = Axis(max(0.0, min(at) - beyond), max(at) + beyond, LEFT, RIGHT)
    middles = _side_by_side([horizontal.at(cost) for cost in at])
    points: list[dict[str, Any]] = []
    for place, (arm, middle) in enumerate(zip(found.arms, middles, strict=True)):
        colour = COLOURS[place % len(COLOURS)]
        for value, tta in _shown(arm):
            points.append(
                {
                    "x": round(middle + PAIR * (-0.5 if tta else 0.5), 1),
                    "y": vertical.at(value.value),
                    "low": vertical.at(_or(value.low, value.value)),
                    "high": vertical.at(_or(value.high, value.value)),
                    "colour": colour,
                    "fill": colour if tta else "#fff",
                    "text": f"{arm.name}: {value.value:.4f}",
                }
            )
    legend = [
        {"at": TOP + 18 + 22 * place, "text": arm.name, "colour": COLOURS[place % len(COLOURS)]}
        for place, arm in enumerate(found.arms)
    ]
    height = max(HEIGHT, TOP + 22 * len(legend) + 120)
    return templates.load("pneumo.evaluation", "study.svg").render(
        title=f"{found.name}: {found.setting}",
        basis=found.basis,
        width=WIDTH,
        height=height,
        left=LEFT,
        right=RIGHT,
        top=TOP,
        bottom=BOTTOM,
        x_ticks=horizontal.ticks(),
        y_ticks=vertical.ticks(),
        x_title=unit,
        y_title=TITLES[SCORE],
        points=points,
        legend=legend,
        key_at=TOP + 22 * len(legend) + 40,
    )


def _or(bound: float, value: float) -> float:
    return bound if np.isfinite(bound) else value


def _side_by_side(places: list[float]) -> list[float]:
    """Places that lie apart, in their order, each as near as can be to where it was."""
    groups: list[list[int]] = []
    for one in sorted(range(len(places)), key=lambda one: places[one]):
        groups.append([one])
        while len(groups) > 1 and _gap(groups[-2], groups[-1], places) < 0:
            last = groups.pop()
            groups[-1] += last
    spread = list(places)
    for group in groups:
        for rank, one in enumerate(group):
            spread[one] = _middle(group, places) + APART * (rank - (len(group) - 1) / 2)
    return spread


def _middle(group: list[int], places: list[float]) -> float:
    return sum(places[one] for one in group) / len(group)


def _gap(left: list[int], right: list[int], places: list[float]) -> float:
    """The room between two groups once they are spread."""
    between = _middle(right, places) - _middle(left, places)
    return between - APART * (len(left) + len(right)) / 2


def html(found: StudyFound) -> str:
    """The figure as a page of its own, which needs no network."""
    import plotly.graph_objects as go  # a second of import

    at, unit = costs(found)
    figure = go.Figure()
    for place, (arm, cost) in enumerate(zip(found.arms, at, strict=True)):
        for value, tta in _shown(arm):
            figure.add_scatter(
                x=[cost],
                y=[value.value],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [_or(value.high, value.value) - value.value],
                    "arrayminus": [value.value - _or(value.low, value.value)],
                },
                mode="markers",
                name=arm.name if tta else f"{arm.name}, no TTA",
                marker={
                    "color": COLOURS[place % len(COLOURS)],
                    "size": 11,
                    "symbol": "circle" if tta else "circle-open",
                },
                hovertext=arm.what,
            )
    figure.update_layout(
        title={"text": f"{found.name}: {found.setting}<br><sub>{found.basis}</sub>"},
        template="plotly_white",
        xaxis={"title": unit, "rangemode": "tozero"},
        yaxis_title=TITLES[SCORE],
    )
    return str(figure.to_html(include_plotlyjs=True, config={"responsive": True}, div_id="study"))
