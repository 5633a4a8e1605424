"""Pneumothorax segmentation in chest X-rays. Importing it loads no torch and reaches for no network."""

import os

# albumentations asks a package index for its newest version when imported, unless told not to beforehand
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
