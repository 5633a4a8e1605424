"""A model to hand on: one folder with weights and a card, and nothing in it that executes.

model/card.json              architecture, input, thresholds and how they were chosen, the curve
                             from a film's score to its probability, scores, data, licence, limits
model/weights-0.safetensors  one file for each member; several members (folds, runs) are averaged
model/weights-0.onnx         optional, the same networks for ONNX Runtime
model/training.json          digests of the films, and patients, it was trained on

A bundle may come from anyone. Pickled weights could run any program when they are loaded, so
weights are safetensors or ONNX files, which hold numbers only. A card could name files elsewhere on
the disk, so names that lead out of the folder are refused. It could ask for more memory than there
is, by a huge side or one file as many members, so both are limited. Files changed or broken on the
way are found by the card's checksums.
"""

import logging
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pneumo import files, runs, seals
from pneumo.data.likeness import Look
from pneumo.errors import PneumoError, brief
from pneumo.inference import stack
from pneumo.inference.engine import (
    Engine,
    Probabilities,
    onnx_engine,
    to_levels,
    torch_engine,
    with_flip,
)
from pneumo.inference.maps import JUDGED
from pneumo.inference.probability import Platt
from pneumo.inference.seen import Trained
from pneumo.inference.stack import Stack
from pneumo.masks.histograms import Histograms
from pneumo.masks.resize import enlarge, shrink
from pneumo.masks.settings import Postprocess
from pneumo.settings import Machine, settings_from
from pneumo.training import record
from pneumo.training.options import Model

CARD, TRAINING = "card.json", "training.json"
SIDES = range(16, 4097)  # at which a network may see films
FORMAT = "pneumo-bundle-1"
INTENDED_USE = "Research on pneumothorax segmentation in frontal chest X-rays."
# what a network knows of the world, by the format of its training data
SEEN = {
    "phantom": (
        "Trained on drawn phantoms, not on X-rays: what it says of a real film means nothing."
    ),
    "siim": (
        "Trained on frontal films of adults from one source; "
        "untested on lateral films, children, other body parts and other populations. "
        "Chest tubes are correlated with pneumothorax in such data."
    ),
    "folder": "Trained on one folder of films; untested on any others.",
}


# of pretrained encoders; what they ask for is met by naming them
PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause")


def limits(formats: Iterable[str], share: float | None = None, licences: Iterable[str] = ()) -> str:
    """What a model must not be used for, by the formats of its members' training data.

    ``share`` of the films that its probabilities are calibrated to are positive; None: they are
    not calibrated. ``licences`` are those of the encoders' pretrained weights.
    """
    binding = [one for one in dict.fromkeys(licences) if one not in PERMISSIVE]
    bound = [
        f"Made from an encoder under {one}, whose terms bind whatever is made of it: read them "
        "before you use or pass on these weights."
        for one in binding
    ]
    seen = [SEEN.get(name, SEEN["folder"]) for name in dict.fromkeys(formats)]
    probability = "A probability is a score of the network, not a calibrated risk."
    if share is not None:
        probability = (
            f"A film's probability is calibrated to films of which {share:.1%} show pneumothorax; "
            "where it is rarer, the probability is too high. That of a pixel is a score."
        )
    return " ".join(
        ["Not a medical device; not for diagnosis or triage.", *seen, probability, *bound]
    )


@dataclass
class Member:
    """One network of a bundle."""

    model: Model
    size: int
    weights: Path
    onnx: Path | None


@dataclass(frozen=True)
class Role:
    """What a member is for. Members of one fit are its best epochs."""

    fit: int
    experiment: str
    weight: float = 1.0  # of its map in the mean; 0: it only tells presence
    tells: bool = True


class Said(NamedTuple):
    """What a bundle says of n films: maps, levels uint8 (n, size, size), and presence (n,)."""

    levels: np.ndarray
    presence: np.ndarray | None


