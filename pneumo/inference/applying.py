"""A bundle on any films: a mask, an image-level score and an area for each.

They are written as tables, pictures and DICOM objects that other systems read.
"""

import errno
import hashlib
import logging
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pneumo.errors import PneumoError, visible
from pneumo.inference import bundle, dicom_objects, findings, inputs, outputs
from pneumo.inference.privacy import OutputNames
from pneumo.inference.settings import Names, Predict
from pneumo.masks import rle

log = logging.getLogger(__name__)


def apply(settings: Predict) -> None:
    """The command ``python -m pneumo.predict model=… input=… out=…``.

    Raises PneumoError at the end if films failed (the others' results are kept), or at once if
    nothing can be done.
    """
    if not settings.input:
        raise PneumoError(
            "input is not set: give DICOM files, pictures, folders or zip archives, "
            "input=<path> or input=[<path>,<path>]"
        )
    if isinstance(settings.input, str):
        paths = [settings.input]
    else:
        paths = [str(path) for path in settings.input]
    model = bundle.load(Path(str(settings.model)), settings.machine, settings.engine)
    rule = settings.postprocess.over(model.rule)
    spacings = findings.spacings(settings)
    log.info("%s", model.experience)
    out = Path(settings.out)
    sources = inputs.sources(paths, settings.max_megabytes << 20, leave_out=out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PneumoError(f"out={out}: cannot be made ({error.strerror})") from None
    if settings.save.segmentation or settings.save.capture or settings.save.report:
        dicom_objects.require()
    rows: list[dict[str, Any]] = []
    runs: list[tuple[str, str]] | None = [] if settings.save.rle else None
    failed: list[tuple[str, str]] = []
    skipped = 0
    names = OutputNames(keep=settings.names is Names.keep)
    try:
        for source in tqdm(sources, desc="Films", unit="film", disable=not sys.stderr.isatty()):
            shown = _printable(source.name)
            if source.content is None:
                failed.append((shown, source.fault or ""))
                continue
            if not source.is_film and not source.asked:
                skipped += 1
                continue
            try:
                reading = findings.read(shown, source.content, settings, model, spacings)
                finding = findings.find(reading, model, rule, settings.tta)
                name = names.of(shown, reading.film, source.content)
                reading.notes += outputs.save(out, name, finding, settings.save, model)
            except PneumoError as error:
                reason = str(error).removeprefix(f"{shown}: ")
                failed.append((names.shown(shown, source.content), reason))
                continue
            except OSError as error:
                # a full disk or quota fails for every film that follows
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                reason = f"its results cannot be written ({error.strerror})"
                failed.append((names.shown(shown, source.content), reason))
                continue
            # against patient identity leaking into the table through the film's path
            hidden = names.hides(shown, reading.film.header)
            rows.append(
                {
                    "film": name,
                    **outputs.describe(finding),
                    "uid": reading.film.uid or "",
                    "source": "" if hidden else shown,
                    "sha256": hashlib.sha256(source.content).hexdigest(),
                }
            )
            if runs is not None:
                runs.append((name, rle.encode(finding.stored_mask)))
    finally:  # a stop keeps what was found until then
        if rows or failed:
            outputs.write_tables(out, rows, runs, failed, model, rule)
        elif not any(out.iterdir()):
            out.rmdir()
    log.info(outputs.summary(rows, failed, skipped, out))
    if names.renamed:
        log.info(
            "Named by UID or digest, since the file's name or folder tells who the patient is: "
            f"{names.renamed} (the table has both; names=keep keeps the names)"
        )
    if failed:
        raise PneumoError(
            f"{len(failed)} of {len(failed) + len(rows)} films could not be used (listed above)"
        )
    if not rows:
        raise PneumoError(
            f"no films in {', '.join(paths)} (looked for DICOM files and PNG or JPEG pictures)"
        )


def _printable(name: str) -> str:
    """A file's name in one line: bytes that are not UTF-8, and controls, are shown as escapes."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")
