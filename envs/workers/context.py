"""Start methods of processes, for environments and for whole runs."""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Sequence
from typing import Any


def process_context(preload: Sequence[str]) -> Any:
    """Return a multiprocessing context whose processes are forked from one that has done the imports, if available.

    Not "fork": there, locks of the parent's threads stay locked, and pipes of others stay open.

    Args:
        preload: Modules that are imported once and shared by all processes. The first process started decides.
    """
    if "forkserver" not in mp.get_all_start_methods():
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context
