"""A broken line of the core is noticed: each breakage of ``mutations.yaml`` fails a test it names.

``python -m pytest -m slow tests/attacks/test_mutations.py`` tries them all, ``-k`` with a word of
what a user would suffer one of them. Whoever rewrites a line that is broken there breaks the new
one instead.
"""

import ast
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MUTATIONS = yaml.safe_load((ROOT / "tests" / "attacks" / "mutations.yaml").read_text("utf-8"))
NAMES = [mutation["harm"] for mutation in MUTATIONS]
TREE = ("pneumo", "conf", "tests", "pyproject.toml")
QUIET = {
    "OMP_NUM_THREADS": "1",  # a process that has started threads cannot be forked
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "WANDB_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
    "PNEUMO_EXAMPLES": "first",
}


@functools.cache
def functions_of(path):
    """The names of a file's functions."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_breakage_is_of_a_line_that_stands_once_and_names_tests_that_are_there():
    gone = []
    for mutation in MUTATIONS:
        text = (ROOT / mutation["file"]).read_text("utf-8")
        if text.count(mutation["old"]) != 1:
            gone.append(
                f"{mutation['file']}: {mutation['old']!r} stands {text.count(mutation['old'])} "
                f"times, not once; in mutations.yaml, break what now keeps users from this: "
                f"{mutation['harm']}"
            )
        assert mutation["new"] != mutation["old"]
        for test in mutation["tests"]:
            file, _, function = test.partition("::")
            if function.partition("[")[0] not in functions_of(ROOT / file):
                gone.append(f"{test}: no such test, which should notice: {mutation['harm']}")
    assert gone == []


def test_no_two_breakages_are_the_same():
    assert len(MUTATIONS) >= 60
    assert len({(one["file"], one["old"], one["new"]) for one in MUTATIONS}) == len(MUTATIONS)
    assert len(set(NAMES)) == len(NAMES)


@pytest.fixture(scope="module")
def attempt(tmp_path_factory):
    """Tries a breakage on a copy of the tree; of none, runs the tests alone."""
    copy = tmp_path_factory.mktemp("tree")
    for name in TREE:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, copy / name)
    foreign = ("PYTEST_", "PYTHONPATH", "PNEUMO_REAL_DATA", "CI")
    environment = {key: one for key, one in os.environ.items() if not key.startswith(foreign)}
    compiled = [sys.executable, "-m", "compileall", "-q", str(copy / "pneumo")]
    subprocess.run(compiled, check=True)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "attacks" / "mutating.py"), str(copy)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, **QUIET},
    )

    def attempted(mutation):
        process.stdin.write(json.dumps(mutation) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield attempted
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()


@pytest.mark.slow
def test_the_tests_pass_where_nothing_is_broken(attempt):
    tests = sorted({test for mutation in MUTATIONS for test in mutation["tests"]})
    found = attempt({"tests": tests})
    assert found["status"] == pytest.ExitCode.OK, found["said"]


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=NAMES)
def test_a_broken_line_is_noticed(attempt, mutation):
    found = attempt(mutation)
    assert found["status"] != pytest.ExitCode.OK, "no test that is named notices it"
    assert found["status"] == pytest.ExitCode.TESTS_FAILED, found["said"]
