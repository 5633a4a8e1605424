"""Predictions whose truth is known by their making."""

import numpy as np

from pneumo.inference import maps
from pneumo.inference.maps import Case


def synthetic(folder, name, films=40, noise=0.15, first=0, dimmed=(), unlabelled=(), presence=None):
    """Predictions at 32² of films whose truth is a square of 256 or 512 pixels at 1024² to a side,
    or nothing; the presence scores are as given.
    """
    rng = np.random.default_rng([first, films])
    levels, cases = np.zeros((films, 32, 32), np.uint8), []
    for film in range(films):
        side, corner = (8, 16)[film % 2], int(rng.integers(0, 16))
        annotations = []
        if film % 4:
            levels[film, corner : corner + side, corner : corner + side] = 150
            start, length = corner * 32, side * 32
            gap = start * 1024 + start
            annotations = [
                f"{gap} {length} "
                + " ".join(f"{1024 - length} {length}" for _ in range(length - 1))
            ]
        levels[film] = np.clip(levels[film] + rng.normal(40, 255 * noise, (32, 32)), 0, 255)
        if str(first + film) in dimmed:
            levels[film] //= 3
        if str(first + film) in unlabelled:
            annotations = None
        cases.append(
            Case(
                str(first + film),
                "",
                annotations,
                (1024, 1024),
                None,
                f"p{(first + film) // 2}",
                ("AP", "PA")[film % 2],
            )
        )

    def fill(arrays, begin):
        arrays.plain[:], arrays.flip[:] = levels, levels
        if presence is not None:
            arrays.presence[:] = np.array(presence)[:, None]
        yield films

    facts = {"run": name}
    return maps.write(folder / name, name, cases, 32, fill, facts)
