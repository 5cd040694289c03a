"""Scalars of runs, resumed and running."""
import json

import pytest

from mmspt.evaluation import read_scalars


def write(folder, records, end='\n'):
    (folder / 'vis_data').mkdir(parents=True)
    (folder / 'vis_data/scalars.json').write_text('\n'.join(json.dumps(record) for record in records) + end)


def test_a_resumed_run_is_joined_and_the_later_part_counts(tmp_path):
    run = tmp_path / 'run [1]'
    write(run / '20260101_000000', [dict(loss=1., step=7), dict(acc=10., step=1), dict(acc=20., step=2)])
    write(run / '20260102_000000', [dict(acc=25., step=2), dict(acc=30., step=3)])
    assert read_scalars(str(run), 'acc') == {1: 10., 2: 25., 3: 30.}
    assert read_scalars(str(run), 'other') == {}
    assert read_scalars(str(tmp_path / 'absent'), 'acc') == {}


def test_a_line_that_is_being_written_waits(tmp_path):
    write(tmp_path / '20260101_000000', [dict(acc=10., step=1), dict(acc=20., step=2)], end='\n{"acc": 3')
    assert read_scalars(str(tmp_path), 'acc') == {1: 10., 2: 20.}


def train(*iterations):
    return [{'loss': 1., 'iter': i, 'step': i} for i in iterations]


def nmi(*epochs):
    return [{'nmi/mean': 1., 'nmi/epoch': e, 'step': 10 * e} for e in epochs]


def test_a_resumed_part_takes_the_place_of_what_came_after(tmp_path):
    """Killed in epoch 3, gone on from the checkpoint of epoch 1."""
    write(tmp_path / '20260101_000000', [*nmi(0), *train(10), dict(acc=1., step=1), *nmi(1), *train(20),
                                         dict(acc=2., step=2), *nmi(2), *train(30)])
    write(tmp_path / '20260102_000000', train(20))
    assert list(read_scalars(str(tmp_path), 'loss')) == [10, 20]
    write(tmp_path / '20260103_000000', [*train(20), dict(acc=3., step=2)])
    assert read_scalars(str(tmp_path), 'acc') == {1: 1., 2: 3.}


@pytest.mark.parametrize('begin', [[dict(acc=3., time=1., step=1)], [dict(norm=2., step=20)], train(20)])
def test_quantities_that_count_otherwise_keep_their_history(tmp_path, begin):
    """A hook's own statistic counts in iterations, a validation in epochs; the resumed part begins with either."""
    write(tmp_path / '20260101_000000', [*train(10), dict(norm=1., step=10), dict(acc=1., time=1., step=1), *train(20),
                                         dict(norm=1., step=20), dict(acc=2., time=1., step=2)])
    write(tmp_path / '20260102_000000', begin)
    key = next(iter(begin[0]))
    expected = dict(norm={10: 1., 20: 1.}, acc={1: 1., 2: 2.}) | dict(
        acc=dict(acc={1: 3.}), norm=dict(norm={10: 1., 20: 2.})).get(key, {})
    assert {name: read_scalars(str(tmp_path), name) for name in expected} == expected


@pytest.mark.parametrize('begin', [nmi(0), train(10)])
def test_a_run_that_was_begun_again_is_another(tmp_path, begin):
    write(tmp_path / '20260101_000000', [*nmi(0), *train(10), dict(acc=1., step=1), *nmi(1), *train(20)])
    write(tmp_path / '20260102_000000', begin)
    assert read_scalars(str(tmp_path), 'acc') == {}
    assert len(read_scalars(str(tmp_path), 'loss')) + len(read_scalars(str(tmp_path), 'nmi/mean')) == 1


def test_a_broken_line_is_named(tmp_path):
    write(tmp_path / '20260102_000000', [dict(acc=20., step=2)], end='\n{"acc": \n')
    with pytest.raises(ValueError, match=r"line 2 of '.*20260102_000000.*scalars.json'"):
        read_scalars(str(tmp_path), 'acc')