@dataclass
class Bundle:
    """A model ready for use on single films."""

    folder: Path
    card: dict[str, Any]
    members: list[tuple[int, Engine]]
    rule: Postprocess
    tta: bool
    engine: str
    curve: Platt = field(default_factory=Platt)  # from a film's score to its probability
    roles: list[Role] = field(default_factory=list)  # of the members; none: all are averaged alike
    stack: Stack | None = None  # makes the presence score of what the members say
    trained: Trained | None = None  # the films it was trained on, where they are told

    @property
    def name(self) -> str:
        """What made it, for records."""
        return str(self.card["name"])

    @property
    def knows_phantoms_only(self) -> bool:
        """Whether no member was trained on an X-ray."""
        return {one["format"] for one in self.card["data"]} == {"phantom"}

    @property
    def experience(self) -> str:
        """What it was trained on, and how well it did on what was held out, in a line."""
        first = self.card["data"][0]
        what = (
            "drawn phantoms, not X-rays" if self.knows_phantoms_only else f"{first['name']} films"
        )
        score = (self.card.get("scores") or {}).get("scores") or {}
        text = f"Model {self.name}: trained on {first['training']:,} {what}"
        if score.get("dice") is not None:
            of_parts = {one["parts"]: one["validation"] for one in self.card["data"]}
            held = sum(of_parts.values())
            text += (
                f"; Dice {score['dice']:.3f} on {held:,} held out "
                f"(empty masks: {score['all_empty_dice']:.3f})"
            )
        return text

    def unlike(self, film: np.ndarray) -> str:
        """Why an upright film uint8 (rows, columns) is unlike what a member was trained on.

        Empty if it is alike, or if the card does not say what the training films look like.
        """
        for member in self.card["members"]:
            known = member["run"].get("look")
            if known is None:
                continue
            look = Look(**known)
            if (found := look.of(film)) < look.least:
                return (
                    "does not look like the films the model was trained on "
                    f"(correlation {found:.2f}, at least {look.least:.2f})"
                )
        return ""

    def says(self, film: np.ndarray, tta: bool | None = None) -> tuple[np.ndarray, float | None]:
        """An upright film uint8 (rows, columns) → its map, uint8 levels of 1/255, and presence.

        The presence score is the mean of the networks that tell it, or the stack's; None if none
        does. The film may have any size; the map has the network's. With ``tta`` (by default as the
        card says) it is the mean with the mirror image's.
        """
        return self.says_each([film], tta)[0]

    def says_each(
        self, films: Sequence[np.ndarray], tta: bool | None = None
    ) -> list[tuple[np.ndarray, float | None]]:
        """What ``says`` says of several films, which may differ in size; the networks see them at
        once.
        """
        tta = self.tta if tta is None else tta
        said = []
        for size, engine in self.members:
            small = np.stack([shrink(film, size) for film in films])
            said.append(with_flip(engine, small)[1] if tta else engine(small))
        return self._one_by_one(said)

    def says_of(self, films: Mapping[int, np.ndarray]) -> tuple[Said, Said]:
        """What it says of n films, without TTA and with it.

        ``films``: by each member's size uint8 (n, size, size), upright, see ``shrink``.
        """
        both = [with_flip(engine, films[size]) for size, engine in self.members]
        plain, flip = ([said[way] for said in both] for way in range(2))
        return self._of_each(plain), self._of_each(flip)

    @property
    def size(self) -> int:
        """The side of its maps."""
        return max(self.members[place][0] for place in self._averaged())

    def _of_each(self, said: Sequence[Probabilities]) -> Said:
        films = self._one_by_one(said)
        told = [presence for _, presence in films if presence is not None]
        return Said(
            np.stack([levels for levels, _ in films]),
            np.array(told, np.float32) if told else None,
        )

    def _one_by_one(self, said: Sequence[Probabilities]) -> list[tuple[np.ndarray, float | None]]:
        """What the members say of n films → map and presence of each."""
        return [
            self._of_all(
                [
                    Probabilities(
                        one.maps[row : row + 1],
                        None if one.presence is None else one.presence[row : row + 1],
                    )
                    for one in said
                ]
            )
            for row in range(len(said[0].maps))
        ]

    def _averaged(self) -> list[int]:
        """The places of the members whose maps are averaged."""
        roles = self._roles()
        return [place for place, role in enumerate(roles) if role.weight > 0]

    def _roles(self) -> list[Role]:
        return self.roles or [Role(place, "") for place in range(len(self.members))]

    def _of_all(self, said: Sequence[Probabilities]) -> tuple[np.ndarray, float | None]:
        """What all members say of one film → its map, uint8 levels, and presence."""
        roles = self._roles()
        maps = [to_levels(one.maps[0]) for one in said]
        presence = self._presence(maps, said, roles)
        averaged = self._averaged()
        if len(averaged) == 1:
            return maps[averaged[0]], presence
        enlarged = [enlarge(maps[place], (self.size, self.size)) for place in averaged]
        mean = np.average(enlarged, axis=0, weights=[roles[place].weight for place in averaged])
        return mean.round().astype(np.uint8), presence

    def _presence(
        self, maps: Sequence[np.ndarray], said: Sequence[Probabilities], roles: Sequence[Role]
    ) -> float | None:
        """A film's presence score: the mean of the fits that tell it, or the stack's."""
        fits: dict[int, list[int]] = {}
        for place, role in enumerate(roles):
            if role.tells:
                fits.setdefault(role.fit, []).append(place)
        scores: list[float] = []
        stacked: dict[str, list[np.ndarray]] = {}
        for places in fits.values():
            told = [float(p[0]) for place in places if (p := said[place].presence) is not None]
            score = float(np.mean(told)) if told else None
            if score is not None:
                scores.append(score)
            if self.stack is not None:
                mean = np.mean([maps[place] for place in places], axis=0).round().astype(np.uint8)
                levels = enlarge(mean, (JUDGED, JUDGED))
                counted = np.bincount(levels.ravel(), minlength=256)[None]
                _, x = stack.features(
                    Histograms(counted, np.zeros_like(counted)),
                    None if score is None else np.array([score]),
                )
                stacked.setdefault(roles[places[0]].experiment, []).append(x)
        if self.stack is not None:
            columns = [np.mean(each, axis=0) for each in stacked.values()]
            try:
                return float(self.stack(np.concatenate(columns, axis=1))[0])
            except ValueError:
                raise PneumoError(f"{self.folder}: its stack does not fit its members") from None
        return float(np.mean(scores)) if scores else None


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a bundle. Raises PneumoError."""
    try:
        card = seals.read_json(folder / CARD)
        if card.get("format") != FORMAT:
            raise PneumoError(
                f"{folder}: not a bundle that this version reads "
                f"(format {card.get('format')!r}, wanted {FORMAT!r})"
            )
        return _completed(dict(card))
    except FileNotFoundError:
        if (folder / runs.RECORD).is_file():
            raise PneumoError(
                f"model={folder}: a run, not a bundle; make one first, "
                f"python -m pneumo.export run={folder} out=model, then use model=model"
            ) from None
        raise PneumoError(
            f"{folder}: not a bundle (no {CARD}); "
            f"make one with python -m pneumo.export run=… out={folder}"
        ) from None
    except PneumoError:
        raise
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise PneumoError(f"{folder / CARD}: damaged ({brief(error)})") from None


def _completed(card: dict[str, Any]) -> dict[str, Any]:
    """A card as today's say it: older ones name no format, and state the same limits for all."""
    if any("format" not in one for one in card["data"]):
        for one in card["data"]:
            # a drawn data set bore that name unless its user chose another
            one.setdefault("format", one["name"] if one["name"] in SEEN else "siim")
        card["limits"] = limits(one["format"] for one in card["data"])
    return card


