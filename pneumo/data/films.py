"""Films on disk: which files they are, and what one annotated film is."""

from dataclasses import dataclass
from pathlib import Path

from pneumo.data import dicom
from pneumo.errors import PneumoError

FILMS = (".dcm", ".dicom", *dicom.IMAGES)


@dataclass
class Item:
    """One annotated image on disk."""

    id: str
    path: Path
    annotations: list[str]  # run lengths, empty for a negative
    patient: str | None = None

    @property
    def positive(self) -> bool:
        """Whether the film shows pneumothorax."""
        return bool(self.annotations)


def read_folder(root: Path) -> list[Item]:
    """The films of a folder without a table, each under its file name. Raises PneumoError for none, or for a name met twice."""
    items: dict[str, Item] = {}
    for path in find_films(root):
        image = name_of(path)
        if image in items:
            raise PneumoError(
                f"{path}: has the same name as {items[image].path}, so their masks could not be told apart"
            )
        items[image] = Item(image, path, [])
    return list(items.values())


def name_of(path: Path) -> str:
    """A film's file name without its suffix; the numbers of a bare UID are none."""
    return path.stem if path.suffix.lower() in FILMS else path.name


def find_films(root: Path) -> list[Path]:
    """All films below a folder, sorted."""
    if not root.is_dir():
        raise PneumoError(f"{root}: no such folder (data.root)")
    films = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and (path.suffix.lower() in FILMS or dicom.is_marked(path))
    )
    if not films:
        raise PneumoError(
            f"{root}: no films in it (looked for {', '.join(FILMS)} in all folders below)"
        )
    return films
