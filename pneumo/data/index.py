"""Data settings → an index of annotated films, whatever the format."""

from pneumo.data.films import Index
from pneumo.data.settings import (
    BoxesData,
    CandidData,
    ChexlocalizeData,
    CocoData,
    Data,
    FolderData,
    LabelsData,
    PhantomData,
    SeveralData,
    SiimData,
)
from pneumo.data.sources import (
    boxes,
    candid,
    chexlocalize,
    coco,
    folder,
    labels,
    phantom,
    several,
    siim,
)


def read(data: Data, runs_dir: str) -> Index:
    """The films of a data set; phantoms are drawn below ``runs_dir`` first. Raises PneumoError."""
    match data:
        case PhantomData():
            return siim.read_index(phantom.in_place(data, runs_dir))
        case FolderData():
            return folder.read_index(data)
        case CandidData():
            return candid.read_index(data)
        case ChexlocalizeData():
            return chexlocalize.read_index(data)
        case CocoData():
            return coco.read_index(data)
        case BoxesData():
            return boxes.read_index(data)
        case LabelsData():
            return labels.read_index(data)
        case SiimData():
            return siim.read_index(data)
        case SeveralData():
            data.check_places()
            return several.read_index(data, lambda one: read(one, runs_dir))
    raise TypeError(f"no source for {type(data).__name__}")
