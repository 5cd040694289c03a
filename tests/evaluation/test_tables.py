"""Rows, columns, means and marks, against NumPy and counting by hand."""
import numpy as np
import pytest

from mmspt.datasets.tasks import TASKS
from mmspt.evaluation import SOURCES, build_tables
from mmspt.evaluation.rendering import grid, markdown, plain
from results import run

FGVC = [key for key, task in TASKS.items() if task.group == 'FGVC']


def only(runs):
    """The one table, its own rows, its notes without sources."""
    (table, ) = build_tables(runs)
    notes = [note for note in table.notes if note.partition(':')[0] not in SOURCES]
    return table, [row for row in table.rows if row.source is None], notes


def test_mean_and_spread_over_seeds():
    values = [80.26, 80.39, 79.74]
    table, (row, ), notes = only([run(value, seed=seed) for seed, value in enumerate(values)])
    assert row.cells['cub'].mean == pytest.approx(np.mean(values))
    assert row.cells['cub'].std == pytest.approx(np.std(values, ddof=1))
    assert row.mean is None and row.tasks == '1 of 5 tasks' and notes == []
    header, lines = grid(table)
    assert header == ['method', 'backbone', *(TASKS[task].name for task in FGVC), 'mean', 'seeds']
    ours, poster, code = (line for line in lines if line[0].startswith('SPT-Deep'))  # our row stands before theirs
    assert ours[2] == code[2] == '80.13 ±0.34' and (poster[0], poster[2]) == ('SPT-Deep (BPT poster)', '80.13')
    assert ['GateVPT (BPT poster)', 'ViT-B MAE', '70.56', '67.26', '78.55', '78.90', '71.70', '73.39', '1'] in lines
    assert code[0] == 'SPT-Deep (SPT code)' and code[3:8] == [''] * 5


def test_a_group_has_a_mean_when_all_of_its_tasks_are_there():
    accuracies = np.random.default_rng(0).uniform(60, 90, (2, len(FGVC)))
    runs = [run(accuracies[seed, i], task=task, seed=seed) for seed in (0, 1) for i, task in enumerate(FGVC)]
    _, (row, ), _ = only(runs)
    assert row.tasks == '5 of 5 tasks' and row.mean.mean == pytest.approx(accuracies.mean())
    assert row.mean.std == pytest.approx(accuracies.mean(axis=1).std(ddof=1))
    _, (row, ), _ = only(runs[:-1])  # seeds that differ by task: no spread of the mean
    assert row.mean.std is None
    assert row.mean.mean == pytest.approx(np.mean([*accuracies[:, :-1].mean(axis=0), accuracies[0, -1]]))


@pytest.mark.parametrize(('changes', 'why'), [
    (dict(num_images=40), "tested on 40 images of the benchmark's 5,794"),
    (dict(split='val', num_images=5794), "tested on the split 'val'"),
    (dict(tta=True), 'with test-time augmentation'),
    (dict(trained_on=dict(dataset='CUB', split='trainval', tested=True)), 'trained on the images it was tested on'),
    (dict(trained_on=dict(dataset='CUB', split='trainval', tested=1200)), 'on 1,200 of the 5,794 images it was tested'),
])
def test_another_test_is_marked_and_left_out_of_the_mean(changes, why):
    runs = [run(70., task=task) for task in FGVC[1:]] + [run(99., **changes)]
    table, (row, ), notes = only(runs)
    assert row.tasks == '4 of 5 tasks' and row.mean is None
    assert any(note.startswith('* SPT-Deep, CUB-200-2011:') and why in note for note in notes)
    assert '99.00*' in grid(table)[1][[r.source for r in table.rows].index(None)]
    assert '99.00*' in markdown(table)

    _, (main, other), _ = only([*runs, run(70.)])  # beside the benchmark's own test it gets a row of its own
    assert main.mean.mean == 70. and main.cells['cub'].values == (70., ) and other.cells['cub'].values == (99., )


def test_the_same_seed_twice_counts_once():
    _, (row, ), (note, told) = only([run(70., 'a', seed=0), run(72., 'b', seed=0),
                                     run(80., 'c', seed=1)._replace(note='look here')])
    assert row.cells['cub'].values == (71., 80.)
    assert 'seed 0 2 times (a, b)' in note and told == 'c: look here'


