"""All benchmarks, or those named, as one table: ``python -m benchmarks [names…]``.

Each runs in a process of its own. What cannot run on this machine is a row with the reason.
"""

import argparse
import dataclasses
import json
import multiprocessing
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks import table
from benchmarks.table import Row
from pneumo import pool

# in the order of the work: films in, training, prediction, judging
ORDER = [
    *("start", "caching", "loading", "step", "apply", "prediction", "page"),
    *("masks", "codec", "thresholds", "report", "memory", "shards", "growth", "gpu"),
]
HERE = Path(__file__).parent
NAMES = [name for name in ORDER if (HERE / f"{name}.py").is_file()]


def machine() -> str:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.is_file():
        for line in about.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {pool.cores()} cores; Python {platform.python_version()}"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if a benchmark failed."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that it runs")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, help="also write every round to this file")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in NAMES]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    rows: list[Row] = []
    failed = False
    for name in asked.names or NAMES:
        begin = time.perf_counter()
        print(f"{name} …", file=sys.stderr, flush=True)
        # a process each: neither threads nor freed memory of one reach the next
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
            try:
                rows += one.submit(table.measured, name, asked.quick).result()
            except Exception as error:
                failed = True
                rows.append(Row(name, reason=f"failed: {type(error).__name__}: {error}"))
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    note = f"{machine()}. Ratios: median of the rounds, and their range; peaks: ours / other's."
    if asked.quick:
        note += " Quick: the figures mean nothing."
    whole = table.shown(rows, "Benchmarks", note)
    print(whole.markdown() if asked.markdown else whole.aligned())
    if asked.json:
        content = {"machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}
        asked.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
