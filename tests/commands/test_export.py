"""What a user sees of ``python -m pneumo.export``."""

from conftest import complaint, launch


def test_export_replaces_only_bundles(model, finished, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    line = complaint(
        launch(
            finished[0],
            "run=runs/exp5/*/*",
            f"out={tmp_path}",
            "resamples=0",
            module="pneumo.export",
        )
    )
    assert "not a bundle" in line
    assert (tmp_path / "kept.txt").read_text() == "mine"
