"""The map of the package in the README is true: every module is in it and imports only what stands
above it. So are the tests: every module has a file of its own, where the module stands.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "pneumo", ROOT / "tests"
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = re.findall(r"^\| `([\w/]+)\.py`", README, re.MULTILINE)
COMMANDS = re.findall(r"^\| `(\w+)\.py`", README.partition("| **commands**")[2], re.MULTILINE)
GROUND = [name for name in MAP if "/" not in name and name not in COMMANDS]


def module_of(dotted):
    """``pneumo.masks.rle`` → ``masks/rle``, if that is a module."""
    name = dotted.removeprefix("pneumo.").replace(".", "/")
    return name if (PACKAGE / f"{name}.py").is_file() else None


def imported(name):
    """The project's modules that a module imports, anywhere in it, by their whole paths."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    dotted = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            dotted |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {module_of(one) for one in dotted if one.startswith("pneumo.")} - {None}


def room(name):
    """Where a module lives: a stage, the ground, or a command's own."""
    if "/" in name:
        return name.partition("/")[0]
    return "ground" if name in GROUND else name


def test_the_map_names_every_module_once():
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    assert sorted(MAP) == sorted(str(path) for path in paths if path.name != "__init__")


def own_tests(name):
    """The file of a module's tests; modules of the ground have theirs in ``tests`` itself."""
    place = "commands" if name in COMMANDS else room(name).replace("ground", "")
    leaf = name.rpartition("/")[2].strip("_")
    return TESTS / place / f"test_{leaf}.py"


def test_every_module_has_a_file_of_tests():
    assert [name for name in MAP if not own_tests(name).is_file()] == []


def test_modules_import_only_what_stands_above_them():
    wrong = [
        f"{name} imports {other}"
        for place, name in enumerate(MAP)
        for other in imported(name)
        if other in MAP[place:]
    ]
    assert wrong == []


def test_no_module_imports_a_command():
    wrong = [f"{n} imports {o}" for n in MAP for o in imported(n) if o in COMMANDS]
    assert wrong == []


def test_the_house_has_at_most_eight_floors():
    below = {room(name): set() for name in MAP}
    for name in MAP:
        below[room(name)] |= {room(other) for other in imported(name)} - {room(name)}

    def floor(which):
        return 1 + max((floor(other) for other in below[which]), default=0)

    assert max(floor(which) for which in below) <= 8
