"""Which training films each epoch of a fit holds."""

from collections.abc import Sequence

import numpy as np

from pneumo.errors import PneumoError
from pneumo.masks.rle import SHAPE
from pneumo.training.options import Sampling, SharedEpochs

SIDE = SHAPE[0]  # of the challenge's films: masks are measured in its pixels


class EpochFilms:
    """The films of each epoch (from 0): all once, or all positives once and drawn negatives.

    Positives with small masks are in none, where the sampling says so. Seed and epoch alone decide,
    so that a resumed fit and every process draw the same.
    """

    def __init__(
        self,
        config: Sampling,
        positive: Sequence[bool],
        epochs: int,
        seed: int,
        areas: Sequence[float] = (),
    ):
        """Prepare a fit.

        Args:
            config: which films.
            positive: for each film of the training part, whether it shows pneumothorax.
            epochs: of the whole fit.
            seed: of the draws and the order.
            areas: pixels at 1024² of each film's mask, needed for ``config.least_px`` alone.

        Raises:
            PneumoError: a share of positives where no film is positive, or none is negative; no
                positive film whose mask is large enough.
        """
        self.config, self.epochs, self.seed = config, epochs, seed
        labels = np.asarray(positive, dtype=bool)
        small = np.zeros_like(labels)
        if config.least_px:
            small = labels & (np.asarray(areas) < config.least_px)
        self.left_out = int(small.sum())  # films with small masks
        self.films = np.flatnonzero(~small)
        self.positives, self.negatives = np.flatnonzero(labels & ~small), np.flatnonzero(~labels)
        if self.left_out and not len(self.positives):
            raise PneumoError(
                f"sampling.least_px={config.least_px}: the masks of all {self.left_out:,} positive "
                "training films are smaller, so none would be left; lower it"
            )
        if isinstance(config, SharedEpochs):
            self._need(self.positives, "positive")
            if self._wanted(config, epochs - 1) or self._wanted(config, 0):
                self._need(self.negatives, "negative")

    def count(self, epoch: int) -> int:
        """How many films an epoch holds."""
        return len(self.positives) + self._drawn(epoch)

    def order(self, epoch: int, turn: int = 0) -> np.ndarray:
        """The films of an epoch in random order: int64 (count,), places in the training part.

        Another ``turn`` draws them anew.
        """
        random = np.random.default_rng([self.seed, epoch, turn] if turn else [self.seed, epoch])
        if not isinstance(self.config, SharedEpochs):
            return self.films[random.permutation(len(self.films))]
        drawn = random.choice(self.negatives, self._drawn(epoch), self.config.replacement)
        return random.permutation(np.concatenate([self.positives, drawn]))

    def _drawn(self, epoch: int) -> int:
        """How many negatives an epoch holds."""
        if not isinstance(self.config, SharedEpochs):
            return len(self.negatives)
        wanted = self._wanted(self.config, epoch)
        return wanted if self.config.replacement else min(wanted, len(self.negatives))

    def _wanted(self, config: SharedEpochs, epoch: int) -> int:
        share = config.at(epoch, self.epochs)
        # as released, rounding errors of floats included: for .8 of 4 positives it is 0, not 1
        return int(len(self.positives) * (1 - share) / share)

    def _need(self, films: np.ndarray, kind: str) -> None:
        if not len(films):
            raise PneumoError(
                f"sampling={self.config.name}: no training film is {kind}; use sampling=all, or "
                "another split"
            )


class SharedSets:
    """Films of several data sets, each in its share of an epoch as long as without shares.

    A set gives its films as its own ``EpochFilms`` draws them: again and again where it has fewer
    than its share, some of them where it has more.
    """

    def __init__(self, each: Sequence[tuple[np.ndarray, EpochFilms]], shares: Sequence[float]):
        """Prepare a fit.

        Args:
            each: a set's places in the training part, and the epochs of these films alone.
            shares: of the sets, in the same order; only their ratios count.
        """
        self.each = each
        self.bounds = np.cumsum(shares) / np.sum(shares)
        self.left_out = sum(drawn.left_out for _, drawn in each)

    def count(self, epoch: int) -> int:
        """How many films an epoch holds."""
        return sum(drawn.count(epoch) for _, drawn in self.each)

    def order(self, epoch: int) -> np.ndarray:
        """The films of an epoch in random order: int64 (count,), places in the training part."""
        total = self.count(epoch)
        ends = np.rint(self.bounds * total).astype(int)
        chosen = []
        for (places, drawn), wanted in zip(self.each, np.diff(ends, prepend=0), strict=True):
            turns = -(-wanted // drawn.count(epoch))
            own = [drawn.order(epoch, turn) for turn in range(turns)]
            if own:
                chosen.append(places[np.concatenate(own)[:wanted]])
        seed = self.each[0][1].seed
        return np.random.default_rng([seed, epoch, len(self.each)]).permutation(
            np.concatenate(chosen)
        )
