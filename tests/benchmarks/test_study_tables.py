"""The study's plan can be run, its tables say what the records say, and docs/results.md holds them."""
import hashlib
import math
import re
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config, DictAction

import study_pictures
import study_records
import study_tables
from helpers import ROOT
from mmspt.packs.backbone import check_backbone, load_backbone
from mmspt.packs.pack import Pack
from mmspt.search.space import read_space
from mmspt.visualization.picture import styled
from study_plan import METHODS, PLAN, Cell, cells
from study_records import RATE, best_cells, read_records

CHANGED = {
    'SPT-Deep, K-means': {'custom_hooks.0.initializer.type': 'mmspt.KMeansInit'},
    'SPT-Shallow, max': {'custom_hooks.0.initializer.type': 'mmspt.MaxPoolInit',
                         'model.backbone.prompt_type': 'shallow'},
    'VPT-Deep, long': {'custom_hooks.0.initializer.type': 'mmspt.NormalInit',
                       'custom_hooks.0.initializer.std': 'tokens'},
    'SPT-Deep, random sample, short': {'custom_hooks.0.initializer.type': 'mmspt.RandomSampleInit',
                                       'custom_hooks.0.initializer.norm': 1.2},
    'SPT-Deep, random sample, no decay': {'custom_hooks.0.initializer.type': 'mmspt.RandomSampleInit',
                                          'optim_wrapper.optimizer.weight_decay': 0},
    'VPT-Deep, not pooled': {'custom_hooks.0.initializer.type': 'mmspt.UniformInit',
                             'model.backbone.pool_prompts': False},
    'VPT-Deep, 100 epochs': {'train_cfg.max_epochs': 100, 'param_scheduler.end': 100},
    'VIPAMIN-Deep': {'custom_hooks.0.initializer.type': 'mmspt.VIPAMINInit'},
    'Full': {'model.backbone.frozen': False},
}


def test_cells():
    """Every method on photographs under MAE, the paper's with MoCo-v3 and digits, other numbers of prompts."""
    planned = cells()
    assert len(planned) == len({cell.name for cell in planned}) == 168
    assert {cell.method for cell in planned if cell[:2] == ('mae', 'cifar10_1k')} == set(METHODS)
    assert {cell.method for cell in planned if cell[:2] == ('mocov3', 'digits_32')} == set(PLAN['methods'])
    assert {cell.num_prompts for cell in planned} == {5, 20, 50, 100}
    assert {cell.task for cell in planned[:10]} == {'flowers17_area_32', 'cifar10_1k'}
    assert [cell.options for cell in planned if cell.name == 'mocov3_flowers17_area_64_full'] == [
        ['model.backbone.img_size=64']]
    assert SPT._replace(num_prompts=5).options == [
        'custom_hooks.0.initializer.type=mmspt.KMeansInit', 'model.backbone.num_prompts=5']


@pytest.mark.parametrize('method', METHODS)
def test_a_method_is_its_recipe(method, monkeypatch):
    """The plan's options fit the recipe, which then is what the method's name says, and fill the budget of trials."""
    cell = Cell('mocov3', 'cifar10_1k', method)
    for variable, value in cell.environment.items():
        monkeypatch.setenv(variable, value)
    cfg = Config.fromfile(ROOT / cell.config)
    cfg.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in
                         (option.split('=', 1) for option in cell.options)})
    settings = read_space(cfg, METHODS[method].get('search'), cfg.search_space)
    assert math.prod(len(setting.choices) for setting in settings) == PLAN['trials']
    assert cfg.model.backbone.out_type == 'cls_token' and cfg.model.head.num_classes == 10
    assert cfg.model.backbone.num_prompts == (20 if METHODS[method].get('prompts', True) else 0)
    for path, value in CHANGED.get(method, {}).items():
        assert reduce(lambda place, key: place[int(key) if key.isdigit() else key], path.split('.'), cfg) == value


TRIALS = {0.01: 10., 0.1: 40., 3: 20.}


