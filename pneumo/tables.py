"""One table of text for terminals, Markdown and CSV."""

import csv
import io
from dataclasses import dataclass


def counted(number: int, noun: str) -> str:
    """``1 film``, ``2 films``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


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
        csv.writer(text, lineterminator="\n").writerows([self.head, *self.rows])
        return text.getvalue()

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