def load(folder: Path, machine: Machine | None = None, engine: str = "auto") -> Bundle:
    """Open a bundle for use.

    Nothing in it is executed or unpickled, and its weights must have the card's checksums.

    Args:
        folder: made by ``python -m pneumo.export``.
        machine: accelerator and threads.
        engine: torch, onnx (needs the extra ``onnx``, and a bundle made with onnx=true), or auto:
            onnx where it is there and the work is done on a CPU, else torch.

    Raises:
        PneumoError: what is missing or damaged.
    """
    machine = machine or Machine()
    card = read_card(folder)
    try:
        rule = settings_from(Postprocess, card["postprocess"])
        members = [_member(folder, values) for values in card["members"]]
        tta = bool(card["tta"])
        calibrated = card.get("calibration") or {
            "slope": 1,
            "intercept": 0,
        }  # older cards have none
        curve = Platt(float(calibrated["slope"]), float(calibrated["intercept"]))
        roles = [_role(place, values["run"]) for place, values in enumerate(card["members"])]
        stacks = Stack.from_dict(card["stack"]) if card.get("stack") else None
    except files.DAMAGE as error:
        raise PneumoError(
            f"{folder / CARD}: damaged, or not understood: it was written by pneumo "
            f"{card.get('pneumo')}, commit {card.get('commit')} "
            f"({type(error).__name__}: {brief(error)})"
        ) from None
    trained = _trained(folder, card)
    bundle = Bundle(folder, card, [], rule, tta, engine, curve, roles, stacks, trained)
    _check_card(bundle)
    onnx = engine == "onnx"
    if engine == "auto":
        onnx = all(member.onnx for member in members) and _has_onnx(machine)
    built: list[tuple[int, Engine]] = []
    for member, values in zip(members, card["members"], strict=True):
        if onnx and member.onnx is None:
            raise PneumoError(
                f"{folder}: holds no ONNX networks; export it with onnx=true, or use engine=torch"
            )
        if onnx and member.onnx is not None:
            _check(member.onnx, values.get("onnx_sha256"))
            built.append((member.size, onnx_engine(member.onnx, machine)))
        else:
            _check(member.weights, values["sha256"])
            built.append(
                (member.size, torch_engine(member.model, member.weights, "model", machine))
            )
    bundle.members, bundle.engine = built, "onnx" if onnx else "torch"
    return bundle


