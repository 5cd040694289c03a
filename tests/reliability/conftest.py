"""A training short enough to be killed many times, and its result when nobody kills it."""
import pytest

from forked import train
from helpers import make_job
from outcomes import outcome

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
