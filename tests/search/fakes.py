"""Runs that train nothing: they write what a real one would have logged."""
import json
import os
from dataclasses import fields
from pathlib import Path

from mmspt.evaluation import RESULT_FILE, Result, write_result
from mmspt.search.cell import Budget, Cell
from mmspt.search.space import parse_space

EPOCHS = 4
METRIC = 'accuracy/top1'
KNOWN = dict(task='x', group='Other', num_images=6, method='SPT-Deep', num_prompts=5, arch='ViT-B', pretraining='MAE',
             tta=False, versions={}, finished=True)


SMALL = Budget(100, 0, 1000)


def make_cell(specs=('lr=1,2,3', ), name='', budget=SMALL, identity='id', warmup=0, seed=0, tested=True):
    """A cell whose runs are fakes."""
    row = dict(task='x', group='Other', method='SPT-Deep', arch='ViT-B', pretraining='MAE')
    return Cell(name, 'recipe', 'trial = 1\n', 'final = 1\n' if tested else None, parse_space(specs), METRIC, None,
                seed, EPOCHS, 'epoch', warmup, identity, 'final_id', 32, row, budget)


class FakeProcess:
    """Writes one validation at each look, after those of a run in the same folder that was cut off; then ends."""

    def __init__(self, work_dir, curve, status=0, log='the end of its log', result=None):
        self.work_dir, self.result = work_dir, result
        self.folder = Path(work_dir) / '20240101_000000' / 'vis_data'
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = str(Path(work_dir) / 'train.txt')
        self.curve, self.status, self.text, self.stopped = curve, status, log, 0
        self.scalars = self.folder / 'scalars.json'
        self.epoch = len(self.scalars.read_text().splitlines()) if self.scalars.exists() else 0

    def poll(self):
        if self.epoch >= len(self.curve):
            if self.result is not None:
                known = KNOWN | self.result
                write_result(Result(**{field.name: known.get(field.name) for field in fields(Result)}),
                             os.path.join(self.work_dir, RESULT_FILE))
            return self.status
        self.epoch += 1
        with open(self.scalars, 'a', encoding='utf-8') as file:
            file.write(json.dumps({METRIC: self.curve[self.epoch - 1], 'step': self.epoch}) + '\n')
        return None

    def stop(self):
        self.stopped += 1

    def tail(self):
        return self.text


class Launch:
    """Starts fakes, and remembers all of them.

    Args:
        curve: Settings -> list of validations.
        status: Settings -> exit status.
        result: Job -> fields of a test's result; None if it leaves none.
    """

    def __init__(self, curve, status=lambda settings: 0, result=lambda job: dict(metrics={METRIC: 70. + job.slot})):
        self.curve, self.status, self.result = curve, status, result
        self.jobs, self.settings, self.work_dirs, self.environments, self.runs = [], [], [], [], []

    def __call__(self, job, work_dir, environment):
        test = job.stage.kind == 'test'
        self.jobs.append(job)
        self.settings.append(job.settings)
        self.work_dirs.append(work_dir)
        self.environments.append(environment)
        self.runs.append(FakeProcess(work_dir, self.curve(job.settings), self.status(job.settings),
                                     result=self.result(job) if test else None))
        return self.runs[-1]

    def of(self, kind):
        """Settings of the runs of a kind, in the order of their starts."""
        return [job.settings for job in self.jobs if job.stage.kind == kind]


def rising(last):
    """A curve of EPOCHS validations that ends at ``last``."""
    return [last * epoch / EPOCHS for epoch in range(1, EPOCHS + 1)]
