"""What stands in for a network's bundle and for films: a bright quarter, a film with other tags."""

import io
from pathlib import Path

import numpy as np
import pydicom

from pneumo.inference import bundle, dicom_objects, findings
from pneumo.inference.settings import Polarity, Use
from pneumo.masks.settings import Postprocess


class Bright(bundle.Bundle):
    """Stands in for a bundle: probability .9 in the upper left quarter of the upright film."""

    def __init__(self, rule=None):
        card = {"name": "bright", "members": [], "data": [{"format": "siim"}]}
        super().__init__(Path(), card, [], rule or Postprocess(0.5, 0), False, "torch")

    def says(self, film, tta=None):
        levels = np.zeros((32, 32), np.uint8)
        levels[:16, :16] = 230
        return levels, None


def edited(path, **tags):
    """A film's bytes with other tags."""
    dataset = pydicom.dcmread(path)
    for key, value in tags.items():
        setattr(dataset, key, value)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def finding(content, rule=None, polarity=Polarity.tags, **use):
    reading = findings.read("x.dcm", content, Use(polarity=polarity, **use))
    return findings.find(reading, Bright(), rule or Postprocess(0.5, 0))


MAKER = dicom_objects.Maker(
    "m", "Model m: trained on 396 drawn phantoms; Dice 0.798 on 44 held out"
)


SHRUNK = {"PixelSpacing": [0.139, 0.139], "ImagerPixelSpacing": [0.139, 0.139]}


def comment(report):
    """The text that a Structured Report ends with."""
    (text,) = (
        item.TextValue
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    )
    return text