def record(tests, validations=((50., 90., 100.), ), nmi=(), trained=5, rate=0.1):
    """Of 500 test images; each seed gets the first of them right, as many as its accuracy in percent says."""
    hits = {str(i): np.packbits(np.arange(500) < 5 * value).tobytes().hex() for i, value in enumerate(tests)}
    prompts = dict(before=1.2, after=3., cosine=0.5, pairs_before=-0.004)
    return dict(
        seconds=360, parameters=dict(trained=trained, total=1000),
        best=dict(settings={RATE: rate}, validation=98.),
        test=dict(by_seed={str(i): value for i, value in enumerate(tests)}, hits=hits),
        trials=[dict(settings={RATE: rate}, value=value) for rate, value in TRIALS.items()],
        curves={str(i): {str(e): v for e, v in enumerate(c, 1)} for i, c in enumerate(validations)},
        nmi={str(i): values for i, values in enumerate(nmi)},
        prototypes={'0': dict(initialization=2., training=100.)},
        prompts={'0': prompts, '1': prompts | dict(after=5.)} if nmi else {})


VPT, SPT = Cell('mae', 'digits_32', 'VPT-Deep'), Cell('mae', 'digits_32', 'SPT-Deep, K-means')
RECORDS = {
    VPT: record((60., 62., 64.), ((10., 20., 40.), (10., 39., 40.)), [
        {'0': 1e-4, '30': 9e-4, '200': 1.1e-3}, {'0': 2e-4, '200': 2.2e-3}, {'0': 3e-4, '200': 3.3e-3}]),
    SPT: record((65., 66., 67.), ((38., 30., 50.), (20., 48., 50.)), [
        {'0': 3.1e-3, '200': 2.1e-3}, {'0': 2.2e-3, '200': 1.2e-3}, {'0': 1.3e-3, '200': 0.3e-3}]),
    VPT._replace(num_prompts=50): record((63., 63., 63.)),
    SPT._replace(num_prompts=50): record((67., 67., 67.)),
    SPT._replace(num_prompts=100): record((64., 66., 66.)),
    SPT._replace(method='SPT-Deep, mean'): record((66., 66., 66.)),
    SPT._replace(method='Full'): record((70., 70., 70.), trained=1000),
    VPT._replace(backbone='mocov3'): record((50., 50., 50.), rate=3),
    SPT._replace(backbone='mocov3'): record((51., 51., 51.)),
}


@pytest.mark.parametrize(('name', 'row'), [
    ('accuracy', '| VPT-Deep | 62.00 ±2.00 (0.50) | 50.00 ±0.00 (0.50) |'),
    ('accuracy', '| SPT-Deep, K-means, 100 prompts | 65.33 ±1.15 (0.50) | · |'),
    # 5, 4, 3 have a standard deviation of 1; over sqrt(3), times 4.3027. One more seed of 3 is right on 15 of 500
    # images, 2 more are on 15, all 3 on 5, 0.04 in the mean: 196 sqrt((15 / 9 + 60 / 9 + 5 - 500 * 0.04^2) / 499 / 500)
    ('differences', '| SPT-Deep, K-means - VPT-Deep | **+4.00 ±2.48** (±1.39) | **+1.00 ±0.00** (±0.87) |'),
    ('differences', '| SPT-Deep, K-means - SPT-Deep, mean | +0.00 ±2.48 (±0.41) | · |'),
    ('differences', '| SPT-Deep, K-means - Full | **-4.00 ±2.48** (±1.62) | · |'),
    # of that, under MoCo-v3 all three on five others: 196 sqrt((15 / 9 + 60 / 9 + 5 + 5 - 500 * 0.03^2) / 499 / 500)
    ('by_backbone', '| digits, SPT-Deep, K-means | **+3.00 ±2.48** (±1.66) |'),
    # over 20 and 50 VPT ranges by 3, 1, 1, this by 2, 1, 0: 1, 0, 1 less, of standard deviation sqrt(1 / 3); over
    # sqrt(3), times 4.3027. Per image, VPT with 50 less with 20: 1 / 3 on 10 images, 2 / 3 on 5, -1 / 3 on 5; this with
    # 50 less with 20: 1 / 3 on 5 others, 2 / 3 on 5; 0.01 in the mean both: 196 sqrt((35 / 9 + 25 / 9) / 499 / 500)
    ('robustness', '| MAE, digits: SPT-Deep, K-means | 1.67 | 1.00 | +0.67 ±1.43 (±1.01) |'),
    # 95 % of 40 is 38, of 50 47.5
    ('epochs', '| VPT-Deep | 3, 2 | · |'),
    ('epochs', '| SPT-Deep, K-means | 3, 2 (+0.00 ±0.00) | · |'),
    ('nmi', '| VPT-Deep | 0.20, 2.20 (+2.00 ±2.48) | · |'),
    ('nmi', '| SPT-Deep, K-means | 2.20, 1.20 (+2.00 ±2.48) | · |'),
    ('moved', '| VPT-Deep | 1.2, 4.0; 0.50; 0.00 | · |'),
    ('cost', '| SPT-Deep, mean | 2.0 s, 2.0 % | · |'),
    ('chosen', '| VPT-Deep | 0.1: 98.00 | 3*: 98.00 |'),
    ('ran', '| MAE, digits | 7 | 23 | 0.70 |'),
])
def test_tables(name, row):
    assert row in study_tables.TABLES[name](RECORDS).splitlines()


