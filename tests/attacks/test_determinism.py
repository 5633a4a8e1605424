"""The same seed gives the same numbers.

Every source of anything else is known by name, and fits do not depend on what differs between two
machines or two evenings.
"""

import ast
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TINY
from safetensors.numpy import load_file
from starter import Starter

PACKAGE = Path(__file__).parents[2] / "pneumo"

SEED = "a seed of the settings, and what is drawn with it"
CLOCK = "said or recorded beside results, never computed with"
HIDDEN = "a name or key that nobody else may have; no result holds it"

# by file: the calls, as written, that may give something else each time, and why results do not
KNOWN = {
    "cluster/equipment.py": {"tempfile.TemporaryFile(dir=there)": "to see whether one can be"},
    "cluster/job.py": {
        "os.getpid()": "whom a fit ends with",
        "time.sleep(1)": "a pause",
    },
    "cluster/local.py": {"time.monotonic()": CLOCK},
    "cluster/ray.py": {"time.monotonic()": CLOCK},
    "data/parts.py": {"random.Random(seed)": SEED},
    "data/sources/phantom.py": {
        "np.random.default_rng([data.seed, 0])": SEED,
        "np.random.default_rng([seed, 1, patient])": SEED,
        "np.random.default_rng([seed, 2, film])": SEED,
        "np.random.default_rng([seed, 3, film])": SEED,
        "generate_uid(entropy_srcs=['pneumo phantom', kind, str(seed), str(number)])": (
            "a digest of these, not random"
        ),
    },
    "evaluation/bundling.py": {"time.strftime('%Y-%m-%d')": CLOCK},
    "evaluation/methods.py": {"np.random.default_rng(seed)": SEED},
    "evaluation/scores.py": {"np.random.default_rng(seed)": SEED},
    "files.py": {"secrets.token_hex(3)": HIDDEN},
    "inference/bundle.py": {"np.random.default_rng(0)": "films to check ONNX against torch with"},
    "inference/corrections.py": {"datetime.now(UTC)": CLOCK},
    "inference/server.py": {
        "secrets.token_urlsafe(9)": HIDDEN,
        "secrets.token_urlsafe(16)": HIDDEN,
        "secrets.token_urlsafe()": HIDDEN,
        "secrets.compare_digest(token.encode(), offered.encode('utf-8', 'surrogatepass'))": (
            "draws nothing"
        ),
    },
    "predict.py": {"time.monotonic()": CLOCK},
    "runs.py": {"time.strftime('%Y-%m-%d %H:%M:%S')": CLOCK},
    "view.py": {"tempfile.TemporaryDirectory(prefix='pneumo-')": HIDDEN},
    "training/augmentation.py": {
        "np.random.SeedSequence(key)": "of seed, epoch and film",
        "np.random.default_rng(np.random.SeedSequence(key))": "of seed, epoch and film",
    },
    "training/augmentation_device.py": {
        "np.random.SeedSequence(key)": "of seed, epoch and film",
        "np.random.default_rng(np.random.SeedSequence(key))": "of seed, epoch and film",
    },
    "training/fit.py": {
        "pl.seed_everything(config.seed, workers=True, verbose=False)": (
            "first weights and dropout, whatever was drawn before"
        ),
    },
    "training/lineage.py": {"time.monotonic()": CLOCK},
    "training/loader.py": {
        "np.random.default_rng([self.config.split.seed, len(items)])": SEED,
    },
    "training/logbook.py": {"time.monotonic()": CLOCK},
    "training/measuring.py": {
        "np.random.default_rng(0)": "films to time steps with",
        "time.perf_counter()": CLOCK,
    },
    "training/module.py": {
        "np.random.SeedSequence([self.config.seed, self.current_epoch, rank])": SEED,
        "torch.manual_seed(int(sequence.generate_state(1)[0]))": SEED,
    },
    "training/processes.py": {"time.sleep(0.1)": "a pause"},
    "training/sampling.py": {
        "np.random.default_rng([self.seed, epoch, turn] if turn else [self.seed, epoch])": SEED,
        "np.random.default_rng([seed, epoch, len(self.each)])": SEED,
    },
}

