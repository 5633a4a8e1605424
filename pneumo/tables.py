"""One table of text for terminals, Markdown and CSV."""

import csv
import io
from dataclasses import dataclass


@dataclass
class Table:
    """A table with a title and a plain word below it. Cells are text."""

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
        return "\n".join([*lines, *(["", self.note] if self.note else [])]) + "\n"

    def csv(self) -> str:
        """As CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.head, *self.rows])
        return text.getvalue()

    def aligned(self) -> str:
        """For a terminal."""
        columns = list(zip(self.head, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (self.head, *self.rows)
        ]
        return "\n".join([self.title, *lines, *([self.note] if self.note else [])])
