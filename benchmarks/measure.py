"""What both benchmarks share: alternate variants in one process, say on what machine, keep the numbers."""
import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Any, TypeVar

import torch
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler is chatty
Key = TypeVar('Key', bound=Hashable)
PACKAGES = ('mmspt', 'torch', 'mmengine', 'mmpretrain', 'numpy', 'scikit-learn')


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
        gpu=torch.cuda.get_device_name(device) if device.type == 'cuda' else None, python=platform.python_version(),
        versions={name: version(name) for name in PACKAGES}, date=time.strftime('%Y-%m-%d'))


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The command line, without this machine's paths."""
    paths = ('data_root', 'checkpoint')
    return {key: os.path.basename(value) if key in paths and value else value for key, value in vars(args).items()
            if key != 'out'}


def wait(device: torch.device) -> None:
    """Wait for the device's work."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def alternate(variants: Mapping[Key, Callable[[], Any]], rounds: int, device: torch.device, calls: int = 1,
              tick: Callable[[Key], Any] = lambda name: None) -> dict[Key, list[float]]:
    """Time variants by turns: once each to warm up, then in every round, each round starting with another.

    Args:
        variants (Mapping[Key, Callable]): Name -> work.
        rounds (int): Measurements of each.
        device (torch.device): Waited for before the clock is read.
        calls (int): Calls in one measurement.
        tick (Callable[[Key], Any]): Called after each measurement.

    Returns:
        dict[Key, list[float]]: Name -> seconds of one call, a number for each round.
    """
    names = list(variants)
    seconds: dict[Key, list[float]] = {name: [] for name in variants}
    for turn in range(-1, rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            wait(device)
            start = time.perf_counter()
            for _ in range(calls):
                variants[name]()
            wait(device)
            if turn >= 0:
                seconds[name].append((time.perf_counter() - start) / calls)
            tick(name)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the rounds' ratios: what slows a whole round down cancels."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _status(key: str) -> int:
    with open('/proc/self/status', encoding='utf-8') as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024


def peak_of_tensors(call: Callable[[], Any], device: torch.device) -> int:
    """Bytes that torch allocates for one call at its peak, beyond what is held before."""
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
    """Bytes of main memory that the process needs at its peak beyond what it holds before; None where not on Linux."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open('/proc/self/clear_refs', 'w', encoding='ascii') as file:
            file.write('5')  # sets VmHWM back to VmRSS
        before = _status('VmRSS')
    except (OSError, AttributeError):
        call()
        return None
    call()
    return _status('VmHWM') - before


def write_json(content: Any, path: str) -> None:
    """Write beside ``path`` and rename."""
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(f'{path}.tmp', 'w', encoding='utf-8') as file:
        json.dump(content, file, indent=1)
        file.write('\n')
    os.replace(f'{path}.tmp', path)


def record(args: argparse.Namespace, measure: Callable[[argparse.Namespace, str, Console], dict[str, Any]],
           show: Callable[[dict[str, Any], Console], None]) -> None:
    """Measure in a folder that is removed afterwards, write the numbers to ``args.out`` and print them."""
    init_default_scope('mmpretrain')
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        content = dict(machine=machine(torch.device(get_device())), settings=settings(args),
                       **measure(args, folder, console))
    write_json(content, args.out)
    show(content, console)
    console.print(f'written to {args.out}')