def test_other_recipes_are_not_chosen_among():
    """Two rates of one config, and another config: three rows, none the method's."""
    slow, other = {'optim_wrapper.optimizer.lr': 0.01}, dict(config='mine')
    runs = [run(70.), run(71., recipe=slow), run(72., **other), run(60., task='dogs')]
    _, rows, notes = only(runs)
    assert {row.label: list(row.cells) for row in rows} == {
        'SPT-Deep': ['dogs'], 'SPT-Deep, vit-b_mae_cub optimizer.lr=0.05': ['cub'],
        'SPT-Deep, vit-b_mae_cub optimizer.lr=0.01': ['cub'], 'SPT-Deep, mine': ['cub']}
    assert '3 settings' in notes[0]


def test_a_mere_test_has_a_row_of_its_own():
    """What was only tested may have been trained in another way."""
    tested = dict(recipe=None, trained_on=None)
    _, (row, other), notes = only([run(70.), run(10., 'a', seed=1, **tested), run(20., 'b', seed=2, **tested)])
    assert (row.label, row.cells['cub'].values) == ('SPT-Deep', (70., ))
    assert (other.label, other.cells['cub'].values) == ('SPT-Deep, only tested', (10., 20.))
    assert notes == ['SPT-Deep, only tested, CUB-200-2011: only tested, so whether these were trained alike is not '
                     'known (a, b)']


def test_a_row_that_mixes_training_splits_says_so():
    runs = [run(70., task=task, trained_on=dict(dataset='x', split='train' if task == 'cub' else 'trainval'))
            for task in FGVC]
    _, _, (note, ) = only(runs)
    assert note.startswith("SPT-Deep: trained on different splits: 'train' (CUB-200-2011); 'trainval' (")
    assert only(runs[1:])[2] == []


def test_methods_backbones_and_starts_have_rows_of_their_own():
    table, rows, notes = only([
        run(70.), run(71., initializer='KMeansInit'), run(72., num_prompts=50), run(73., pretraining='MoCo-v3'),
        run(60., method='VPT-Deep', initializer='UniformInit'), run(50., arch='custom', pretraining='unknown'),
        run(40., method='Linear', initializer=None, num_prompts=0)])
    assert [(row.label, row.arch, row.pretraining) for row in rows] == [
        ('Linear', 'ViT-B', 'MAE'), ('VPT-Deep', 'ViT-B', 'MAE'), ('SPT-Deep', 'ViT-B', 'MAE'),
        ('SPT-Deep, 50 prompts', 'ViT-B', 'MAE'), ('SPT-Deep, KMeansInit', 'ViT-B', 'MAE'),
        ('SPT-Deep', 'ViT-B', 'MoCo-v3'), ('SPT-Deep', 'custom', 'unknown')]
    assert 'pre-training unknown' in notes[0]
    shown = {(row.label, row.pretraining) for row in table.rows if row.source}
    assert ('SPT-Deep (BPT poster)', 'MoCo-v3') in shown and ('SPT-Deep (SPT code)', 'MAE') in shown


def test_published_rows_stand_beside_the_same_backbone_alone():
    table, rows, _ = only([run(70., arch='ViT-L')])
    assert table.rows == rows
    table, _, _ = only([run(50., task='vtab_cifar', pretraining='MoCo-v3')])
    published = [(row.method, row.mean and row.mean.mean) for row in table.rows if row.source]
    assert published == [('Full', 71.95), ('Full', None), ('VPT-Shallow', 67.34), ('VPT-Deep', 70.27),
                         ('GateVPT', 74.84), ('SPT-Shallow', 74.47), ('SPT-Deep', 76.20), ('VIPAMIN', 76.75)]


def test_groups_and_own_data_sets():
    flowers = 'CustomDataset flowers17'
    tables = build_tables([run(90., task='Digits'), run(80., task=flowers), run(50., task='vtab_kitti')])
    assert [table.group for table in tables] == ['Structured', 'Other']
    assert list(tables[1].tasks) == [flowers, 'Digits']
    header, lines = grid(tables[1])
    assert 'mean' not in header and lines == [['SPT-Deep', 'ViT-B MAE', '80.00', '90.00', '1']]
    assert plain(tables[1])['rows'][0]['cells']['Digits']['values'] == [90.]
    assert '| SPT-Deep | ViT-B MAE | 80.00 | 90.00 | 1 |' in markdown(tables[1])


def test_the_global_batch_is_told_once():
    runs = [run(70., recipe=dict(global_batch=32)),
            run(70., method='GateVPT', initializer='UniformInit', num_prompts=100, recipe=dict(global_batch=64))]
    assert only(runs[:1])[2] == ['Global batch: 32']
    assert only(runs)[2] == ['Global batch: 32: SPT-Deep (ViT-B, MAE); 64: GateVPT (ViT-B, MAE)']
