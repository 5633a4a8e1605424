"""A bundle on many films in shards: what one process does, and how the last of them joins all.

A shard's results lie in ``<out>/shards/2of8``, with ``shard.json``: what made them, a line for each
film, and the size of each file. They are joined when all shards are there, whole and of one kind:
the files get the names that they have when all films are done at once and are moved, not copied;
the tables are those of all films.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pneumo import files, runs, seals
from pneumo.inference import applying, inputs, outputs, shards
from pneumo.inference.applying import OneFilm, Work
from pneumo.inference.settings import Predict, Use
from pneumo.inference.shards import Fault, NotJoined, Shard
from pneumo.masks.rule import plain
from pneumo.tables import counted

log = logging.getLogger(__name__)

FOLDER = "shards"  # of the folder of results
RECORD = "shard.json"
MOVING = "moving"  # a mark: all was looked at, and files are being moved
# settings on which results depend; the rule, TTA, engine and tables are told for themselves
HOW = ("names", *(one.name for one in fields(Use) if not one.metadata["place"]))


def apply(settings: Predict) -> None:
    """A shard's films, and the join; or all films at once, if there are no shards.

    Raises:
        NotJoined: without ``shard``, if shards are not there or do not belong together.
        PneumoError: films failed, or nothing can be done.
    """
    together = Path(settings.out) / FOLDER
    shard = settings.part
    if shard is None and not shards.count_in(together):
        applying.apply(settings)
        return
    work = applying.begin(settings)
    names = inputs.names(work.paths, leave_out=work.out)
    made_by = _made_by(work, names)
    if shard is None:
        _join(work, together, shards.count_in(together), made_by)
        return
    shards.check_count(together, shard)
    _do(work, together, shard, made_by, len(names))
    try:
        _join(work, together, shard.count, made_by)
    except NotJoined as left:
        log.info("%s", left)
        work.check_failed()


def _made_by(work: Work, names: list[str]) -> dict[str, Any]:
    """What results depend on: shards that differ in it are not joined."""
    settings = work.settings
    how = {key: getattr(settings, key) for key in HOW if key != "engine"}  # auto is one of them
    tables = [settings.spacing, settings.spacing_names]
    tta = work.model.tta if settings.tta is None else settings.tta
    return {
        "model": files.digest(work.model.card),
        "films": files.digest(names),
        "engine": work.model.engine,
        "batch": work.how.batch,
        "tta": tta,
        "postprocess": plain(work.rule),
        "save": asdict(settings.save),
        "spacing": [files.sha256(Path(table)) for table in tables if table],
        **{key: getattr(value, "name", value) for key, value in how.items()},
    }


def _do(work: Work, together: Path, shard: Shard, made_by: dict[str, Any], total: int) -> None:
    """A shard's films, unless they are done. Its folder gets its name when all are.

    Raises PneumoError.
    """
    rows = shard.rows(total, work.how.batch)
    place = together / shard.folder
    applying.make(together)
    with runs.lock(shards.lock_of(together, shard)):
        with suppress(Fault):
            _, done = _read(place, shard, made_by, (together / MOVING).exists())
            work.films = [_film(told, work) for told in done["films"]]
            log.info("%s: done already", place)
            return
        limit = work.settings.max_megabytes << 20
        with _begun(place) as temporary:
            sources = inputs.sources(work.paths, limit, leave_out=work.out, rows=rows)
            work.out = temporary
            work.do(sources)
            told = {
                "shard": str(shard),
                "rows": [rows.start, rows.stop],
                "made_by": made_by,
                "passed_over": work.passed_over,
                "renamed": work.names.renamed,
                "films": [_told(film, temporary) for film in work.films],
            }
            seals.write_json(temporary / RECORD, told)
    failed = [f"failed: {film.shown}: {film.fault}" for film in work.films if film.fault]
    log.info("\n".join([f"{counted(len(work.films), 'film')} → {place}", *failed]))


@contextmanager
def _begun(place: Path) -> Iterator[Path]:
    """A folder that gets its name if the block succeeds, and is removed if it does not.

    Whoever holds the shard's lock owns it: other machines cannot tell by a lock on the folder
    itself, which network file systems do not have.
    """
    temporary = place.with_name(place.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(place, ignore_errors=True)
    temporary.rename(place)


def _told(film: OneFilm, out: Path) -> dict[str, Any]:
    """A film's line in a shard's record.

    It has its path only if that is told of films that failed, see ``privacy``.
    """
    paths = {ending: out / (film.name + ending) for ending in outputs.ENDINGS if film.name}
    return {
        "own_name": film.own_name,
        "name": film.name,
        "sizes": {ending: path.stat().st_size for ending, path in paths.items() if path.is_file()},
        "row": film.row,
        "run_lengths": film.run_lengths,
        "shown": "" if film.fault is None else film.shown,
        "fault": film.fault,
    }


def _read(
    place: Path, shard: Shard, made_by: dict[str, Any], moving: bool = False
) -> tuple[Sequence[int], dict[str, Any]]:
    """A shard's record, if it is of this work and its files are whole. Raises Fault."""
    try:
        record = seals.read_json(place / RECORD)
        rows, theirs = record["rows"], record["made_by"]
        sizes = {
            place / (film["name"] + ending): size
            for film in record["films"]
            for ending, size in film["sizes"].items()
        }
    except files.DAMAGE:
        raise Fault("damaged") from None
    if theirs["model"] != made_by["model"]:
        raise Fault("of another model")
    if theirs["films"] != made_by["films"] or record["shard"] != str(shard):
        raise Fault("of other films")
    for key, value in made_by.items():
        if theirs.get(key) != value:
            raise Fault(f"made with another {key}")
    for path, size in sizes.items():
        if not moving and not (path.is_file() and path.stat().st_size == size):
            raise Fault(f"damaged ({path.name} is not as it was written)")
    return rows, record


def _join(work: Work, together: Path, count: int, made_by: dict[str, Any]) -> None:
    """All films of all shards: files moved, tables written, shards removed.

    What was stopped while files were moved goes on there. Raises NotJoined, and PneumoError if
    films failed.
    """
    whole = Work(work.settings, work.model, work.how, work.paths)
    with runs.lock(together):
        if not shards.count_in(together):  # another process has joined them meanwhile
            files.remove_folder(together)
            work.check_failed()
            return
        mark = together / MOVING
        moving = mark.exists()
        records = shards.collected(
            together, count, lambda place, shard: _read(place, shard, made_by, moving)
        )
        moves = []
        for number, record in enumerate(records, 1):
            place = together / Shard(number, count).folder
            for told in record["films"]:
                film = _film(told, whole)
                whole.films.append(film)
                for ending in told["sizes"]:
                    old, new = place / (told["name"] + ending), whole.out / (film.name + ending)
                    moves.append((old, new))
            whole.passed_over += record["passed_over"]
            whole.names.renamed += record["renamed"]
        mark.touch()
        for old, new in moves:
            with suppress(FileNotFoundError):  # moved before this was stopped
                os.replace(old, new)
        whole.write_tables()
        files.remove_folder(together)
        if not whole.films:
            with suppress(OSError):  # others' files are in it
                whole.out.rmdir()
    whole.tell()
    whole.check()


def _film(told: dict[str, Any], whole: Work) -> OneFilm:
    """A film of a shard, under the name that it has among all films."""
    film = OneFilm(told["shown"], b"", fault=told["fault"], own_name=told["own_name"])
    film.row, film.run_lengths = told["row"], told["run_lengths"]
    if film.own_name:
        film.name = whole.names.distinct(film.own_name)
    if film.row:
        film.row["film"] = film.name
    return film
