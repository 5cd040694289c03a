#!/usr/bin/env python
"""What a plan's queue costs: seconds a run beyond the run itself, and its share of a core while one trains.

    python benchmarks/queue_overhead.py --storage postgresql+psycopg://USER@HOST/NAME

measures SQLite and a journal file in a temporary folder, and the named database. A plan of 12 cells with 5 trials and
3 tests each is worked through with runs that end at once; then one run stays for a while."""
import json
import os.path as osp
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from measure import arguments, machine
from mmspt.evaluation import RESULT_FILE, Result, write_result
from mmspt.files import write_text
from mmspt.search import worker as workers
from mmspt.search.cell import Budget, Cell
from mmspt.search.queue import TEST, Job, Queue
from mmspt.search.space import parse_space
from mmspt.search.storage import open_storage
from mmspt.search.worker import Running, Worker

METRIC = 'accuracy/top1'
EPOCHS = 10


class Instant:
    """A run that has done all when it is begun, or lasts for some seconds and validates in between."""

    def __init__(self, job: Job, work_dir: str, seconds: float) -> None:
        self.log, self.began, self.seconds = osp.join(work_dir, 'train.txt'), time.monotonic(), seconds
        self.scalars = osp.join(work_dir, '20260101_000000', 'vis_data', 'scalars.json')
        self.epoch = 0
        self._write(EPOCHS if not seconds else 0)
        if job.stage.kind == TEST:
            known: dict[str, Any] = dict(metrics={METRIC: 1.}, finished=True)
            values: dict[str, Any] = {field.name: known.get(field.name) for field in fields(Result)}
            write_result(Result(**values), osp.join(work_dir, RESULT_FILE))

    def _write(self, epoch: int) -> None:
        if epoch > self.epoch or not osp.isfile(self.scalars):
            lines = [json.dumps({METRIC: 1. + e, 'step': e}) for e in range(1, epoch + 1)]
            write_text(self.scalars, ''.join(f'{line}\n' for line in lines))
            self.epoch = epoch

    def poll(self) -> int | None:
        """End after the given seconds."""
        spent = time.monotonic() - self.began
        if self.seconds:
            self._write(min(EPOCHS, int(EPOCHS * spent / self.seconds)))
        return None if spent < self.seconds else 0

    def stop(self) -> None:
        """Nothing to end."""

    def tail(self) -> str:
        """Nothing to say."""
        return ''


def make_cells(count: int, trials: int) -> list[Cell]:
    """Make cells that no recipe has."""
    row = dict(task='x', group='Other', method='SPT-Deep', arch='ViT-B', pretraining='MAE')
    return [Cell(f'cell{i}', 'recipe', 'x = 1\n', 'x = 1\n', parse_space(['lr=1e-3:1e-1:log', 'head_decay=1e-3:5:log']),
                 METRIC, None, 0, EPOCHS, 'epoch', 2, f'id{i}', f'final{i}', 32, row, Budget(trials, 3, 5))
            for i in range(count)]


def measure(address: str, plan: str, seconds: float) -> dict[str, float]:
    """Return seconds a run, and the share of a core beside one run."""
    def run(cells: list[Cell], plan: str, lasts: float) -> tuple[int, float, float]:
        ended: list[str] = []

        def launch(job: Job, work_dir: str, environment: Mapping[str, str]) -> Instant:
            Path(work_dir).mkdir(parents=True)
            return Instant(job, work_dir, lasts)

        def end(running: Running, how: str) -> None:
            ended.append(how)

        with tempfile.TemporaryDirectory() as folder:
            queue = Queue(open_storage(address), plan)
            queue.register(cells)
            worker = Worker(queue, launch, folder, [{}], end, check=lambda cell, folder: None)
            began, cpu = time.monotonic(), time.process_time()
            worker.work()
            return len(ended), time.monotonic() - began, time.process_time() - cpu

    interval, workers.INTERVAL = workers.INTERVAL, 0.
    count, wall, _ = run(make_cells(12, 5), f'{plan}-many', 0.)
    workers.INTERVAL = interval
    _, wall_of_one, cpu = run(make_cells(1, 1)[:1], f'{plan}-one', seconds)
    return dict(runs=count, seconds_a_run=wall / count + interval / 2, core_percent=100 * cpu / wall_of_one)


def main() -> None:
    parser = arguments('Measure the queue of a plan', 'queue_overhead', network=False)
    parser.add_argument('--storage', help="a database's URL, besides SQLite and a journal")
    parser.add_argument('--seconds', type=float, default=60., help='of the run beside which the worker looks')
    args: Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = dict(sqlite=osp.join(folder, 'study.db'), journal=osp.join(folder, 'plan.journal'))
        places |= {args.storage.partition(':')[0]: args.storage} if args.storage else {}
        plan = f'overhead-{int(time.time())}'
        found = {name: measure(address, plan, args.seconds) for name, address in places.items()}
    content = dict(machine=machine(torch.device('cpu')), seconds=args.seconds, storages=found)
    write_text(args.out, json.dumps(content, indent=1) + '\n')
    Console().print(found)


if __name__ == '__main__':
    main()
