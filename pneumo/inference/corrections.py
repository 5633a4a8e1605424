"""Readers' corrections of masks, in a folder that several pages may share.

corrections.csv    ImageId,EncodedPixels: the challenge's layout, which ``data=siim`` trains on
corrections.json   every version that was ever saved: who, when, and what it was made from
drafts/            what is not saved yet, one file for each film and reader

Masks are run lengths over the film's own pixels as its file stores them, for pictures, too. So
``data.mask_size=film`` reads them all; without it, pictures would be taken for 1024². A film is
known by the SHA-256 of its file, whatever that is called. No pixel of a film is written, and no
file name but the id that joins table and film.

``corrections.json`` is what counts. The table is written anew from it, and a table that somebody
else changed is kept under another name. Each file is replaced as a whole, under a lock that all
processes respect. What a page sends names the version that it was made from, and is refused if
that is not the newest, so no page overwrites what it has not seen.
"""

import csv
import hashlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from pneumo import files
from pneumo.data.csv_files import image_id
from pneumo.data.dicom import Film
from pneumo.data.films import name_of
from pneumo.errors import PneumoError
from pneumo.masks import rle
from pneumo.tables import cell

log = logging.getLogger(__name__)

TABLE, RECORD, DRAFTS = "corrections.csv", "corrections.json", "drafts"
FORMAT = "pneumo-corrections-1"
WAIT = 30.0  # seconds for another process to finish with the folder


class Changed(PneumoError):
    """A film's correction was changed elsewhere since a page saw it."""


@dataclass(frozen=True)
class Corrected:
    """The film that a correction is of."""

    image: str  # its id in the table
    sha256: str  # of its file
    shape: tuple[int, int]  # (rows, columns) of its pixels as stored


@dataclass(frozen=True)
class Basis:
    """The mask that a correction began with: what a model found. Over the pixels as stored."""

    model: str
    weights: list[str]  # SHA-256 of each weights file
    rule: dict[str, Any]  # its thresholds
    mask: np.ndarray  # uint8 of 0 and 1


@dataclass(frozen=True)
class State:
    """Where a film's correction stands, as one reader sees it."""

    state: str  # "draft", "saved", or "model": nothing was corrected
    version: str
    said: dict[str, Any] | None  # the entry of the draft or of what is saved
    saved: dict[str, Any] | None  # the entry of what is saved, also beside a draft
    shape: tuple[int, int]

    @property
    def mask(self) -> np.ndarray | None:
        """The corrected mask over the pixels as stored, uint8 of 0 and 1."""
        return rle.decode(self.said["run_lengths"], self.shape) if self.said else None

    @property
    def basis(self) -> np.ndarray | None:
        """The mask that the correction began with, in the same way."""
        return rle.decode(self.said["basis"]["run_lengths"], self.shape) if self.said else None

    def describe(self) -> dict[str, Any]:
        """What the page says of it."""
        facts: dict[str, Any] = {"state": self.state, "version": self.version}
        for key, entry in (("by", self.said), ("saved", self.saved)):
            facts[key] = entry and {name: entry[name] for name in ("reader", "time", "pixels")}
        return facts


def image_of(name: str, film: Film) -> str:
    """The id of a film in the table: its SOPInstanceUID, else its file's name without suffix.

    ``data=siim`` finds films by both. Raises PneumoError for a name that it would not find.
    """
    image = film.uid or name_of(Path(name))
    if not image or image_id(image) != image or cell(image) != image:
        raise PneumoError(
            f"{name}: a table cannot hold this name ('{image}'); give the film a plain one"
        )
    return image


