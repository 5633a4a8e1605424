"""All commands: ``python -m pneumo``, or ``pneumo`` once it is installed."""

import ast
import runpy
import sys
from difflib import get_close_matches
from pathlib import Path

from pneumo import __version__

COMMANDS = [
    "train",
    "siim",
    "phantoms",
    "predict",
    "evaluate",
    "plan",
    "study",
    "submit",
    "search",
    "report",
    "readers",
    "export",
    "submission",
    "view",
    "list",
    "doctor",
]


def main() -> None:
    """List the commands, or run the one that is named with what follows it."""
    typed = sys.argv[1:]
    if not typed or typed[0] in ("-h", "--help"):
        print(_listed())
        return
    if typed[0] == "--version":
        print(f"pneumo {__version__}")
        return
    if typed[0] not in COMMANDS:
        near = get_close_matches(typed[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(COMMANDS)}"
        print(f"error: {typed[0]}: no such command; {hint}", file=sys.stderr)
        sys.exit(1)
    sys.argv = [f"pneumo.{typed[0]}", *typed[1:]]
    runpy.run_module(f"pneumo.{typed[0]}", run_name="__main__", alter_sys=True)


def _listed() -> str:
    lines = [f"pneumo {__version__}: pneumothorax segmentation in chest X-rays", ""]
    for name in COMMANDS:
        text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        about = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
        lines.append(f"  {name:<11} {about.partition(':')[0].rstrip('.')}")
    lines += ["", "python -m pneumo.<command> --help (or pneumo <command> --help) lists settings."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