ROOMS = ("random.", "numpy.random.", "secrets.", "uuid.", "time.", "datetime.", "tempfile.")
WORDS = {  # the last part of what is called, of any imported module
    *("urandom", "getrandom", "getpid", "generate_uid", "seed_everything", "manual_seed", "seed"),
    *("bernoulli", "multinomial", "poisson", "Dropout", "Dropout2d", "dropout", "setRNGSeed"),
    *("shuffle", "resample", "train_test_split"),
}
ANYWHERE = {  # methods of tensors, whatever they are called on
    *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "trunc_normal_"),
    *("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "orthogonal_"),
}
SETTINGS = {"random_state", "worker_init_fn", "generator", "shuffle"}
BUILT_IN = {"hash", "id"}


def sources(source: str) -> set[str]:
    """The calls of a module that may give something else each time, as written."""
    tree = ast.parse(source)
    imported = dict(names(tree))
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if "(" in called:  # a method of what another call gives, which is looked at by itself
            called = f"({called.rpartition(')')[2]}"
        root, dot, rest = called.partition(".")
        last = (rest or root).rpartition(".")[2]
        whole = imported.get(root, "") + dot + rest
        draws = root in imported and (
            whole.startswith(ROOMS) or last in WORDS or last.startswith("rand")
        )
        built_in = root in BUILT_IN and not dot
        unnamed = last == "to_html" and not any(key.arg == "div_id" for key in node.keywords)
        told = any(key.arg in SETTINGS for key in node.keywords)
        if draws or built_in or told or unnamed or last in ANYWHERE:
            found.add(ast.unparse(node))
    return found


