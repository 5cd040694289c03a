"""Runs that train nothing: they write the scalars a real one would have logged."""
import json
from pathlib import Path

EPOCHS = 4


class FakeProcess:
    """Writes one validation at each look, after those of a run in the same folder that was cut off; then ends."""

    def __init__(self, work_dir, curve, status=0, log='the end of its log'):
        self.folder = Path(work_dir) / '20240101_000000' / 'vis_data'
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = str(Path(work_dir) / 'train.txt')
        self.curve, self.status, self.text, self.stopped = curve, status, log, 0
        self.scalars = self.folder / 'scalars.json'
        self.epoch = len(self.scalars.read_text().splitlines()) if self.scalars.exists() else 0

    def poll(self):
        if self.epoch >= len(self.curve):
            return self.status
        self.epoch += 1
        with open(self.scalars, 'a', encoding='utf-8') as file:
            file.write(json.dumps({'accuracy/top1': self.curve[self.epoch - 1], 'step': self.epoch}) + '\n')
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
    """

    def __init__(self, curve, status=lambda settings: 0):
        self.curve, self.status = curve, status
        self.settings, self.work_dirs, self.environments, self.runs = [], [], [], []

    def __call__(self, settings, work_dir, environment):
        self.settings.append(settings)
        self.work_dirs.append(work_dir)
        self.environments.append(environment)
        self.runs.append(FakeProcess(work_dir, self.curve(settings), self.status(settings)))
        return self.runs[-1]


def rising(last):
    """A curve of EPOCHS validations that ends at ``last``."""
    return [last * epoch / EPOCHS for epoch in range(1, EPOCHS + 1)]
