"""Which films are judged together, so that what is chosen or fitted for some comes from others."""

from collections.abc import Sequence

import numpy as np

from pneumo.data.parts import divide
from pneumo.data.settings import Split, SplitKind
from pneumo.inference.maps import Predictions


def apart(parts: Sequence[Predictions], seed: int) -> tuple[np.ndarray, str]:
    """The group of each film of the parts, int64 (n,), and how groups are told, in words.

    The folds, or two halves by patient. What is chosen for one group is chosen on all others.
    Raises PneumoError where the films cannot be halved.
    """
    cases = [case for part in parts for case in part.cases]
    patients = [case.patient for case in cases]
    known = any(patients)
    if len(parts) > 1:
        group = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        where = {
            (patient, int(number))
            for patient, number in zip(patients, group, strict=True)
            if patient
        }
        crossing = len(where) > len({patient for patient, _ in where})
        how = f"out of fold, {len(parts)} folds: chosen on the other folds"
        if not known:
            how += "; patients unknown"
        elif crossing:
            how += "; patients have films in several folds"
        return group, how
    half = Split(kind=SplitKind.kfold, folds=2, seed=seed)
    second = divide([bool(case.annotations) for case in cases], patients, half, 0).validation
    by = "patient" if known else "film (patients unknown)"
    how = f"nested halves by {by}: chosen on one half, scored on the other"
    return np.isin(np.arange(len(cases)), second).astype(np.int64), how
