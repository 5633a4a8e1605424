"""Films that are judged together: folds, or halves by patient."""

from evaluation.synthetic import synthetic

from pneumo.evaluation.apart import apart


def test_several_parts_are_groups_of_their_own(tmp_path):
    parts = [synthetic(tmp_path, str(first), films=6, first=first) for first in (0, 100)]
    group, how = apart(parts, 0)
    assert group.tolist() == [0] * 6 + [1] * 6
    assert "2 folds" in how


def test_one_part_is_halved_so_that_no_patient_is_on_both_sides(tmp_path):
    part = synthetic(tmp_path, "a")
    group, how = apart([part], 0)
    patients = [
        {case.patient for case, g in zip(part.cases, group, strict=True) if g == half}
        for half in (0, 1)
    ]
    assert not patients[0] & patients[1]
    assert abs(len(patients[0]) - len(patients[1])) <= 2
    assert "halves by patient" in how
