"""The map of the package in the README is true: a module imports only modules above it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAP = re.findall(r"^\| `(\w+)\.py`", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "pneumo":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pneumo."):
            yield node.module.split(".")[1]


def test_the_map_names_every_module():
    assert sorted(MAP) == sorted(path.stem for path in (ROOT / "pneumo").glob("*.py") if path.stem != "__init__")


def test_modules_import_only_what_stands_above_them():
    wrong = [
        f"{name} imports {other}"
        for place, name in enumerate(MAP)
        for other in imported(ROOT / "pneumo" / f"{name}.py")
        if other in MAP[place:]
    ]
    assert wrong == []
