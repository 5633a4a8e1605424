"""A bundle on any films: a mask, an image-level score and an area for each.

They are written as tables, pictures and DICOM objects that other systems read.
"""

import errno
import hashlib
import logging
import sys
import zipfile
from collections.abc import Generator, Iterable, Iterator, Sequence
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
    """The command ``python -m pneumo.predict model=… input=… out=…``, on all films at once.

    Raises PneumoError at the end if films failed (the others' results are kept), or at once if
    nothing can be done.
    """
    work = begin(settings)
    out = work.out
    sources = inputs.sources(work.paths, settings.max_megabytes << 20, leave_out=out)
    make(out)
    try:
        work.do(sources)
    finally:  # a stop keeps what was found until then
        if not work.write_tables() and not any(out.iterdir()):
            out.rmdir()
    work.tell()
    work.check()


def begin(settings: Predict) -> "Work":
    """The bundle, ready for the films that are named. Raises PneumoError."""
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
    if settings.save.segmentation or settings.save.capture or settings.save.report:
        dicom_objects.require()
    log.info("%s", model.experience)
    return Work(settings, model, how, paths)


def make(out: Path) -> None:
    """Make the folder of results. Raises PneumoError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PneumoError(f"out={out}: cannot be made ({error.strerror})") from None


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
    own_name: str = ""  # of its outputs, which films before may have
    name: str = ""  # of its outputs, which none has
    row: dict[str, Any] | None = None  # of the table, once its results are written
    run_lengths: str = ""


class Work:
    """What is done to films, in stages that overlap: reading, the networks, writing."""

    def __init__(
        self, settings: Predict, model: Bundle, how: Pace, paths: Sequence[str] = ()
    ) -> None:
        self.settings, self.model, self.how, self.paths = settings, model, how, paths
        self.rule = settings.postprocess.over(model.rule)
        self.spacings = findings.spacings(settings)
        self.out = Path(settings.out)
        self.names = OutputNames(keep=settings.names is Names.keep)
        self.films: list[OneFilm] = []  # in the order of the files
        self.passed_over = 0  # files that are no films

    def do(self, sources: Iterable[Source]) -> None:
        """All that is to be done with films, with a bar on a terminal."""
        with closing(self.through(sources)) as films:
            for _ in tqdm(films, desc="Films", unit="film", disable=not sys.stderr.isatty()):
                pass

    def through(self, sources: Iterable[Source]) -> Generator[OneFilm, None, None]:
        """Films, as they are done; few are in memory at a time."""
        how = self.how
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
                    film.own_name = self.names.own(film.shown, film.reading.film, film.content)
                    film.name = self.names.distinct(film.own_name)
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

    def write_tables(self) -> bool:
        """Write the tables, unless there is nothing to tell; returns whether there is."""
        rows, runs, failed = self.tables()
        if rows or failed:
            outputs.write_tables(self.out, rows, runs, failed, self.model, self.rule)
        return bool(rows or failed)

    def tell(self) -> None:
        """Say what was found, and where it lies."""
        rows, _, failed = self.tables()
        log.info(outputs.summary(rows, failed, self.passed_over, self.out))
        if self.names.renamed:
            log.info(
                "Named by UID or digest, since the file's name or folder tells who the patient is: "
                f"{self.names.renamed} (the table has both; names=keep keeps the names)"
            )

    def check_failed(self) -> None:
        """Raise PneumoError if films failed."""
        rows, _, failed = self.tables()
        if failed:
            raise PneumoError(
                f"{len(failed)} of {len(failed) + len(rows)} films could not be used (listed above)"
            )

    def check(self) -> None:
        """Raise PneumoError if films failed, or if there are none."""
        self.check_failed()
        if not self.tables()[0]:
            raise PneumoError(
                f"no films in {', '.join(self.paths)} (looked for DICOM files and PNG or JPEG "
                "pictures)"
            )


def _printable(name: str) -> str:
    """A file's name in one line: bytes that are not UTF-8, and controls, are shown as escapes."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")