def _check_card(bundle: Bundle) -> None:
    """Ask a card for all that is said by it. Raises PneumoError for what it cannot say."""
    card = bundle.card
    files_of = [one[key] for key in ("weights", "onnx") for one in card["members"] if one.get(key)]
    weights = [role.weight for role in bundle.roles]
    try:
        if len(set(files_of)) < len(files_of):
            raise ValueError("one file is several members")
        if not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
            raise ValueError("weights of members that make no mean")
        if not (math.isfinite(bundle.curve.slope) and math.isfinite(bundle.curve.intercept)):
            raise ValueError("a curve of numbers that are not finite")
        if not isinstance(card["name"], str) or not isinstance(card["limits"], str):
            raise ValueError("a name or limits that are no text")
        if not isinstance(card.get("calibration"), dict | None):
            raise ValueError("a calibration of another kind")
        if bundle.stack is not None:
            bundle.stack(np.zeros((1, len(bundle.stack.names))))
        _ = bundle.experience
        bundle.unlike(np.zeros((16, 16), np.uint8))
    except files.DAMAGE as error:
        raise PneumoError(
            f"{bundle.folder / CARD}: damaged, or not understood "
            f"({type(error).__name__}: {brief(error)})"
        ) from None


def _trained(folder: Path, card: dict[str, Any]) -> Trained | None:
    """The films that a bundle was trained on, which older ones do not tell. Raises PneumoError."""
    told = card.get("training")
    if told is None:
        return None
    path = folder / TRAINING
    try:
        _check(path, told["sha256"])
        return Trained.from_dict(files.parse_json(path.read_text(encoding="utf-8")))
    except PneumoError:
        raise
    except files.DAMAGE as error:
        raise PneumoError(f"{path}: damaged ({brief(error)})") from None


def _member(folder: Path, values: dict[str, Any]) -> Member:
    model = settings_from(Model, record.model_as_meant(values["model"]))
    onnx = folder / values["onnx"] if values.get("onnx") else None
    # Against path traversal: a card that names ../../somewhere would have other files opened, so a
    # name must be a bare file name. By its suffix the file is of a kind that executes nothing.
    for path, suffix in ((values["weights"], ".safetensors"), (values.get("onnx") or "", ".onnx")):
        if path and (Path(path).name != path or Path(path).suffix != suffix):
            raise ValueError(f"{path} lies outside the bundle, or is no {suffix} file")
    size = int(values["size"])
    if size not in SIDES:
        raise ValueError(f"a side of {size} pixels")
    return Member(model, size, folder / values["weights"], onnx)


def _role(place: int, run: dict[str, Any]) -> Role:
    """What a member is for; members of older cards are fits of their own, averaged alike."""
    return Role(
        int(run.get("fit", place)),
        str(run.get("experiment")),
        float(run.get("weight", 1.0)),
        bool(run.get("tells", True)),
    )


def _check(path: Path, sha256: Any) -> None:
    if not path.is_file() or files.sha256(path) != sha256:
        raise PneumoError(
            f"{path}: missing, or not the file that the card describes; copy the bundle again"
        )


