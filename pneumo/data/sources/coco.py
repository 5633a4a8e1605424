"""A file of instances in COCO's layout → annotated films.

``images`` (``id``, ``file_name``, ``width``, ``height``), ``categories`` (``id``, ``name``) and
``annotations`` (``image_id``, ``category_id``, and ``segmentation``: polygons [x, y, x, y, …], or
run lengths of ``size`` [H, W] as numbers or a string). The file lists what was found, so that one
of its images without an annotation of the category shows none; films that it does not list are
unknown. Annotations of boxes alone (``bbox``: x, y, width, height) give a truth of boxes.
"""

from pathlib import Path
from typing import Any

from pneumo import files
from pneumo.data import joining
from pneumo.data.csv_files import image_id, patient_in
from pneumo.data.films import Index, Item
from pneumo.data.settings import CocoData
from pneumo.errors import PneumoError
from pneumo.masks import coco, rle
from pneumo.masks.truth import Truth, of_box

KEYS = {
    "images": ("id", "file_name"),
    "categories": ("id", "name"),
    "annotations": ("image_id", "category_id"),
}


def read_index(data: CocoData) -> Index:
    """Join films and annotations of the category. Raises PneumoError."""
    data.check_places()
    assert data.annotations is not None
    told = _read(Path(data.annotations))
    images, found = told["images"], _of_category(data, told)
    truth = _kind(data, found)
    by_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    lost = [one for one in found if one["image_id"] not in by_image]
    left_aside: dict[str, list[str]] = {}
    cases = [f"image_id {one['image_id']}" for one in lost]
    joining.refuse(data, {"annotations of images that are not listed": cases}, left_aside)
    for one in found:
        by_image.get(one["image_id"], []).append(one)
    names = {image_id(str(image["file_name"])): image for image in images}
    if len(names) < len(images) or len(by_image) < len(images):
        raise PneumoError(
            f"{data.annotations}: {len(images):,} images, but {len(names):,} file names and "
            f"{len(by_image):,} ids; each image must have its own"
        )
    joined = joining.join(data, list(names))
    items: list[Item] = []
    malformed: list[str] = []
    for name, path in joined.films.items():
        image = names[name]
        try:
            annotations, shape = _annotations(by_image[image["id"]], image, path, truth)
        except (TypeError, ValueError) as error:
            malformed.append(f"{name}: {error}")
            continue
        known = name.replace("/", "-")
        items.append(Item(known, path, annotations, patient_in(name), shape=shape, truth=truth))
    joining.refuse(data, {"films whose annotations are malformed": malformed}, left_aside)
    return Index(joining.with_patients(data, items), {**left_aside, **joined.left_aside})


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The lists of a file of instances, each entry with what it needs. Raises PneumoError."""
    told = files.read_json(path)
    for name, keys in KEYS.items():
        entries = told.get(name) if isinstance(told, dict) else None
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and all(key in entry for key in keys) for entry in entries
        ):
            raise PneumoError(f"{path}: expected a list {name} with {', '.join(keys)}")
    return told


def _of_category(data: CocoData, told: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The annotations of pneumothorax, by the name of their category."""
    names = {str(one["name"]): one["id"] for one in told["categories"]}
    ids = {names[name] for name in names if name.strip().lower() == data.category.lower()}
    if not ids:
        raise PneumoError(
            f"{data.annotations}: no category {data.category} (data.category); it has "
            f"{', '.join(names) or 'none'}"
        )
    return [one for one in told["annotations"] if one["category_id"] in ids]


def _kind(data: CocoData, found: list[dict[str, Any]]) -> Truth:
    """What the annotations tell: masks, or boxes where none has a mask. Raises PneumoError."""
    without = [one for one in found if not one.get("segmentation")]
    if found and len(without) == len(found) and all(one.get("bbox") for one in found):
        return Truth.boxes
    if without:
        raise PneumoError(
            f"{data.annotations}: {len(without):,} of {len(found):,} annotations of "
            f"{data.category} have no segmentation, e.g. of image_id {without[0]['image_id']}"
        )
    return Truth.masks


def _annotations(
    found: list[dict[str, Any]], image: dict[str, Any], path: Path, truth: Truth
) -> tuple[list[str], tuple[int, int] | None]:
    """A film's run lengths, and the shape that they count; None: not stated, of a film without.

    Raises ValueError.
    """
    sizes = {_size(image.get("height"), image.get("width"))}
    for one in found:
        segmentation = one.get("segmentation")
        if isinstance(segmentation, dict):
            size = segmentation.get("size")
            sizes.add(_size(*size) if isinstance(size, list) and len(size) == 2 else None)
    stated = {size for size in sizes if size}
    if len(stated) > 1:
        raise ValueError(f"its sizes differ: {' and '.join(map(str, sorted(stated)))} (H, W)")
    if not found and not stated:
        return [], None
    if not stated:
        raise ValueError("its size is not known (width and height of the image, or size [H, W])")
    (shape,) = stated
    fault = joining.shape_fault(path, shape)
    if fault:
        raise ValueError(fault)
    texts = [_text(one, shape, truth) for one in found]
    return [text for text in texts if not rle.is_empty(text)], shape


def _size(rows: Any, columns: Any) -> tuple[int, int] | None:
    sides = (rows, columns)
    return (rows, columns) if all(type(side) is int and side > 0 for side in sides) else None


def _text(annotation: dict[str, Any], shape: tuple[int, int], truth: Truth) -> str:
    """One annotation as run lengths. Raises ValueError."""
    if truth is Truth.boxes:
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4:
            raise ValueError("a bbox must be x, y, width and height")
        return of_box((float(box[0]), float(box[1]), float(box[2]), float(box[3])), shape)
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        return coco.from_counts(segmentation.get("counts"), shape)
    polygons = [coco.polygon(_points(numbers), shape) for numbers in segmentation]
    return rle.encode(coco.filled(polygons, shape))


def _points(numbers: Any) -> list[Any]:
    """A flat list x, y, x, y, … as points."""
    if not isinstance(numbers, list) or len(numbers) % 2:
        raise ValueError("a polygon must be a list x, y, x, y, …")
    return list(zip(numbers[::2], numbers[1::2], strict=True))