class Corrections:
    """A folder of corrections, as one reader uses it. All its masks are uint8 of 0 and 1.

    Every method raises PneumoError where the folder cannot be used. ``seen`` is the version that
    the caller's mask was made from; another one raises ``Changed``, None is not checked.
    """

    def __init__(self, folder: Path, reader: str) -> None:
        self.folder, self.reader = folder, reader
        self._known: dict[str, Any] = {}  # the record as it was read last
        self._stamp: tuple[int, ...] | None = None  # of that file; None: to be read
        with self._alone():
            if (folder / TABLE).exists() and not (folder / RECORD).exists():
                raise PneumoError(
                    f"corrections={folder}: holds a {TABLE} that is not of this page; choose "
                    "another folder"
                )
            record = self._read()
            if record:
                self._write_table(record)  # in case a process died before it could

    def of(self, film: Corrected) -> State:
        """Where a film's correction stands. Raises PneumoError if another film has its id."""
        with self._alone():
            record = self._read()
            _check_id(record, film)
            return self._state(record, film)

    def draft(self, film: Corrected, mask: np.ndarray, basis: Basis, seen: str | None) -> State:
        """Keep a mask as this reader's draft. ``basis`` counts only where there is none yet."""
        with self._alone():
            record = self._read()
            state = self._seen(record, film, seen)
            entry = self._entry("draft", film, mask, _begun(state, basis))
            entry["number"] = (state.said or {}).get("number", 0) + 1
            files.write_json(self._draft(film), entry)
            return self._state(record, film)

    def save(self, film: Corrected, mask: np.ndarray, basis: Basis, seen: str | None) -> State:
        """Make a mask the film's row of the table; the versions before stay in the history."""
        with self._alone():
            record = self._read()
            state = self._seen(record, film, seen)
            self._append(record, film, self._entry("saved", film, mask, _begun(state, basis)))
            self._draft(film).unlink(missing_ok=True)
            return self._state(record, film)

    def withdraw(self, film: Corrected, seen: str | None, only_draft: bool = False) -> State:
        """Take back a film's row and this reader's draft, or the draft alone.

        The history keeps both, and who took them back.
        """
        with self._alone():
            record = self._read()
            state = self._seen(record, film, seen)
            entries = []
            if state.state == "draft" and state.said:
                entries.append({**state.said, "action": "discarded"})
            if state.saved and not only_draft:
                entries.append({**state.saved, **self._signed("withdrawn")})
            if entries:
                self._append(record, film, *entries)
            self._draft(film).unlink(missing_ok=True)
            return self._state(record, film)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder alone, and say in one line what the system refuses."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / ".lock", timeout=WAIT):
                yield
        except filelock.Timeout:
            raise PneumoError(
                f"{self.folder}: another process has held it for {WAIT:g} seconds; try again"
            ) from None
        except OSError as error:
            raise PneumoError(
                f"{self.folder}: cannot be used ({error.strerror or error})"
            ) from None

    def _draft(self, film: Corrected) -> Path:
        reader = hashlib.sha256(self.reader.encode()).hexdigest()[:8]
        return self.folder / DRAFTS / f"{film.sha256}-{reader}.json"

    def _read(self) -> dict[str, Any]:
        """The record's films by SHA-256, each with its id, shape and history."""
        path = self.folder / RECORD
        if not path.exists():
            return {}
        status = path.stat()
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp == self._stamp:
            return self._known
        kept = _json(path)
        found = kept.get("format") if isinstance(kept, dict) else None
        if found != FORMAT:
            raise PneumoError(
                f"{path}: not of a kind that this version reads "
                f"(format {found!r}, wanted {FORMAT!r})"
            )
        films = kept.get("films")
        if not isinstance(films, dict) or not all(map(_is_known, films.values())):
            raise PneumoError(f"{path}: damaged; move it elsewhere to go on")
        self._known, self._stamp = films, stamp
        return self._known

    def _history(self, record: dict[str, Any], film: Corrected) -> list[dict[str, Any]]:
        """What was made of a film, without the drafts that others have thrown away."""
        history: list[dict[str, Any]] = record.get(film.sha256, {}).get("history", [])
        return [
            one for one in history if one["action"] != "discarded" or one["reader"] == self.reader
        ]

    def _state(self, record: dict[str, Any], film: Corrected) -> State:
        history = self._history(record, film)
        saved = _saved(history)
        draft = _json(self._draft(film))
        if draft is not None and not (_is_entry(draft) and type(draft.get("number")) is int):
            raise PneumoError(f"{self._draft(film)}: damaged; move it elsewhere to go on")
        version = f"{len(history)}.{draft['number'] if draft else 0}"
        state = "draft" if draft else "saved" if saved else "model"
        return State(state, version, draft or saved, saved, film.shape)

    def _seen(self, record: dict[str, Any], film: Corrected, seen: str | None) -> State:
        """The state, if it is the one that was seen. Raises PneumoError, Changed."""
        _check_id(record, film)
        state = self._state(record, film)
        if seen is not None and seen != state.version:
            history = self._history(record, film)
            is_in_history = history and seen.partition(".")[0] != str(len(history))
            newest = (history[-1] if is_in_history else state.said) or {}
            who = newest.get("reader", "somebody")
            when = newest.get("time", "time unknown")[:16].replace("T", " ")
            raise Changed(f"{who} changed this film's correction elsewhere ({when} UTC)")
        return state

    def _signed(self, action: str) -> dict[str, Any]:
        time = datetime.now(UTC).isoformat(timespec="seconds")
        return {"action": action, "reader": self.reader, "time": time}

    def _entry(
        self, action: str, film: Corrected, mask: np.ndarray, basis: dict[str, Any]
    ) -> dict[str, Any]:
        assert mask.shape == film.shape
        return {
            **self._signed(action),
            "image": film.image,
            "basis": basis,
            "pixels": int(np.count_nonzero(mask)),
            "run_lengths": rle.encode(mask),
        }

    def _append(self, record: dict[str, Any], film: Corrected, *entries: dict[str, Any]) -> None:
        """Add to a film's history, and write record and table."""
        before = _table(record)
        self._stamp = None  # what is changed here may fail to be written
        known = record.setdefault(film.sha256, {"history": []})
        known |= {"image": film.image, "rows": film.shape[0], "columns": film.shape[1]}
        known["history"] += entries
        files.write_json(self.folder / RECORD, {"format": FORMAT, "films": record})
        self._write_table(record, before)

    def _write_table(self, record: dict[str, Any], before: str = "") -> None:
        """Write the table, unless it says the same already.

        One that is neither this nor the one ``before`` was changed by somebody, and is kept.
        """
        path, text = self.folder / TABLE, _table(record)
        found = path.read_text(encoding="utf-8") if path.exists() else before
        if found not in (text, before):
            aside = path.with_stem(f"{path.stem}-{files.digest(found)[:8]}")
            path.rename(aside)
            log.warning("%s: was not as it was left; that is kept as %s", path, aside.name)
        if found != text or not path.exists():
            files.write_text(path, text)