def _has_onnx(machine: Machine) -> bool:
    """Whether ONNX Runtime is installed and the work is done on a CPU."""
    if machine.accelerator not in ("auto", "cpu"):
        return False
    try:
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError:
        return False
    import torch

    return machine.accelerator == "cpu" or not torch.cuda.is_available()


def write(
    folder: Path,
    card: dict[str, Any],
    networks: Sequence[Any],
    cards: Sequence[dict[str, Any]],
    onnx: bool,
    trained: Trained | None = None,
) -> None:
    """Write a bundle, whole or not at all: networks, the films of the training, then the card.

    An older bundle of that name is replaced.

    Raises:
        PneumoError: the folder holds something else, or an ONNX network does not give the same
            output.
    """
    from pneumo.training.weights import save_weights

    # a bundle that is replaced is deleted, so the folder must hold nothing but a bundle
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not folder.is_dir() or folder.is_symlink():
            raise PneumoError(f"out={folder}: not a folder of its own; choose another")
        read_card(folder)  # raises if it is not a bundle
        foreign = [
            path.name
            for path in folder.iterdir()
            if path.name not in (CARD, TRAINING) and not path.match("weights-*.*")
        ]
        if foreign:
            raise PneumoError(
                f"out={folder}: holds {foreign[0]} beside a bundle; choose another folder"
            )
    with files.replacing_folder(folder) as partial:
        members = []
        for number, (network, about) in enumerate(zip(networks, cards, strict=True)):
            weights = partial / f"weights-{number}.safetensors"
            save_weights(network, weights, about)
            entry = {
                "weights": weights.name,
                "sha256": files.sha256(weights),
                "model": about["model"],
                "size": about["input"]["size"],
            }
            if onnx:
                path = partial / f"weights-{number}.onnx"
                entry["onnx"] = path.name
                entry["onnx_difference"] = export_onnx(network, entry["size"], path)
                entry["onnx_sha256"] = files.sha256(path)
            members.append({**entry, "run": about})
        if trained is not None:
            files.write_json(partial / TRAINING, trained.to_dict())
            card = {**card, "training": {"sha256": files.sha256(partial / TRAINING)}}
        seals.write_json(partial / CARD, {"format": FORMAT, **card, "members": members})


def export_onnx(network: Any, size: int, path: Path, tolerance: float = 1e-3) -> float:
    """Write a network as ONNX and check it against torch.

    The ONNX network takes films uint8 (n, 1, size, size) and gives probabilities float32, and those
    of presence (n,) if it has that head. Returns the largest difference of a probability, on a film
    of noise and one of a gradient. Raises PneumoError if it is beyond ``tolerance``.
    """
    import torch

    from pneumo.training.network import probabilities

    class Probabilities(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, films: torch.Tensor) -> tuple[torch.Tensor, ...]:
            mask, presence = probabilities(self.network(films))
            return (mask,) if presence is None else (mask, presence)

    tells = network.presence is not None
    module = Probabilities().eval()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (size, size))
    gradient = np.linspace(0, 255, size * size).reshape(size, size)
    films = np.stack([noise, gradient]).astype(np.uint8)
    x = torch.from_numpy(films)[:, None]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            torch.onnx.export(
                module,
                (x,),
                str(path),
                input_names=["films"],
                output_names=["probabilities", "presence"][: 1 + tells],
                dynamo=True,
                external_data=False,
                dynamic_shapes={"films": {0: torch.export.Dim("n", min=1, max=4096)}},
                verbose=False,
            )
        exported = onnx_engine(path, Machine())(films)
    except ModuleNotFoundError as error:
        raise PneumoError(
            f"onnx=true needs the package {error.name}: pip install -e '.[onnx]'"
        ) from None
    with torch.inference_mode():
        mask, *presence = module(x)
    difference = float(np.abs(exported.maps - mask[:, 0].numpy()).max())
    if exported.presence is not None:
        difference = max(difference, float(np.abs(exported.presence - presence[0].numpy()).max()))
    if difference > tolerance:
        raise PneumoError(
            f"the ONNX network differs from torch's by up to {difference:.2g} in a probability; "
            "it was not written"
        )
    return difference
