"""Which runs are seeds of one setting, what settings are called, and the spread of their curves."""
import pytest

from made_runs import make_run
from mmspt.visualization.groups import group_runs, spread


def names(groups):
    return {name: [run.folder.rpartition('/')[2] for run in members] for name, members in groups.items()}


def test_seeds_are_put_together_and_tasks_are_named_where_they_differ(tmp_path):
    runs = [make_run(tmp_path / f'{task}{start}{seed}', initializer=start, seed=seed, task=task)
            for task in ('Digits', 'Flowers') for seed in (0, 1) for start in ('UniformInit', 'RandomSampleInit')]
    assert names(group_runs(runs[:4])) == {'VPT-Deep': ['DigitsUniformInit0', 'DigitsUniformInit1'],
                                           'SPT-Deep': ['DigitsRandomSampleInit0', 'DigitsRandomSampleInit1']}
    assert list(group_runs(runs)) == ['Digits: VPT-Deep', 'Digits: SPT-Deep', 'Flowers: VPT-Deep', 'Flowers: SPT-Deep']


@pytest.mark.parametrize('changes, expected', [
    (dict(lr=0.2), {'SPT-Deep, optimizer.lr=0.1': ['a'], 'SPT-Deep, optimizer.lr=0.2': ['b']}),
    (dict(initializer='KMeansInit'), {'SPT-Deep': ['a'], 'SPT-Deep, KMeansInit': ['b']}),
    (dict(num_prompts=0), {'SPT-Deep': ['a'], 'Linear': ['b']}),
])
def test_a_name_says_what_sets_a_setting_apart(tmp_path, changes, expected):
    runs = [make_run(tmp_path / 'a'), make_run(tmp_path / 'b', **changes)]
    assert names(group_runs(runs)) == expected


def test_long_names_that_begin_alike_stay_apart(tmp_path):
    runs = [make_run(tmp_path / name, initializer='KMeansInit', lr=f'"{"long" * 30}{name}"') for name in 'abc']
    groups = group_runs(runs)
    assert [len(members) for members in groups.values()] == [1, 1, 1]
    assert all(len(name) < 70 for name in groups)


def test_spread_is_taken_where_all_curves_have_a_point():
    curves = [{0: 1., 1: 2., 2: 9.}, {0: 3., 1: 8.}]
    assert spread(curves, 'a') == {0: (2., 1., 3.), 1: (5., 2., 8.)}
    with pytest.raises(ValueError, match="those of 'a' share none"):
        spread([{0: 1.}, {1: 1.}], 'a')
