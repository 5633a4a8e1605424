"""One table of text for terminals, Markdown and CSV."""

import csv
import io
import re
from dataclasses import dataclass
from typing import Any


def counted(number: int, noun: str) -> str:
    """``1 film``, ``2 films``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


# a number with a sign, and its interval
SIGNED = re.compile(r"[+-][\d.][\d.,\s\[\]()%±–-]*")


def cell(value: Any) -> Any:
    """A cell of a CSV file that people open, safe for spreadsheets.

    The attack is CSV injection: a name that begins as a formula does is run as one, and a formula
    can start programs. A quotation mark before it makes it text. Carriage returns become blanks,
    since a writer of lines that end in line feeds alone lets them begin a row.
    """
    if not isinstance(value, str) or SIGNED.fullmatch(value):
        return value
    is_formula = value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return "'" * is_formula + value.replace("\r", " ")


SPECIAL = {
    **{one: f"\\{one}" for one in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"²": r"\textsuperscript{2}", "–": "--", "−": "$-$", "±": r"$\pm$", "…": r"\ldots{}"},
    **{"→": r"$\to$", "×": r"$\times$"},
}


def _escaped(text: str) -> str:
    """A text as LaTeX shows it."""
    return "".join(SPECIAL.get(one, one) for one in text)


@dataclass
class Table:
    """A table with a title and a note below it. Cells are text."""

    key: str
    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """As Markdown."""
        lines = [
            f"## {self.title}",
            "",
            "| " + " | ".join(self.head) + " |",
            "|" + "---|" * len(self.head),
        ]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """As CSV."""
        text = io.StringIO()
        rows = [[cell(one) for one in row] for row in (self.head, *self.rows)]
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def latex(self) -> str:
        """As LaTeX; needs the package booktabs."""
        columns = "l" + "r" * (len(self.head) - 1)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(self.title)}{'. ' * bool(self.note)}{_escaped(self.note)}}}",
            rf"\label{{tab:{self.key}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(_escaped, self.head)) + r" \\",
            r"\midrule",
            *(" & ".join(map(_escaped, row)) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def aligned(self) -> str:
        """For a terminal."""
        columns = list(zip(self.head, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = []
        if self.title:
            lines.append(self.title)
        for row in (self.head, *self.rows):
            cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)