def names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What a module imports, except of this package: the name it has there, and its whole name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith("pneumo"):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def everywhere(look: Callable[[str], set[str]]) -> dict[str, set[str]]:
    """What is found in each module of the package, where something is."""
    paths = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.rglob("*.py")}
    found = {name: look(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    return {name: calls for name, calls in found.items() if calls}


def test_every_source_of_randomness_is_known():
    """Another one must be named in the table above, with the reason why no result depends on it."""
    assert everywhere(sources) == {name: set(calls) for name, calls in KNOWN.items()}


@pytest.mark.parametrize(
    "source",
    [
        "import random\nrandom.random()",
        "import numpy as np\nnp.random.default_rng()",
        "from numpy.random import default_rng as draw\ndraw(3)",
        "import torch\ntorch.randn(3)",
        "import torch\ntorch.empty(3).normal_()",
        "from torch import nn\nnn.init.kaiming_normal_(weight)",
        "from torch import nn\nnn.Dropout(0.5)",
        "import os\nos.urandom(8)",
        "from time import time\ntime()",
        "from datetime import datetime\ndatetime.now()",
        "import uuid\nuuid.uuid4()",
        "import cv2\ncv2.randu(image, 0, 255)",
        "LogisticRegression(random_state=None)",
        "DataLoader(films, shuffle=True)",
        "hash(name)",
        "figure.to_html(include_plotlyjs=True)",  # plotly's own name for it is drawn
    ],
)
def test_a_new_source_of_randomness_is_noticed(source):
    assert len(sources(source)) == 1


# by file: where files of a folder, which come in any order, are not sorted at once, and why not
UNSORTED = {
    "cluster/equipment.py": {
        "kept.glob(f'models--{repository}/snapshots/*/model.safetensors')": "whether there is any",
    },
    "data/cache.py": {"folder.glob('*.partial')": "looked through for what is removed"},
    "data/sources/layouts.py": {"place.glob('*.1.img.png')": "one file of that name"},
    "data/sources/phantom.py": {"root.iterdir()": "asked whether there is any"},
    "files.py": {"folder.glob('.*.partial')": "removed"},
    "inference/applying.py": {"out.iterdir()": "asked whether there is any"},
    "inference/bundle.py": {"folder.iterdir()": "asked whether there is any other"},
    "inference/inputs.py": {
        "os.walk(root, onerror=faults.append, followlinks=True)": "sorted folder by folder"
    },
    "inference/maps.py": {"together.glob('*.lock')": "removed"},
    "inference/shards.py": {"folder.glob('*of*')": "sorted by number or count"},
    "runs.py": {
        "(folder / CHECKPOINTS).glob('*.safetensors')": "sorted by rank",
        "(folder / CHECKPOINTS).glob('epoch*.ckpt')": "removed",
    },
    "training/best.py": {"self.folder.glob('epoch*.ckpt')": "removed"},
    "training/listing.py": {
        "folder.rglob('*')": "sizes, added up",
        "one.folder.rglob('*.ckpt')": "removed",
    },
}
LISTING = {"iterdir", "glob", "rglob", "iglob", "listdir", "scandir", "walk"}


def unsorted(source: str) -> set[str]:
    """The listings of folders that do not stand within ``sorted(…)``, as written."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    inside: set[ast.AST] = set()
    for call in calls:
        if ast.unparse(call.func) == "sorted":
            inside.update(ast.walk(call))
    return {
        ast.unparse(call)
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in LISTING
        if call not in inside
    }


def test_folders_are_read_in_order_or_the_order_is_known_not_to_count():
    assert everywhere(unsorted) == {name: set(calls) for name, calls in UNSORTED.items()}


# --- whole fits -----------------------------------------------------------------------------------

OTHER_STATE = """
import random, numpy, torch
random.seed(5), numpy.random.seed(6), torch.manual_seed(7)
random.random(), numpy.random.rand(3), torch.rand(3)
"""


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    """Starts trainings where strings hash otherwise and another number of threads is offered."""
    env = {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    made = Starter(tmp_path_factory.mktemp("fits"), env)
    yield made
    made.close()


def trained(starter, finished, place, *arguments, experiment="exp5", before=""):
    """The weights that a training ends with, by experiment, as the bytes of their files."""
    folder = starter.folder / place
    shutil.copytree(finished[0] / "runs" / "phantom", folder / "phantom")
    given = (f"+experiment={experiment}", *TINY, f"runs_dir={place}", *arguments)
    ended = starter.run("train", given, before=before)
    assert ended.status == 0, ended.said
    return weights(folder)


def weights(runs, seed=0):
    """Each experiment's weights, bit for bit."""
    return {
        path.parts[-4]: {key: one.tobytes() for key, one in load_file(path).items()}
        for path in runs.glob(f"*/*/fold0-seed{seed}*/weights.safetensors")
    }


@pytest.mark.slow
def test_other_workers_and_another_place_of_the_films_give_the_same_weights(finished, starter):
    (films,) = (finished[0] / "runs" / "phantom").glob("24-*")
    shutil.copytree(films, starter.folder / "elsewhere" / "films")
    expected = weights(finished[0] / "runs")
    assert set(expected) == {"exp5_stage1", "exp5"}
    moved = trained(starter, finished, "moved", "machine.workers=2", "data.root=elsewhere/films")
    assert moved == expected


@pytest.mark.slow
def test_what_was_drawn_and_trained_before_changes_no_weights(finished, starter):
    """Generators of the process in another state; in a sweep, another seed before this one."""
    found = trained(starter, finished, "swept", "-m", "seed=1,0", before=OTHER_STATE)
    assert found == weights(finished[0] / "runs")
    other = weights(starter.folder / "swept", seed=1)
    assert other.keys() == found.keys()
    assert all(other[name] != found[name] for name in found)


@pytest.mark.slow
def test_with_threads_stated_a_fit_can_be_repeated(finished, starter):
    """As many threads as stated give the same weights each time; another number may not."""
    several = [
        trained(starter, finished, place, "machine.threads=2", experiment="exp5_stage1")
        for place in ("once", "twice")
    ]
    assert several[0] == several[1]
    assert len(several[0]) == 1
