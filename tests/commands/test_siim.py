"""What a user sees of ``python -m pneumo.siim``."""


def test_table_i(real_data, command):
    folder = real_data / "siim"
    done = command(
        "pneumo.siim",
        "data=siim",
        f"data.root={folder}",
        f"data.annotations={folder / 'stage_2_train.csv.gz'}",
    )
    assert done.returncode == 0, done.stderr
    counts = {
        name: int(number.replace(",", ""))
        for number, name in (
            line.split("  ", 1) for line in map(str.strip, done.stdout.splitlines()[:7])
        )
    }
    assert counts == {
        "images in the table": 12_047,
        "rows": 12_954,
        "positive images": 2_669,
        "multi-row images": 624,
        "of them overlapping": 183,
        "films on disk": 71,
        "of them positive": 14,
    }
    assert "round 2" in done.stdout