ENTRY: dict[str, type] = {  # what an entry has, at least
    **dict.fromkeys(("action", "reader", "time", "image", "run_lengths"), str),
    "basis": dict,
    "pixels": int,
}


def _is_entry(entry: Any) -> bool:
    """Whether something is an entry of a history, or a draft."""
    return isinstance(entry, dict) and all(
        isinstance(entry.get(key), kind) for key, kind in ENTRY.items()
    )


def _is_known(known: Any) -> bool:
    """Whether something is what the record has of a film."""
    if not isinstance(known, dict) or not isinstance(known.get("image"), str):
        return False
    history = known.get("history")
    return isinstance(history, list) and all(map(_is_entry, history))


def _json(path: Path) -> Any:
    """What a JSON file holds; None if it is not there. Raises PneumoError, OSError."""
    try:
        return files.parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PneumoError(f"{path}: damaged ({error}); move it elsewhere to go on") from None


def _saved(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The entry whose mask stands in the table."""
    counted = [entry for entry in history if entry["action"] != "discarded"]
    return counted[-1] if counted and counted[-1]["action"] == "saved" else None


def _check_id(record: dict[str, Any], film: Corrected) -> None:
    """Raise PneumoError if the table has another film of that id."""
    for sha256, known in record.items():
        if sha256 != film.sha256 and known["image"] == film.image and _saved(known["history"]):
            raise PneumoError(
                f"{film.image}: another film of this name was corrected already (SHA-256 "
                f"{sha256[:12]}…); rename this one, or use another folder of corrections"
            )


def _begun(state: State, basis: Basis) -> dict[str, Any]:
    """What a correction was made from: as it was recorded when it began, else ``basis``."""
    if state.said:
        return dict(state.said["basis"])
    return {
        "model": basis.model,
        "weights_sha256": basis.weights,
        "rule": basis.rule,
        "pixels": int(np.count_nonzero(basis.mask)),
        "run_lengths": rle.encode(basis.mask),
    }


def _table(record: dict[str, Any]) -> str:
    """The table of all that is saved, in the challenge's layout."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("ImageId", "EncodedPixels"))
    for known in record.values():
        if saved := _saved(known["history"]):
            writer.writerow((known["image"], saved["run_lengths"]))
    return out.getvalue()
