"""Phantoms in the layouts of other data sets, to try and test what reads them.

Films, lesions, patients and chest tubes are those of ``phantom``. What such a set has besides is
made up so that it can go wrong: films of which nothing is known, readers that disagree, films that
are not square.
"""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pneumo.data import csv_files, dicom
from pneumo.data.settings import Drawing, Layout, SiimData
from pneumo.data.sources import phantom, siim
from pneumo.errors import PneumoError
from pneumo.masks import coco, rle

UNKNOWN_EVERY = 8  # of that many negative films one is unknown, where a layout can say so
BELOW = 128  # black rows below films that must not be square
READERS = ("R8", "R9", "R10")


@dataclass
class _Film:
    """One drawn film and what is known of it."""

    number: int
    id: str
    path: Path
    patient: int
    nth: int  # of the patient's films, from 1 on
    masks: list[np.ndarray]
    tube: bool
    unknown: bool  # whether the layout should say nothing of it

    @property
    def pixels(self) -> np.ndarray:
        """The film itself, uint8 (rows, columns)."""
        return dicom.read(self.path).pixels

    @property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """x, y, width and height of each lesion."""
        return [_int_box(cv2.boundingRect(mask)) for mask in self.masks]


def write(settings: Drawing) -> list[str]:
    """Draw phantoms and write them into ``out``; returns the settings that read them.

    Goes on where it was interrupted. Raises PneumoError if ``out`` is there.
    """
    assert settings.out is not None
    assert settings.layout is not None
    out = Path(settings.out)
    partial = out.with_name(f".{out.name}.drawing.partial")
    if out.exists():
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed at its very end
        raise PneumoError(f"out={out}: is there already; choose another folder, or delete it")
    phantom.generate(settings.phantoms, partial)
    typed = lay_out(settings.layout, partial, out)
    shutil.rmtree(partial, ignore_errors=True)
    return typed


