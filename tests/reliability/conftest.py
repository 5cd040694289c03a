"""A training short enough to be killed many times, and its result when nobody kills it."""
import pytest

from forked import train
from helpers import make_job
from mmspt.engine.reliability.last_checkpoint import named_checkpoint
from outcomes import check_same, outcome

AS_RECIPES = """
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=1, save_best='auto'))
"""


@pytest.fixture(scope='session')
def job(tmp_path_factory):
    """4 epochs of 3 steps, checkpoints as in the recipes, and labels that no model gets all right."""
    job = make_job(tmp_path_factory.mktemp('reliability'))
    for name in ('train', 'val', 'test'):
        path = job.data / f'{name}.txt'
        lines = [line.split() for line in path.read_text().splitlines()]
        path.write_text(''.join(f'{image} {(int(label) + i % 2) % 3}\n' for i, (image, label) in enumerate(lines)))
    job.write(extra=AS_RECIPES)
    return job


@pytest.fixture(scope='session')
def undisturbed(job):
    """What the run leaves when nothing happens to it."""
    folder = job.root / 'undisturbed'
    code, output = train([job.config, '--work-dir', folder], job.root / 'undisturbed.log')
    assert code == 0, output
    found = outcome(folder)
    assert len(found.validations) == 4 and len(found.losses) == 12 and 0 < found.metrics['accuracy/top1'] < 100
    return found


@pytest.fixture
def survive(job, undisturbed, tmp_path):
    """Disturb a training, resume it with the same command, and compare with the undisturbed one, to the bit."""
    def survive(*disturbances, code, last=None, options=()):
        """Give each run a disturbance (a function and its arguments), and return the last line of the last one's log.

        They end with ``code``, and ``last_checkpoint`` names ``last``, '' if there is none; None does not check it.
        """
        folder, log = tmp_path / 'run', tmp_path / 'log'
        arguments = [job.config, '--work-dir', folder, '--resume']
        for disturbance in disturbances:
            found, output = train([*arguments, *options], log, *disturbance)
            assert found == code, output
        assert last is None or named_checkpoint(str(folder)) == (str(folder / last) if last else '')
        found, after = train(arguments, log)
        assert found == 0, after
        check_same(folder, undisturbed)
        return output.strip().rpartition('\n')[2]
    return survive
