"""The last runs: each seed once, resumed and not repeated."""
import os
from dataclasses import fields

import pytest
from fakes import FakeProcess

from mmspt.evaluation import RESULT_FILE, Result, write_result
from mmspt.search import finals
from mmspt.search.finals import run_finals

SETTINGS = {'optim_wrapper.optimizer.lr': 0.1}
KNOWN = dict(task='x', group='Other', num_images=6, method='SPT-Deep', num_prompts=5, arch='ViT-B', pretraining='MAE',
             tta=False, versions={})


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(finals, 'INTERVAL', 0)


class Launch:
    """Its runs leave a result when they end, but for those of ``broken`` seeds."""

    def __init__(self, broken=(), finished=True):
        self.broken, self.finished, self.begun, self.runs = broken, finished, [], []

    def __call__(self, settings, work_dir, environment):
        seed = settings['randomness.seed']
        assert settings == SETTINGS | {'randomness.seed': seed}
        launch = self

        class Run(FakeProcess):
            def poll(self):
                status = super().poll()
                if status is not None and seed not in launch.broken:
                    known = KNOWN | dict(finished=launch.finished, metrics={'accuracy/top1': 70. + seed})
                    write_result(Result(**{field.name: known.get(field.name) for field in fields(Result)}),
                                 os.path.join(work_dir, RESULT_FILE))
                return status

        self.begun.append((seed, work_dir, environment['WORKER']))
        self.runs.append(Run(work_dir, [1.] * (2 + seed)))
        return self.runs[-1]


def run(tmp_path, launch, seeds=range(3), workers=1, on_change=lambda done, running: None):
    return run_finals(launch, str(tmp_path), SETTINGS, seeds, [dict(WORKER=str(i)) for i in range(workers)], on_change)


@pytest.mark.parametrize('workers', [1, 2])
def test_each_seed_once(tmp_path, workers):
    launch, shown = Launch(), []
    tests = run(tmp_path, launch, workers=workers, on_change=lambda done, running: shown.append((done, len(running))))
    assert tests == {seed: {'accuracy/top1': 70. + seed} for seed in range(3)}
    assert [seed for seed, _, _ in launch.begun] == [0, 1, 2] and len({folder for _, folder, _ in launch.begun}) == 3
    assert {worker for _, _, worker in launch.begun} == {str(i) for i in range(min(workers, 3))}
    assert shown[-1] == (3, 0) and max(running for _, running in shown) == min(workers, 3)
    assert [process.stopped for process in launch.runs] == [1] * 3

    assert run(tmp_path, launch, seeds=range(4)) | tests == run(tmp_path, launch, seeds=range(4))
    assert [seed for seed, _, _ in launch.begun] == [0, 1, 2, 3]


def test_a_failed_run_stops_the_others_and_is_tried_again(tmp_path):
    launch = Launch(broken=[0])
    with pytest.raises(RuntimeError, match=r'seed 0 failed; see .*seed_0/train.txt, which ends with\nthe end of its'):
        run(tmp_path, launch, workers=2)
    assert [process.stopped for process in launch.runs] == [1, 1]
    launch.broken = []
    assert list(run(tmp_path, launch)) == [0, 1, 2]


def test_a_result_before_the_last_epoch_is_none(tmp_path):
    with pytest.raises(RuntimeError, match='seed 0 failed'):
        run(tmp_path, Launch(finished=False))
    assert len(run(tmp_path, Launch())) == 3
