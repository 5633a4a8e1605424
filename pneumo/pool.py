"""Work on many items in processes, with a progress bar; Ctrl-C stops it at once."""

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import TypeVar

import cv2
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    function: Callable[[Item], Result], items: Sequence[Item], title: str, workers: int = -1
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) as results come, in any order. ``function`` must be importable; its errors are raised here.

    ``workers`` below 0 takes one process a core; 0 works in this process.
    """
    workers = cores() if workers < 0 else workers
    bar = tqdm(
        total=len(items), desc=title, unit="film", disable=not sys.stderr.isatty() or not items
    )
    if not sys.stderr.isatty() and len(items) > 100:
        print(f"{title}: {len(items):,} films", flush=True)
    with bar:
        if workers < 2 or len(items) < 4 * workers:
            for item in items:
                yield item, function(item)
                bar.update()
            return
        queue = iter(items)
        # spawn: forking a process that already runs torch's threads may hang
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start) as executor:
            try:
                pending = {
                    executor.submit(function, item): item
                    for item in itertools.islice(queue, 4 * workers)
                }
                while pending:
                    done, _ = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        item = pending.pop(future)
                        for following in itertools.islice(queue, 1):
                            pending[executor.submit(function, following)] = following
                        yield item, future.result()
                        bar.update()
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                raise


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    cv2.setNumThreads(1)
