"""Shared by the benchmarks: alternate variants in one process, describe the machine, write the numbers."""
import argparse
import ctypes
import gc
import json
import os
import os.path as osp
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Any, TypeVar

import torch
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from mmspt.files import write_text
from mmspt.version import __version__

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler is chatty
Key = TypeVar('Key', bound=Hashable)
ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
PACKAGES = ('torch', 'mmengine', 'mmpretrain', 'numpy', 'scikit-learn')
OPTIONAL = ('triton', 'flash-kmeans')


def arguments(description: str, name: str, network: bool = True) -> argparse.ArgumentParser:
    """Return a parser with --out, for numbers in NAME.json by default, and with --arch and --img-size of a network."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if network:
        parser.add_argument('--arch', default='base', help="MMPretrain's name of the ViT")
        parser.add_argument('--img-size', type=int, default=224, help='pixels')
    parser.add_argument('--out', default=f'work_dirs/benchmarks/{name}.json', help='for the numbers')
    return parser


def installed(name: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the processor, the memory, the threads and the versions."""
    cpu, units = platform.processor(), []
    if os.path.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            lines = dict(line.split(':', 1) for line in file if ':' in line)
        facts = {key.strip(): value.strip() for key, value in lines.items()}
        cpu = facts.get('model name', cpu)
        units = [flag for flag in facts.get('flags', '').split()
                 if flag in ('avx2', 'avx512f', 'avx512_bf16', 'avx512_fp16', 'amx_bf16')]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return dict(
        cpu=cpu, units=units, cores=cores, threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name(device) if device.type == 'cuda' else None, cuda=torch.version.cuda,
        python=platform.python_version(), date=time.strftime('%Y-%m-%d'),
        versions=dict(mmspt=__version__) | {name: installed(name) for name in (*PACKAGES, *OPTIONAL)})


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the command line, without this machine's paths."""
    paths = ('data_root', 'checkpoint')
    return {key: os.path.basename(value) if key in paths and value else value for key, value in vars(args).items()
            if key != 'out'}


def wait(device: torch.device) -> None:
    """Wait for the device's work."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its text."""
    return f'{type(error).__name__}: {(str(error).strip() or "no text").splitlines()[0]}'


def free(device: torch.device) -> None:
    """Let go of what is no longer used, on the device as well."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.empty_cache()


def alternate(variants: Mapping[Key, Callable[[], Any]], rounds: int, device: torch.device, calls: int = 1,
              title: str = 'variants', failed: dict[Key, str] | None = None) -> dict[Key, list[float]]:
    """Time variants by turns: once each to warm up, then in every round, each round starting with another.

    Args:
        variants (Mapping[Key, Callable]): Name -> work.
        rounds (int): Measurements of each.
        device (torch.device): Waited for before the clock is read.
        calls (int): Calls in one measurement.
        title (str): Of the progress bar.
        failed (dict | None): Takes the names and errors of variants that fail, such as for lack of memory; the others
            go on. None raises. Defaults to None.

    Returns:
        dict[Key, list[float]]: Name -> seconds of one call, a number for each round.
    """
    names = list(variants)
    turns = [(turn, names[(turn + i) % len(names)]) for turn in range(-1, rounds) for i in range(len(names))]
    seconds: dict[Key, list[float]] = {name: [] for name in variants}
    for turn, name in track(turns, title, transient=True):
        if name not in seconds:
            continue
        try:
            wait(device)
            start = time.perf_counter()
            for _ in range(calls):
                variants[name]()
            wait(device)
        except Exception as error:
            if failed is None:
                raise
            failed[name] = first_line(error)
            del seconds[name], error
            free(device)
            continue
        if turn >= 0:
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: what slows a whole round down cancels."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def resident(key: str = 'VmRSS') -> int:
    """Return the bytes of main memory that the process holds (VmHWM: held at its peak), on Linux."""
    if key == 'VmRSS':
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # the allocator gives back what it keeps for later
    with open('/proc/self/status', encoding='utf-8') as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024


def peak_of_tensors(call: Callable[[], Any], device: torch.device) -> int:
    """Return the bytes that torch allocates for one call at its peak, beyond what is held before."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    events.sort(key=lambda event: event.start_ns() if hasattr(event, 'start_ns') else event.start_us())  # torch < 2.4
    return max(accumulate(event.nbytes() for event in events), default=0)


def peak_of_process(call: Callable[[], Any]) -> int | None:
    """Return the bytes of main memory that a call needs at its peak, beyond what is held before; None off Linux."""
    try:
        before = resident()
        with open('/proc/self/clear_refs', 'w', encoding='ascii') as file:
            file.write('5')  # sets VmHWM back to VmRSS
    except (OSError, AttributeError):
        call()
        return None
    call()
    return resident('VmHWM') - before


def show_table(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], title: str = '') -> None:
    """Print a table whose first column is text and whose others are numbers."""
    table = Table(title=title)
    for i, heading in enumerate(header):
        table.add_column(heading, justify='right' if i else 'left', no_wrap=not i)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str:
    """Return the table of :func:`show_table` as a section in Markdown."""
    aligned = ['---', *['---:'] * (len(header) - 1)]
    lines = [f'| {" | ".join(cell.replace("|", "/") for cell in row)} |' for row in (header, aligned, *rows)]
    return '\n'.join([f'## {title}', *lines])


def record(args: argparse.Namespace, measure: Callable[[argparse.Namespace, str], dict[str, Any]],
           show: Callable[[dict[str, Any], Console], None]) -> None:
    """Measure in a folder that is removed afterwards, write the numbers to ``args.out`` and print them."""
    console, device = Console(), torch.device(getattr(args, 'device', get_device()))
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope('mmpretrain'):
        content = dict(machine=machine(device), settings=settings(args), **measure(args, folder))
    write_text(args.out, json.dumps(content, indent=1) + '\n')
    show(content, console)
    console.print(f'written to {args.out}', soft_wrap=True)