def lay_out(layout: Layout, drawn: Path, out: Path) -> list[str]:
    """Write drawn phantoms in a layout; returns the settings that read them."""
    partial = out.with_name(f".{out.name}.layout.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    typed = WRITERS[layout](_films(drawn), partial)
    partial.rename(out)
    format_, *places = typed
    return [format_, f"data.name={layout.name}", *(one.replace("=", f"={out}/") for one in places)]


def _films(root: Path) -> list[_Film]:
    data = SiimData(
        name="phantom",
        root=str(root),
        annotations=str(root / phantom.TABLE),
        patients=str(root / phantom.PATIENTS),
    )
    holds = {cells["imageid"]: cells for _, cells in csv_files.records(root / phantom.CONTENTS)}
    films: list[_Film] = []
    negatives = 0
    counts: dict[int, int] = {}
    for number, item in enumerate(siim.read_index(data).items, start=1):
        patient = int((item.patient or "").rpartition("-")[2])
        counts[patient] = counts.get(patient, 0) + 1
        negatives += not item.positive
        films.append(
            _Film(
                number,
                item.id,
                item.path,
                patient,
                counts[patient],
                [rle.decode(text) for text in item.annotations],
                holds[item.id][phantom.TUBE] == "1",
                not item.positive and negatives % UNKNOWN_EVERY == 0,
            )
        )
    return films


def _candid(films: Sequence[_Film], root: Path) -> list[str]:
    rows, tubes = [], []
    for film in films:
        _copy(film.path, root / "dataset" / film.id)
        name = f"P{film.patient:05d}_190101{film.nth:02d}"
        texts = [rle.encode(mask) for mask in film.masks]
        texts = texts or ["" if film.unknown else rle.EMPTY]
        rows += [(film.id, name, text, "A phantom.") for text in texts]
        if film.tube:  # where it lies is not kept
            tubes.append((film.id, "phantom", "0 1"))
    _table(root / "Pneumothorax_reports.csv", "SOPInstanceUID,filename,EncodedPixels,Report", rows)
    _table(root / "chest_tube.csv", "anon_SOPUID,annotation_ref,mask_rle", tubes)
    return [
        "data=candid",
        "data.root=dataset",
        "data.annotations=Pneumothorax_reports.csv",
        "data.tubes=chest_tube.csv",
    ]


def _chexlocalize(films: Sequence[_Film], root: Path) -> list[str]:
    """Its run lengths, and its polygons beside them."""
    lengths: dict[str, Any] = {}
    polygons: dict[str, Any] = {}
    for film in films:
        pixels, mask = _tall(film.pixels), _tall(_union(film))
        place = (f"patient{film.patient}", f"study{film.nth}", "view1_frontal")
        _picture(root / "valid" / Path(*place).with_suffix(".jpg"), pixels)
        name, size = "_".join(place), list(mask.shape)
        empty = {"size": size, "counts": coco.compressed([mask.size])}
        found = {"size": size, "counts": coco.compressed(coco.to_counts(mask))}
        lengths[name] = (
            {"Edema": empty} if film.unknown else {"Edema": empty, "Pneumothorax": found}
        )
        if not film.unknown:
            drawn = {"Pneumothorax": _outlines(mask)} if mask.any() else {}
            polygons[name] = {"img_size": size, **drawn}
    _json(root / "gt_segmentations_val.json", lengths)
    _json(root / "gt_annotations_val.json", polygons)
    return ["data=chexlocalize", "data.root=valid", "data.annotations=gt_segmentations_val.json"]


def _coco(films: Sequence[_Film], root: Path) -> list[str]:
    """Polygons and run lengths as numbers and as strings, in turn."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    patients = []
    for film in films:
        pixels = _tall(film.pixels)
        name = f"{film.number:06d}.png"
        patients.append((name, f"patient {film.patient}"))
        _picture(root / "images" / name, pixels)
        if film.unknown:
            continue
        rows, columns = pixels.shape
        images.append({"id": film.number, "file_name": name, "height": rows, "width": columns})
        for mask in map(_tall, film.masks):
            counts = coco.to_counts(mask)
            kinds: list[Any] = [
                [[side for point in points for side in point] for points in _outlines(mask)],
                {"size": [rows, columns], "counts": counts},
                {"size": [rows, columns], "counts": coco.compressed(counts)},
            ]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": film.number,
                    "category_id": 1,
                    "segmentation": kinds[len(annotations) % 3],
                    "bbox": list(_int_box(cv2.boundingRect(mask))),
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": "pneumothorax"}]
    content = {"images": images, "categories": categories, "annotations": annotations}
    _json(root / "instances.json", content)
    _table(root / "patients.csv", "film,patient", patients)
    return [
        "data=coco",
        "data.root=images",
        "data.annotations=instances.json",
        "data.patients=patients.csv",
    ]


def _vindr(films: Sequence[_Film], root: Path) -> list[str]:
    """Three readers: two mark what there is, the third at times misses it or sees what is not."""
    rows: list[tuple[Any, ...]] = []
    for film in films:
        name = f"{film.number:032x}"
        _copy(film.path, root / "train" / f"{name}.dicom")
        if film.unknown:
            continue
        for place, reader in enumerate(READERS):
            boxes = film.boxes
            if place == 2 and film.number % 3 == 0:
                boxes = [] if boxes else [(200, 200, 60, 80)]
            for x, y, width, height in boxes:
                shift = 2 * place  # no two readers draw alike
                edges = (max(x - shift, 0), max(y - shift, 0), x + width, y + height)
                rows.append((name, reader, "Pneumothorax", *edges))
            if not boxes:
                rows.append((name, reader, "No finding", "", "", "", ""))
    head = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
    _table(root / "annotations_train.csv", head, rows)
    return ["data=boxes", "data.root=train", "data.annotations=annotations_train.csv"]


def _nih(films: Sequence[_Film], root: Path) -> list[str]:
    rows: list[tuple[Any, ...]] = []
    labels = []
    for film in films:
        name = f"{film.patient:08d}_{film.nth:03d}.png"
        _picture(root / "images" / name, film.pixels)
        rows += [(name, "Pneumothorax", *box, "", "", "") for box in film.boxes]
        labels.append((name, "" if film.unknown else "YES" if film.masks else "NO"))
    _table(root / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", rows)
    _table(root / "labels.csv", "Image Index,Pneumothorax", labels)
    return [
        "data=boxes",
        "data.root=images",
        "data.annotations=BBox_List_2017.csv",
        "data.labels=labels.csv",
    ]


def _padchest(films: Sequence[_Film], root: Path) -> list[str]:
    studies, patients = [], []
    for film in films:
        pixels = _tall(film.pixels)
        name, study = f"{film.number:06d}_phantom.png", f"study{film.number}"
        _picture(root / "PadChest_GR" / name, pixels)
        rows, columns = pixels.shape
        boxes = [
            [x / columns, y / rows, (x + width) / columns, (y + height) / rows]
            for x, y, width, height in film.boxes
        ]
        finding: dict[str, Any] = {"sentence_en": "No pneumothorax.", "abnormal": False}
        if boxes or film.unknown:  # found, but not where
            labels = ["pneumothorax"]
            finding = {"sentence_en": "Pneumothorax.", "abnormal": True, "labels": labels}
            finding |= {"boxes": boxes, "extra_boxes": []}
        studies.append({"StudyID": study, "ImageID": name, "findings": [finding]})
        patients.append((study, name, f"patient {film.patient}"))
    _json(root / "grounded_reports_20240819.json", studies)
    _table(root / "master_table.csv", "StudyID,ImageID,PatientID", patients)
    return [
        "data=boxes",
        "data.root=PadChest_GR",
        "data.annotations=grounded_reports_20240819.json",
        "data.patients=master_table.csv",
    ]


def _labels(films: Sequence[_Film], root: Path) -> list[str]:
    """As CheXpert's: paths, and labels of which some are uncertain or blank."""
    rows = []
    for film in films:
        place = Path(f"patient{film.patient:05d}", f"study{film.nth}", "view1_frontal.jpg")
        _picture(root / "valid" / place, film.pixels)
        label = "1.0" if film.masks else "0.0"
        if film.unknown:
            label = "-1.0" if film.number % 2 else ""
        rows.append((f"CheXpert-v1.0/valid/{place.as_posix()}", "Frontal", label))
    _table(root / "valid.csv", "Path,Frontal/Lateral,Pneumothorax", rows)
    return ["data=labels", "data.root=valid", "data.annotations=valid.csv"]


def _ptx498(films: Sequence[_Film], root: Path) -> list[str]:
    """Three sites that each number their films from 1 on."""
    for film in films:
        place = root / "PTX-498" / f"Site{'ABC'[film.patient % 3]}"
        place.mkdir(parents=True, exist_ok=True)
        number = 1 + sum(1 for _ in place.glob("*.1.img.png"))
        _picture(place / f"{number}.1.img.png", film.pixels)
        _picture(place / f"{number}.2.mask.png", _union(film) * 255)
    return ["data=folder", "data.root=PTX-498", "data.masks=PTX-498"]


WRITERS: dict[Layout, Callable[[Sequence[_Film], Path], list[str]]] = {
    Layout.candid: _candid,
    Layout.chexlocalize: _chexlocalize,
    Layout.coco: _coco,
    Layout.vindr: _vindr,
    Layout.nih: _nih,
    Layout.padchest: _padchest,
    Layout.labels: _labels,
    Layout.ptx498: _ptx498,
}


def _union(film: _Film) -> np.ndarray:
    """All of a film's lesions, uint8 of 0 and 1."""
    mask = np.zeros((phantom.SIZE, phantom.SIZE), np.uint8)
    for one in film.masks:
        mask |= one
    return mask


def _tall(image: np.ndarray) -> np.ndarray:
    """A film or mask with black rows below it."""
    return np.pad(image, ((0, BELOW), (0, 0)))


def _outlines(mask: np.ndarray) -> list[list[list[int]]]:
    """Polygons around a mask: points [x, y]."""
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [points[:, 0].tolist() for points in found if len(points) > 2]


def _int_box(box: Sequence[int]) -> tuple[int, int, int, int]:
    x, y, width, height = map(int, box)
    return x, y, width, height


def _picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise PneumoError(f"{path}: could not be written")


def _copy(film: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(film, to)


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _table(path: Path, head: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(f"{head}\n")
        csv.writer(file, lineterminator="\n").writerows(rows)