def test_the_page_is_what_the_records_give():
    page = (ROOT / 'docs' / 'results.md').read_text()
    assert study_tables.fill(page, read_records()) == page
    assert study_tables.fill(page.replace('62.65', '62.66'), read_records()) == page
    assert sorted(re.findall(r'<!-- table: (.+?) -->', page)) == sorted(study_tables.TABLES)


def test_records_are_of_the_plan():
    """Every record belongs to a planned cell and to the checkpoint and recipe that are here."""
    records = read_records()
    assert {Path(study_records.path_of(cell)) for cell in records} == set(Path(study_records.RESULTS).glob('*.json'))
    for cell, record in records.items():
        assert Cell(**record['cell']) == cell
        assert record['checkpoint'] == hashlib.sha256(Path(cell.checkpoint).read_bytes()).hexdigest()
        assert f'python tools/sweep.py {cell.config} --trials 6 --seeds 3 --prune-after 99' in record['command']
        assert all(option in record['command'] for option in cell.options)


def test_best_cells():
    """On validation, whatever the test says; no control, none whose network is not frozen; the first of equals."""
    linear, full, other = (Cell('mae', 'digits_32', 'Linear'), Cell('mae', 'digits_32', 'Full'),
                           Cell('mocov3', 'digits_32', 'Linear'))
    control = VPT._replace(method='VPT-Deep, long')
    validated = {linear: 50., full: 99., control: 98., VPT: 60., SPT: 60., other: 10.}
    records = {cell: record((100. - value, )) | dict(best=dict(validation=value)) for cell, value in validated.items()}
    assert best_cells(records) == [VPT, other]


def test_packs_are_of_the_best_cells():
    """Each is whole, of the backbone in configs/pretrain, and was tested as its record says; there is no other."""
    records = read_records()
    paths = {study_records.pack_of(cell) for cell in best_cells(records)}
    assert paths == {str(path) for path in (ROOT / 'benchmarks' / 'results' / 'study' / 'packs').iterdir()}
    for cell in best_cells(records):
        pack = Pack.load(study_records.pack_of(cell))
        assert pack.metrics == {'accuracy/top1': records[cell]['test']['by_seed']['0']}
        check_backbone(pack, load_backbone(pack.backbone, cell.checkpoint), cell.name)


def test_pictures():
    """A panel for each backbone (row) and task (column) with records; lines show the records' numbers."""
    with styled():
        drawn = dict(study_pictures.draw_study(RECORDS))
    assert {name: len(figure.axes) for name, figure in drawn.items()} == dict(
        study_curves=2, study_rates=2, study_nmi=2, study_prompts=1)
    rates, below = drawn['study_rates'].axes
    assert (rates.get_title(), below.get_title()) == ('MAE, digits', 'MoCo-v3, digits')
    assert rates.get_position().y0 > below.get_position().y1
    assert rates.lines[0].get_xydata().tolist() == [[0.01, 10.], [0.1, 40.], [3., 20.]]
    assert drawn['study_prompts'].axes[0].lines[0].get_xydata().tolist() == [[20., 62.], [50., 63.]]
