"""A whole film (read, decode, network, mask, overlay, files written) against the bare network.

    python -m benchmarks apply

The network and films of ``prediction``; two threads share each film. Bare: the same network on the
same film in memory, in PyTorch (channels_last, inference mode) and in ONNX Runtime; the faster one
counts. A round is one film.
"""

from itertools import cycle
from pathlib import Path

from benchmarks.prediction import MACHINE, made
from benchmarks.table import Row, alternate, compared
from pneumo.inference import bundle, findings, outputs
from pneumo.inference.settings import Save, Use
from pneumo.masks import rle


def measure(quick: bool) -> list[Row]:
    """Rows by processor time and by the clock."""
    with made(2 if quick else 8, quick) as those:
        onnx = bundle.load(those.model, MACHINE, "onnx")
        torch = bundle.load(those.model, MACHINE, "torch")
        numbers = {way: cycle(range(len(those.films))) for way in ("ours", "PyTorch", "ONNX")}
        out = those.folder / "out"
        out.mkdir()

        def whole(path: Path) -> None:
            reading = findings.read(str(path), path.read_bytes(), Use(), onnx)
            finding = findings.find(reading, onnx, onnx.rule)
            outputs.save(out, path.stem, finding, Save(), onnx)
            outputs.describe(finding)
            rle.encode(finding.stored_mask)

        def bare(name: str, model: bundle.Bundle) -> None:
            film = next(numbers[name])
            model.members[0][1](those.small[film : film + 1])

        ways = {
            "ours": lambda: whole(those.films[next(numbers["ours"])]),
            "PyTorch": lambda: bare("PyTorch", torch),
            "ONNX Runtime": lambda: bare("ONNX", onnx),
        }
        timed = alternate(ways, 2 if quick else 16)
        rows = []
        for clock, by in (("cpu", "processor time"), ("wall", "the clock")):
            fastest = min(list(ways)[1:], key=lambda way: timed[way].median(clock))
            row = compared(
                f"a film alone to mask and picture, {those.side}², by {by}",
                timed["ours"],
                timed[fastest],
                clock=clock,
                at_least=0.85,
                against=f"bare {fastest} on the film in memory",
            )
            rows.append(row)
        return rows
