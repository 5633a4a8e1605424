"""A whole film (read, decode, network, mask, overlay, files written) against the bare network.

    python -m benchmarks apply

The network and films of ``prediction``; two threads share each film. Bare: the same network on the
same film in memory, in PyTorch (channels_last, inference mode) and in ONNX Runtime; the faster one
counts. A round is one film.
"""

from pathlib import Path

from benchmarks.prediction import MACHINE, alone, made
from benchmarks.table import Row
from pneumo.inference import bundle, findings, outputs
from pneumo.inference.settings import Save, Use
from pneumo.masks import rle


def measure(quick: bool) -> list[Row]:
    """Rows by processor time and by the clock."""
    with made(4 if quick else 8, quick) as those:
        onnx = bundle.load(those.model, MACHINE, "onnx")
        out = those.folder / "out"
        out.mkdir()

        def whole(path: Path) -> None:
            reading = findings.read(str(path), path.read_bytes(), Use(), onnx)
            finding = findings.find(reading, onnx, onnx.rule)
            outputs.save(out, path.stem, finding, Save(), onnx)
            outputs.describe(finding)
            rle.encode(finding.stored_mask)

        return alone("a film alone to mask and picture", those, whole, onnx, quick, goal=0.85)
