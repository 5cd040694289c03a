"""result.json: what is written is read, and what is broken is refused with the file's name."""
import json

import numpy as np
import pytest
import torch

from mmspt.evaluation import plain_metrics, read_result, set_aside, write_result
from results import make


def test_round_trip(tmp_path):
    result, path = make(seed=3, trained_on=None), tmp_path / 'result.json'
    write_result(result, str(path))
    assert read_result(str(path)) == result
    content = json.loads(path.read_text()) | dict(added_later=1)
    assert content['seed'] == 3
    del content['iteration'], content['max_iters']  # as an earlier version wrote it
    path.write_text(json.dumps(content))
    assert read_result(str(path)) == result


def test_progress():
    assert make(epoch=2, max_epochs=3).progress == 'epoch 2 of 3'
    assert make(epoch=None, max_epochs=None, iteration=20, max_iters=30).progress == 'iteration 20 of 30'
    assert make(epoch=2, max_epochs=None).progress == 'epoch 2'  # a config that only tests
    assert make(epoch=None, max_epochs=3).progress == 'an unknown epoch'  # weights of another's checkpoint


def test_what_is_set_aside_is_kept(tmp_path):
    path = tmp_path / 'result.json'
    for seed, name in ((1, 'result.1.json'), (2, 'result.2.json')):
        write_result(make(seed=seed), str(path))
        assert set_aside(str(path)) == str(tmp_path / name) and not path.exists()
    assert [read_result(str(tmp_path / f'result.{i}.json')).seed for i in (1, 2)] == [1, 2]


@pytest.mark.parametrize(('change', 'message'), [
    (lambda text: text[:100], r"whole JSON, but '.*result\.json' is not .*delete it and test"),
    (lambda text: text.replace('"seed"', '"sed"'), r"result\.json' is not .*missing .* 'seed'"),
    (lambda text: '[]', r"whole JSON, but '.*result\.json' is not"),
])
def test_broken_files(tmp_path, change, message):
    path = tmp_path / 'result.json'
    write_result(make(), str(path))
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        read_result(str(path))


def test_metrics_become_plain():
    metrics = {'a': np.float32(1.5), 'b': {'c': [torch.tensor([[1, 2]]), np.float32(.5)]}, 'd': (1, 'text')}
    assert plain_metrics(metrics) == {'a': 1.5, 'b': {'c': [[[1, 2]], .5]}, 'd': [1, 'text']}
    for value in (torch.tensor([1., float('nan')]), object(), None):
        with pytest.raises(ValueError, match=r"must be finite numbers or text, but 'm' is "):
            plain_metrics({'m': value})
    with pytest.raises(ValueError, match='set test_evaluator'):
        plain_metrics({})
