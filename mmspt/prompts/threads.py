"""Layers side by side on the cores of a CPU."""
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain, islice
from typing import Any

import torch
from threadpoolctl import threadpool_limits

QUOTA = '/sys/fs/cgroup/cpu.max'
"""Microseconds of processor time in so many, of a container."""


def num_cores() -> int:
    """The cores that this process may use: its affinity, and a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    if not os.path.isfile(QUOTA):
        return cores
    with open(QUOTA, encoding='utf-8') as file:
        quota, period = file.read().split()
    return cores if quota == 'max' else max(1, min(cores, round(int(quota) / int(period))))


def process_cores() -> int:
    """The share of one of the processes of a run on this machine, as configs/_base_/datasets/workers.py counts it."""
    slurm, processes = os.environ.get('SLURM_CPUS_PER_TASK'), os.environ.get('LOCAL_WORLD_SIZE')
    if not slurm:  # else the cores are those of one of MPI's processes
        processes = processes or os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE')
    return max(1, int(slurm or num_cores()) // int(processes or 1))


def num_threads() -> int:
    """OMP_NUM_THREADS or torch.set_num_threads, within the cores that this process may use."""
    return max(1, min(torch.get_num_threads(), num_cores()))


def in_threads(function: Callable[[Any], Callable[[], Any]], items: Iterator[Any], threads: int,
               inner: int = 1) -> list[Any]:
    """Work on one item a thread; on a single item, or with one thread, in the calling thread with no limit inside.

    One thread in each of several layers is at least as fast as several threads in one layer after the other, and keeps
    its speed where other work wants the cores too. joblib takes as many items ahead as it has threads, and an item is a
    layer's tokens.

    Args:
        function (Callable): Prepares an item with torch; the call that it returns does the work of scikit-learn.
        items (Iterator): No more of them are taken than are worked on.
        threads (int): Items worked on at once.
        inner (int): Threads of OpenMP in each. Defaults to 1.

    Returns:
        list: What the calls returned, in the order of items.
    """
    def limited(item: Any) -> Any:
        work = function(item)  # before the limit: torch sets OpenMP's number itself when a thread first uses it
        with threadpool_limits(inner, user_api='openmp'):  # holds for this thread
            return work()

    first = list(islice(items, min(threads, 2)))
    items = chain(first, items)
    if len(first) < 2:
        del first
        return [function(item)() for item in items]
    del first

    futures: list[Future] = []
    busy: set[Future] = set()
    # scikit-learn sets BLAS, whose limit is the process's, to 1 and back around each fit: without a limit outside,
    # fits that overlap would leave it at 1
    with threadpool_limits(1, user_api='blas'), ThreadPoolExecutor(threads) as pool:
        while True:
            if len(busy) == threads:
                done, busy = wait(busy, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()  # an error ends the work now
            item = next(items, None)
            if item is None:
                return [future.result() for future in futures]
            futures.append(pool.submit(limited, item))
            busy.add(futures[-1])
            del item
