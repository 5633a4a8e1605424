"""Work on many items: in processes with a progress bar, or ahead of their use in threads.

Ctrl-C stops it at once.
"""

import itertools
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeVar

import cv2
from tqdm import tqdm

log = logging.getLogger(__name__)

FEW = 32  # items that two processes, which take a second to start, would not have done sooner
Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_available() -> int | None:
    """Bytes of main memory that programs can still be given, where the system tells."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return None
    (kilobytes,) = [line.split()[1] for line in text.splitlines() if "MemAvailable" in line]
    return int(kilobytes) * 1024


def each(
    function: Callable[[Item], Result], items: Sequence[Item], title: str, workers: int = -1
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) as results come, in any order.

    ``function`` must be importable; its errors are raised here. ``workers`` below 0 takes a process
    for each core, or none for up to ``FEW`` items; 0 works in this process.
    """
    if workers < 0:
        workers = cores() if len(items) > FEW else 0
    on_screen = sys.stderr.isatty()
    bar = tqdm(total=len(items), desc=title, unit="film", disable=not on_screen or not items)
    if not on_screen and len(items) > 100:
        log.info("%s: %s films", title, f"{len(items):,}")
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
                # few items wait at a time, so that results do not pile up in memory
                pending = {}
                for item in itertools.islice(queue, 4 * workers):
                    pending[executor.submit(function, item)] = item
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


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, most: int
) -> Generator[Result, None, None]:
    """Yield function(item) in the items' order, worked on in threads before it is asked for.

    Several of these one behind the other are stages that overlap. Memory stays flat: at most
    ``most`` items are taken from ``items`` whose results were not yielded yet. An error is raised
    in the place of its result; then, and if no more results are wanted, work that has not begun is
    dropped, and what is being done is waited for. 0 threads work in this one.
    """
    if threads == 0:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as executor:
        try:
            for item in items:
                pending.append(executor.submit(function, item))
                if len(pending) == most:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent is gone: killed, it tells nobody, and we would wait on."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
