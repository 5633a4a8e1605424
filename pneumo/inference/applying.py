"""A bundle on any films: a mask, an image-level score and an area for each.

They are written as tables, pictures and DICOM objects that other systems read.
"""

import errno
import hashlib
import logging
import sys
import zipfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pneumo import pool
from pneumo.data import dicom
from pneumo.errors import PneumoError, visible
from pneumo.inference import bundle, dicom_objects, findings, inputs, outputs
from pneumo.inference.bundle import Bundle
from pneumo.inference.engine import Pace, pace
from pneumo.inference.findings import Reading
from pneumo.inference.inputs import Source
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
    alone = len(paths) == 1 and Path(paths[0]).is_file() and not zipfile.is_zipfile(paths[0])
    how = pace(settings.engine, settings.machine, settings.batch_size, alone)
    model = bundle.load(Path(str(settings.model)), how.machine, settings.engine)
    work = Work(settings, model)
    log.info("%s", model.experience)
    out = work.out
    sources = inputs.sources(paths, settings.max_megabytes << 20, leave_out=out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PneumoError(f"out={out}: cannot be made ({error.strerror})") from None
    if settings.save.segmentation or settings.save.capture or settings.save.report:
        dicom_objects.require()
    try:
        with closing(work.through(sources, how)) as films:
            for _ in tqdm(films, desc="Films", unit="film", disable=not sys.stderr.isatty()):
                pass
    finally:  # a stop keeps what was found until then
        rows, runs, failed = work.tables()
        if rows or failed:
            outputs.write_tables(out, rows, runs, failed, model, work.rule)
        elif not any(out.iterdir()):
            out.rmdir()
    log.info(outputs.summary(rows, failed, work.passed_over, out))
    if work.names.renamed:
        log.info(
            "Named by UID or digest, since the file's name or folder tells who the patient is: "
            f"{work.names.renamed} (the table has both; names=keep keeps the names)"
        )
    if failed:
        raise PneumoError(
            f"{len(failed)} of {len(failed) + len(rows)} films could not be used (listed above)"
        )
    if not rows:
        raise PneumoError(
            f"no films in {', '.join(paths)} (looked for DICOM files and PNG or JPEG pictures)"
        )


@dataclass
class OneFilm:
    """A film on its way through the stages, or a file that is none.

    Its arrays are let go when it has passed them.
    """

    shown: str  # its path, as it can be printed
    content: bytes
    is_passed_over: bool = False  # no film, and nobody said that it is one
    fault: str | None = None
    reading: Reading | None = None
    said: tuple[np.ndarray, float | None] | None = None  # map and presence
    sha256: str = ""
    name: str = ""
    row: dict[str, Any] | None = None  # of the table, once its results are written
    run_lengths: str = ""


class Work:
    """What is done to films, in stages that overlap: reading, the networks, writing."""

    def __init__(self, settings: Predict, model: Bundle) -> None:
        self.settings, self.model = settings, model
        self.rule = settings.postprocess.over(model.rule)
        self.spacings = findings.spacings(settings)
        self.out = Path(settings.out)
        self.names = OutputNames(keep=settings.names is Names.keep)
        self.films: list[OneFilm] = []  # in the order of the files
        self.passed_over = 0  # files that are no films

    def through(self, sources: Iterable[Source], how: Pace) -> Generator[OneFilm, None, None]:
        """Films, as they are done; few are in memory at a time."""
        # a CPU that runs the networks itself is busy with them for nine tenths of the time
        others = max(1, pool.cores() // (4 if how.batch == 1 else 2))
        read = pool.ahead(self.read, sources, others, how.batch * how.lanes + others)
        batches = iter(lambda: list(islice(read, how.batch)), [])
        judged = pool.ahead(self.judge, batches, how.lanes, how.lanes + 1)
        written = pool.ahead(self.write, self.named(judged), others, others + 1)
        with dicom.quiet(), closing(read), closing(judged), closing(written):
            yield from written

    def read(self, source: Source) -> OneFilm:
        """First stage: a file's bytes → the film."""
        film = OneFilm(_printable(source.name), source.content or b"")
        if source.content is None:
            film.fault = source.fault or ""
        elif not source.is_film and not source.asked:
            film.is_passed_over, film.content = True, b""
        else:
            try:
                film.reading = findings.read(
                    film.shown, film.content, self.settings, self.model, self.spacings
                )
                film.sha256 = hashlib.sha256(film.content).hexdigest()
            except PneumoError as error:
                self._failed(film, str(error).removeprefix(f"{film.shown}: "))
        return film

    def judge(self, films: list[OneFilm]) -> list[OneFilm]:
        """Second stage: what the networks say of some films."""
        readable = [(film, film.reading.film.pixels) for film in films if film.reading]
        if readable:
            said = self.model.says_each([pixels for _, pixels in readable], self.settings.tta)
            for (film, _), each in zip(readable, said, strict=True):
                film.said = each
        return films

    def named(self, judged: Iterable[list[OneFilm]]) -> Iterator[OneFilm]:
        """Names for outputs, which depend on the films before."""
        for films in judged:
            for film in films:
                if film.is_passed_over:
                    self.passed_over += 1
                    continue
                if film.reading is not None:
                    film.name = self.names.of(film.shown, film.reading.film, film.content)
                self.films.append(film)
                yield film

    def write(self, film: OneFilm) -> OneFilm:
        """Third stage: the mask by the rule, and all that is written of it."""
        if film.reading is None or film.said is None:
            return film
        try:
            finding = findings.told(film.reading, film.said, self.model, self.rule)
            finding.notes.extend(
                outputs.save(self.out, film.name, finding, self.settings.save, self.model)
            )
            if self.settings.save.rle:
                film.run_lengths = rle.encode(finding.stored_mask)
            # against patient identity leaking into the table through the film's path
            hidden = self.names.hides(film.shown, finding.film.header)
            film.row = {
                "film": film.name,
                **outputs.describe(finding),
                "uid": finding.film.uid or "",
                "source": "" if hidden else film.shown,
                "sha256": film.sha256,
            }
        except PneumoError as error:
            self._failed(film, str(error).removeprefix(f"{film.shown}: "))
        except OSError as error:
            # a full or locked disk fails for every film that follows
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
                raise
            self._failed(film, f"its results cannot be written ({error.strerror})")
        film.reading, film.said, film.content = None, None, b""
        return film

    def _failed(self, film: OneFilm, reason: str) -> None:
        film.shown, film.fault = self.names.shown(film.shown, film.content), reason
        film.content = b""

    def tables(
        self,
    ) -> tuple[list[dict[str, Any]], list[tuple[str, str]] | None, list[tuple[str, str]]]:
        """The films' rows, their run lengths if they are wanted, and those that failed."""
        rows = [film.row for film in self.films if film.row]
        runs = [(film.name, film.run_lengths) for film in self.films if film.row]
        failed = [(film.shown, film.fault) for film in self.films if film.fault is not None]
        return rows, runs if self.settings.save.rle else None, failed


def _printable(name: str) -> str:
    """A file's name in one line: bytes that are not UTF-8, and controls, are shown as escapes."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")
