"""A bundle in three lines of Python: load it, call it on a film, look at what it found."""

from pathlib import Path

import numpy as np

from pneumo.data.dicom import Film
from pneumo.data.spacing import Spacing
from pneumo.inference import bundle, findings
from pneumo.inference.findings import Finding, Reading
from pneumo.inference.settings import Unsuitable, Use
from pneumo.masks.settings import Postprocess
from pneumo.settings import Machine


class LoadedModel:
    """A bundle ready for use. Calling it on a film gives a ``Finding``."""

    def __init__(
        self,
        folder: Path,
        machine: Machine,
        engine: str = "auto",
        unsuitable: Unsuitable = Unsuitable.refuse,
    ):
        self.bundle = bundle.load(folder, machine, engine)
        self.unsuitable = unsuitable

    @property
    def rule(self) -> Postprocess:
        """Thresholds and removal rule that the bundle carries."""
        return self.bundle.rule

    def __call__(
        self,
        film: str | Path | np.ndarray,
        tta: bool | None = None,
        spacing: tuple[float, float] | None = None,
    ) -> Finding:
        """What the model finds on one film.

        Args:
            film: a DICOM, PNG or JPEG file; or an upright film with dark lungs, uint8 (rows,
                columns).
            tta: mean with the mirror image; None: as the bundle says.
            spacing: mm between the upright film's rows and between its columns, instead of what the
                header says.

        Returns:
            ``mask`` (uint8 of 0 and 1) and ``levels`` (probability in levels of 1/255, uint8), both
            of the upright film's shape; ``probability`` of the film, ``area`` in pixels,
            ``area_mm2`` where a spacing is known and believed, else None; ``mm_plane``, where these
            millimetres are true; ``notes`` on how the film was read.

        Raises:
            PneumoError: a file that is no film, cannot be read, or that the model was not made for.
            TypeError, ValueError: an array of another dtype or shape.
        """
        if isinstance(film, np.ndarray):
            if film.dtype != np.uint8:
                raise TypeError(f"film: dtype {film.dtype}, expected uint8")
            if film.ndim != 2:
                raise ValueError(f"film: shape {film.shape}, expected (rows, columns)")
            reading = Reading(Film(pixels=film, stored_shape=(film.shape[0], film.shape[1])))
        else:
            use = Use(unsuitable=self.unsuitable)
            reading = findings.read(str(film), Path(film).read_bytes(), use, self.bundle)
        if spacing is not None:
            reading.film.spacing, reading.film.doubt = Spacing(*spacing), ""
        return findings.find(reading, self.bundle, self.rule, tta)
