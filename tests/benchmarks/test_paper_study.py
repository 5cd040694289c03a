"""The study: its cells are complete and can be run, its tables say what records say, a small one runs to its end."""
import json
import math
import shlex
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from rich.console import Console
from safetensors.torch import save_file

import study
import study_numbers
import study_pictures
import study_plan
import study_processes
import study_records
import study_tables
import sweep
from helpers import ROOT
from mmspt.packs.backbone import load_backbone
from mmspt.packs.merge import check_backbone
from mmspt.packs.pack import Pack
from mmspt.search.space import read_space
from mmspt.visualization.picture import styled
from study_plan import CONTROLS, COUNTS, FIRST, FULL, METHODS, QUICK, TASKS, Budget, Cell, cells, quick_cells


def test_cells():
    """Every method on every task with both backbones, and other numbers of prompts at 32 pixels; none twice."""
    planned = cells()
    assert len(planned) == len(set(planned)) == len({cell.name for cell in planned})
    assert {(c.backbone, c.task, c.method) for c in planned if c.num_prompts == 20} == {
        (backbone, task, method) for backbone in ('mae', 'mocov3') for task in TASKS for method in METHODS
        if (method not in CONTROLS or (backbone == 'mae' and task != 'digits_32'))
        and (task != 'flowers17_area_64' or method in FIRST)}
    other = [cell for cell in planned if cell.num_prompts != 20]
    assert len(other) == 2 * 3 * len(COUNTS) * 3
    assert {(cell.backbone, cell.method) for cell in planned[:10]} == {
        ('mae', method) for method in ('Linear', 'Full', 'VPT-Deep', 'SPT-Deep, random sample', 'SPT-Deep, K-means')}
    assert len({cell.task for cell in planned[:10]}) == 2
    assert set(quick_cells()) <= set(planned)


@pytest.mark.parametrize('budget', [FULL, QUICK])
@pytest.mark.parametrize('cell', [*(Cell('mae', 'flowers17_area_32', method) for method in METHODS),
                                  Cell('mocov3', 'cifar10_1k', 'SPT-Deep, K-means', 5),
                                  Cell('mae', 'flowers17_area_64', 'Full')], ids=lambda cell: cell.name)
def test_commands(cell, budget, monkeypatch):
    """The sweep understands them, and the config that they make is what the method's name says."""
    first, second, *words = shlex.split(cell.command(budget))
    assert words[:2] == ['python', 'tools/sweep.py']
    for variable in (first, second):
        monkeypatch.setenv(*variable.split('='))
    monkeypatch.setattr(sys, 'argv', words[1:])
    args = sweep.parse_args()
    assert (args.trials, args.seeds) == (budget.trials, budget.seeds) and args.prune_after > args.trials
    cfg = Config.fromfile(ROOT / args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    settings = read_space(cfg, args.search, cfg.search_space)
    assert math.prod(len(setting.choices) for setting in settings) == budget.trials
    prompts = 0 if cell.method in ('Linear', 'Full') else cell.num_prompts
    assert cfg.model.backbone.num_prompts == prompts
    assert cfg.model.backbone.img_size == (64 if '64' in cell.task else 32)
    assert cfg.train_dataloader.dataset.pipeline[1].get('scale', 32) == cfg.model.backbone.img_size
    assert cfg.model.backbone.get('frozen', True) == (cell.method != 'Full')
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler.end == (
        5 if budget is QUICK else 100 if '100 epochs' in cell.method else 20)
    if prompts:
        assert cfg.model.backbone.prompt_type == (
            'shallow' if 'Shallow' in cell.method or cell.method == 'GateVPT' else 'deep')
        expected = {'random sample': 'RandomSampleInit', 'K-means': 'KMeansInit', 'mean': 'MeanPoolInit',
                    'max': 'MaxPoolInit'}.get(cell.method.split(', ')[1] if 'SPT' in cell.method else '', 'UniformInit')
        expected = {'VIPAMIN-Deep': 'VIPAMINInit', 'VPT-Deep, long': 'NormalInit'}.get(cell.method, expected)
        assert cfg.custom_hooks[0].initializer.type == f'mmspt.{expected}'
        assert cfg.custom_hooks[0].initializer.get('std') == ('tokens' if 'long' in cell.method else None)
        assert cfg.custom_hooks[0].initializer.get('norm') == (1.2 if 'short' in cell.method else None)
        assert cfg.optim_wrapper.optimizer.weight_decay == (
            0 if cell.method == 'GateVPT' or 'no decay' in cell.method else 0.01)
        assert cfg.model.backbone.get('pool_prompts', True) == ('not pooled' not in cell.method)
        keys = cfg.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
        assert keys.get('prompts', {}).get('lr_mult') == (10 if 'own rate' in cell.method else None)


TRIALS = {0.01: (5., 10.), 0.1: (30., 40.), 1: (10., 30.), 3: (20., 20.)}


def record(tests, validations=((50., 90., 100.), ), nmi=(), seconds=360, trained=5, rate=0.1):
    """Of 500 test images; each seed gets the first of them right, as many as its accuracy in percent says."""
    prompts = dict(before=1.2, after=3., cosine=0.5, pairs_before=-0.004, pairs_after=0.25)
    hits = {str(i): np.packbits(np.arange(500) < 5 * value).tobytes().hex() for i, value in enumerate(tests)}
    return dict(
        seconds=seconds, workers=2, parameters=dict(trained=trained, total=1000),
        best=dict(settings={study_numbers.RATE: rate}, validation=98.),
        test=dict(by_seed={str(i): value for i, value in enumerate(tests)}, hits=hits),
        trials=[dict(settings={study_numbers.RATE: rate}, value=values[-1],
                     validations={str(epoch): value for epoch, value in enumerate(values, 1)})
                for rate, values in TRIALS.items()],
        curves={str(i): {str(e): v for e, v in enumerate(c, 1)} for i, c in enumerate(validations)},
        nmi={str(i): values for i, values in enumerate(nmi)},
        prototypes={'0': dict(initialization=2., training=100.)} if nmi else {},
        prompts={'0': prompts, '1': prompts | dict(after=5.)} if nmi else {})


VPT, SPT = Cell('mae', 'digits_32', 'VPT-Deep'), Cell('mae', 'digits_32', 'SPT-Deep, K-means')
RECORDS = {
    VPT: record((60., 62., 64.), ((10., 20., 40.), (10., 39., 40.)), [
        {'0': 1e-4, '30': 9e-4, '200': 1.1e-3}, {'0': 2e-4, '200': 2.2e-3}, {'0': 3e-4, '200': 3.3e-3}]),
    SPT: record((65., 66., 67.), ((38., 30., 50.), (20., 48., 50.)), [
        {'0': 3.1e-3, '200': 2.1e-3}, {'0': 2.2e-3, '200': 1.2e-3}, {'0': 1.3e-3, '200': 0.3e-3}]),
    SPT._replace(num_prompts=5): record((50., 50., 50.)),
    SPT._replace(method='SPT-Deep, mean'): record((66., 66., 66.)),
    SPT._replace(method='Full'): record((70., 70., 70.), trained=1000),
    VPT._replace(backbone='mocov3'): record((50., 50., 50.), rate=3),
    SPT._replace(backbone='mocov3'): record((51., 51., 51.)),
}
BY_HAND = 'MMSPT_BACKBONE={} MMSPT_TASK=digits_32 python tools/sweep.py configs/study/vpt.py --trials 6 --seeds 3 ' \
          '--prune-after 99 --work-dir work_dirs/by_hand/{}_digits_32_vpt-deep_20'


@pytest.mark.parametrize(('name', 'row'), [
    ('accuracy mae', '| VPT-Deep | 0.50 | · | · | 62.00 ± 2.00 | · |'),
    ('accuracy mae', '| SPT-Deep, max | · | · | · | · | · |'),
    # 5, 4, 3 have a standard deviation of 1; over sqrt(3), times 4.3027. One more seed of 3 is right on 15 of 500
    # images, 2 more are on 15, all 3 on 5, 0.04 in the mean: 196 sqrt((15 / 9 + 60 / 9 + 5 - 500 * 0.04^2) / 499 / 500)
    ('advantage', '| MAE, digits, K-means | 66.00 ± 1.00 | 62.00 ± 2.00 | +4.00 ± 2.48 | ± 1.39 | +10.00 ± 0.00 '
                  '| 30.00 | 30.00 |'),
    # of that, under MoCo-v3 all three on five others: 196 sqrt((15 / 9 + 60 / 9 + 5 + 5 - 500 * 0.03^2) / 499 / 500)
    ('by backbone', '| digits, K-means | +4.00 | +1.00 | +3.00 ± 2.48 | ± 1.66 |'),
    ('starts', '| MAE, digits, mean | 66.00 ± 1.00 | 66.00 ± 0.00 | +0.00 ± 2.48 | ± 0.41 |'),
    ('full', '| MAE, digits: SPT-Deep, K-means, 20 prompts '
             '| 66.00 ± 1.00 | 70.00 ± 0.00 | -4.00 ± 2.48 | ± 1.62 | 0.50 |'),
    # 95 % of 40 is 38, of 50 47.5
    ('convergence', '| MAE, digits: VPT-Deep, 20 prompts | 40.00 ± 0.00 | 3, 2 |  | 3, 2 |'),
    ('convergence', '| MAE, digits: SPT-Deep, K-means, 20 prompts | 50.00 ± 0.00 | 3, 2 | +0.00 ± 0.00 | 1, 2 |'),
    ('rates', '| MAE, digits: VPT-Deep, 20 prompts | 10.0, 2 | · | 40.0, 2 | · | 30.0, 2 | 20.0, 1 |'),
    ('nmi', '| MAE, digits: VPT-Deep, 20 prompts | 0.20 | 2.20 | +2.00 ± 2.48 |  |'),
    ('nmi', '| MAE, digits: SPT-Deep, K-means, 20 prompts | 2.20 | 1.20 | -1.00 ± 0.00 | +2.00 ± 2.48 |'),
    ('cost', '| MAE, digits: VPT-Deep, 20 prompts | 2.0 | 100 | 2.0 |'),
    ('moved', '| MAE, digits: VPT-Deep, 20 prompts | 0.1 | 1.20 | 4.00 | 0.50 | 0.00 | 0.25 |'),
    ('chosen', f'| MAE, digits: VPT-Deep, 20 prompts | lr 0.1 | 98.00 | 0.10 | 2 | `{BY_HAND.format("mae", "mae")}` |'),
    ('chosen', '| MoCo-v3, digits: VPT-Deep, 20 prompts | lr 3 (edge) | 98.00 | 0.10 | 2 | '
               f'`{BY_HAND.format("mocov3", "mocov3")}` |'),
    ('chosen', '| all |  |  | 0.70 |  |  |'),
    ('empty', f'7 of {len(cells())} cells are there.'),
])
def test_tables(name, row):
    assert row in study_tables.TABLES[name](RECORDS).splitlines()


def test_controls():
    """Each beside what it was made of, and beside what is as long but starts from something else."""
    spt = Cell('mae', 'digits_32', 'SPT-Deep, random sample')
    records = {VPT: RECORDS[VPT], spt: RECORDS[SPT], VPT._replace(method='VPT-Deep, long'): record((61., 63., 65.)),
               spt._replace(method='SPT-Deep, random sample, short'): record((65., 66., 67.)),
               spt._replace(method='SPT-Deep, random sample, no decay'): record((66., 66., 66.))}
    # one more seed of 3 is right on 15 of 500 images: 196 sqrt((15 / 9 - 500 * 0.01^2) / 499 / 500)
    # one less on 15, two less on 15: 196 sqrt((15 / 9 + 60 / 9 - 500 * 0.03^2) / 499 / 500)
    assert study_tables.controls(records).splitlines()[2:] == [
        '| MAE, digits: VPT-Deep, long - VPT-Deep | 63.00 ± 2.00 | 62.00 ± 2.00 | +1.00 ± 0.00 | ± 0.50 |',
        '| MAE, digits: VPT-Deep, long - SPT-Deep, random sample '
        '| 63.00 ± 2.00 | 66.00 ± 1.00 | -3.00 ± 2.48 | ± 1.10 |',
        '| MAE, digits: SPT-Deep, random sample, short - SPT-Deep, random sample '
        '| 66.00 ± 1.00 | 66.00 ± 1.00 | +0.00 ± 0.00 | ± 0.00 |',
        '| MAE, digits: SPT-Deep, random sample, short - VPT-Deep '
        '| 66.00 ± 1.00 | 62.00 ± 2.00 | +4.00 ± 2.48 | ± 1.39 |',
        '| MAE, digits: SPT-Deep, random sample, no decay - SPT-Deep, random sample '
        '| 66.00 ± 0.00 | 66.00 ± 1.00 | +0.00 ± 2.48 | ± 0.41 |']


def test_counts():
    """Every accuracy there is; how far each method ranges, SPT's over the numbers that VPT has too."""
    tests = {VPT: {5: (61., 63., 62.), 20: (60., 62., 64.), 50: (63., 63., 63.)},
             SPT: {20: (65., 66., 67.), 50: (67., 67., 67.), 100: (64., 66., 66.)},
             SPT._replace(method='SPT-Deep, mean'): {5: (60., 60., 60.), 20: (66., 66., 66.), 50: (64., 64., 64.)},
             SPT._replace(method='SPT-Deep, max'): {20: (66., 66., 66.)}}
    records = {cell._replace(num_prompts=count): record(values)
               for cell, found in tests.items() for count, values in found.items()}
    lines = study_tables.counts(records).splitlines()
    assert len(lines) == 5  # the starts in their order; one number of prompts is no range
    assert lines[2] == ('| MAE, digits: VPT-Deep | 62.00 ± 1.00 | 62.00 ± 2.00 | 63.00 ± 0.00 | · | 5, 20, 50 | 2.00 '
                        '|  |  |')
    # over 20 and 50 VPT ranges by 3, 1, 1, this by 2, 1, 0: 1, 0, 1 less, of standard deviation sqrt(1 / 3); over
    # sqrt(3), times 4.3027. Per image, VPT with 50 less with 20: 1 / 3 on 10 images, 2 / 3 on 5, -1 / 3 on 5; this with
    # 50 less with 20: 1 / 3 on 5 others, 2 / 3 on 5; 0.01 in the mean both: 196 sqrt((35 / 9 + 25 / 9) / 499 / 500)
    assert lines[3] == ('| MAE, digits: SPT-Deep, K-means | · | 66.00 ± 1.00 | 67.00 ± 0.00 | 65.33 ± 1.15 | 20, 50 '
                        '| 1.00 | +0.67 ± 1.43 | ± 1.01 |')
    # 6 each; VPT 3, 1, 2: 3, 5, 4 less
    assert '| 60.00 ± 0.00 | 66.00 ± 0.00 | 64.00 ± 0.00 | · | 5, 20, 50 | 6.00 | -4.00 ± 2.48 |' in lines[4]
    rows = [row for row in study_tables.advantage(records).splitlines() if 'K-means, 50' in row]
    assert len(rows) == 1 and '67.00 ± 0.00 | 63.00 ± 0.00 | +4.00 ± 0.00' in rows[0]
    assert '| MAE, digits: SPT-Deep, mean, 5 prompts | 10.0, 2 |' in study_tables.rates(records)
    pair = {cell._replace(num_prompts=5): record((50., ) * 3, curves) for cell, curves in (
        (VPT, ((10., 20., 40.), (10., 39., 40.))), (SPT, ((50., 50., 50.), (20., 20., 50.))))}
    # 95 % of 50 is 47.5, after 1 and 3 epochs, of 40 38, after 3 and 2; -2 and 1: 3 / sqrt(2) / sqrt(2), times 12.706
    assert ('| MAE, digits: SPT-Deep, K-means, 5 prompts | 50.00 ± 0.00 | 1, 3 | -0.50 ± 19.06 | 1, 3 |'
            in study_tables.convergence(RECORDS | pair))
    few = {VPT._replace(num_prompts=5): record((50., ) * 3, nmi=[{'0': 1e-4, '30': 1e-3}])}
    assert '| MAE, digits: VPT-Deep, 5 prompts | 0.1 | 1.20 |' in study_tables.moved(few)


def test_empty_names_every_missing_cell():
    text = study_tables.empty({cell: record((1., )) for cell in cells()[3:]})
    assert text.splitlines()[0] == f'{len(cells()) - 3} of {len(cells())} cells are there.'
    assert text.splitlines()[2:] == [
        'Empty:', '', '* MAE, Flowers-17: VPT-Deep; SPT-Deep, random sample', '* MAE, CIFAR-10-1k: VPT-Deep']
    assert 'Empty' not in study_tables.empty({cell: record((1., )) for cell in cells()})


def test_fill():
    page = '\n'.join(f'text\n<!-- table: {name} -->\nold\n<!-- end -->' for name in study_tables.TABLES)
    made = study_tables.fill(page, RECORDS)
    assert 'old' not in made and made.count('text\n') == len(study_tables.TABLES)
    assert study_tables.fill(made, RECORDS) == made
    with pytest.raises(ValueError, match=r'must have one mark for each of .* got $'):
        study_tables.fill('text', RECORDS)


def test_the_page_is_what_the_records_give():
    page = (ROOT / 'docs' / 'results.md').read_text()
    assert study_tables.fill(page, study_records.read_all(cells(), FULL)) == page


def test_a_record_of_another_budget_is_none(tmp_path):
    study_records.write(VPT, study_records.identity(VPT, FULL) | RECORDS[VPT], str(tmp_path))
    found = study_records.read(VPT, FULL, str(tmp_path))
    assert found['test'] == RECORDS[VPT]['test']
    assert study_records.read(VPT, FULL._replace(seeds=2), str(tmp_path)) is None
    assert study_records.read(SPT, FULL, str(tmp_path)) is None
    path = tmp_path / f'{VPT.name}.json'
    path.write_text(json.dumps(found)[:-9])
    with pytest.raises(ValueError, match='a record must be JSON'):
        study_records.read(VPT, FULL, str(tmp_path))


def test_best_cells():
    """On validation, whatever the test says; no control, none whose network is not frozen; the first of equals."""
    linear, full, other = (Cell('mae', 'digits_32', 'Linear'), Cell('mae', 'digits_32', 'Full'),
                           Cell('mocov3', 'digits_32', 'Linear'))
    control = VPT._replace(method='VPT-Deep, long')
    validated = {linear: 50., full: 99., control: 98., VPT: 60., SPT: 60., other: 10.}
    records = {cell: record((100. - value, )) | dict(best=dict(validation=value)) for cell, value in validated.items()}
    assert study_records.best_cells(records) == [VPT, other]


def test_packs_are_of_the_best_cells():
    """Each is whole, of the backbone in configs/pretrain, and was tested as its record says; there is no other."""
    records = study_records.read_all(cells(), FULL)
    paths = {study_records.pack_of(cell) for cell in study_records.best_cells(records)}
    assert paths == {str(path) for path in (ROOT / 'benchmarks' / 'results' / 'study' / 'packs').iterdir()}
    for cell in study_records.best_cells(records):
        pack = Pack.load(study_records.pack_of(cell))
        assert pack.metrics == {'accuracy/top1': records[cell]['test']['by_seed']['0']}
        assert (pack.prompts is None) == (cell.method == 'Linear')
        check_backbone(pack, load_backbone(pack.backbone, cell.checkpoint), cell.name)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A study of two cells on the digits: one setting, two seeds, one epoch."""
    monkeypatch.setattr(study, 'QUICK', Budget(
        trials=1, seeds=2, search=('lr=0.1', ),
        options=('train_cfg.max_epochs=1', 'param_scheduler.end=1', 'param_scheduler.warmup=0')))
    monkeypatch.setattr(study, 'quick_cells', lambda: [Cell('mae', 'digits_32', 'Linear'), VPT])

    def make(**kwargs):
        args = dict(quick=True, only=None, hours=None, workers=2, work_dir=str(tmp_path)) | kwargs
        return study.Study(SimpleNamespace(**args), Console(width=200))
    return make


@pytest.mark.slow
def test_runs_and_goes_on(small, tmp_path, capfd, monkeypatch):
    """Both cells to their end; given again, nothing runs; a lost record is made of what is there."""
    small().run()
    linear, vpt = (json.loads((tmp_path / 'results' / f'{cell.name}.json').read_text())
                   for cell in (Cell('mae', 'digits_32', 'Linear'), VPT))
    # 128 x 10 and 10 of the head; 8 x 20 x 128 prompts beside them
    assert (linear['parameters']['trained'], vpt['parameters']['trained']) == (1290, 1290 + 20480)
    assert (vpt['workers'], vpt['machine']['threads']) == (2, 1)
    assert linear['resumed'] == vpt['resumed'] == []
    assert linear['prompts'] == linear['prototypes'] == linear['nmi'] == {} and list(linear['curves']) == ['0']
    assert list(vpt['curves']) == ['0', '1'] and all(list(curve) == ['1'] for curve in vpt['curves'].values())
    assert vpt['curves']['0']['1'] == vpt['best']['validation']
    assert set(vpt['test']['by_seed']) == {'0', '1'} == set(vpt['nmi']) == set(vpt['prototypes'])
    assert all(times['training'] > 0 for times in vpt['prototypes'].values())
    for cell in (linear, vpt):
        assert study_numbers.hits(cell, 500).shape == (2, 500)
        assert (100 * study_numbers.hits(cell, 500).mean(1)).tolist() == pytest.approx(
            list(cell['test']['by_seed'].values()), abs=1e-4)
    assert all(0 < seed['cosine'] < 1 and seed['before'] > 1 for seed in vpt['prompts'].values())  # 1.2
    shown = capfd.readouterr().out
    assert '[0 of 2 cells done, 0 minutes] next: MAE, digits: Linear' in shown
    assert 'left] next: MAE, digits: VPT' in shown

    monkeypatch.setattr(study, 'start', lambda *args: pytest.fail('it was done'))
    (tmp_path / 'results' / f'{VPT.name}.json').unlink()
    small().run()
    again = json.loads((tmp_path / 'results' / f'{VPT.name}.json').read_text())
    assert {key: again[key] for key in ('test', 'curves', 'nmi', 'best')} == {
        key: vpt[key] for key in ('test', 'curves', 'nmi', 'best')}
    assert again['seconds'] > vpt['seconds']  # what it took is summed
    best, worse = sorted((Cell('mae', 'digits_32', 'Linear'), VPT), reverse=True, key=lambda cell: json.loads(
        (tmp_path / 'results' / f'{cell.name}.json').read_text())['best']['validation'])
    packs = tmp_path / 'results' / 'packs'
    pack_path = packs / f'{best.name}.safetensors'
    pack_path.rename(packs / f'{worse.name}.safetensors')  # as if another had been the best before
    capfd.readouterr()
    small().run()
    assert 'next:' not in capfd.readouterr().out

    pack = Pack.load(str(pack_path))
    assert list(packs.iterdir()) == [pack_path]
    assert pack.metrics == {'accuracy/top1': (vpt if best == VPT else linear)['test']['by_seed']['0']}
    assert (pack.prompts is None) == (best != VPT)


def test_a_pack_of_before_goes_even_if_the_new_one_was_made(small, tmp_path, monkeypatch):
    """A kill between the two leaves both."""
    monkeypatch.setattr(study, 'best_cells', lambda records: [VPT])
    monkeypatch.setattr(study, 'read_all', lambda *args: {VPT: {}})
    monkeypatch.setattr(study, 'is_pack_of', lambda path, record: True)
    packs = tmp_path / 'results' / 'packs'
    packs.mkdir(parents=True)
    for name in (VPT.name, SPT.name, 'mocov3_digits_32_linear'):
        (packs / f'{name}.safetensors').touch()
    small().keep()
    assert {path.stem for path in packs.iterdir()} == {VPT.name, 'mocov3_digits_32_linear'}


@pytest.mark.parametrize('place', ['search', 'curves', 'record'])
def test_a_cell_that_fails_ends_alone(small, place, monkeypatch, capfd, tmp_path):
    ended = []

    def run(command, environment, tick):
        ended.append(command)
        return 3 if place == 'search' else 0

    def watch(self, cell, work_dir, tick):
        if place == 'curves':
            raise study.Failed('a run ended with 4')

    def gather(*args):
        raise ValueError('tested otherwise')

    monkeypatch.setattr(study, 'run', run)
    monkeypatch.setattr(study.Study, 'watch', watch)
    monkeypatch.setattr(study.Study, 'test', lambda *args: None)
    monkeypatch.setattr(study, 'gather', gather)
    with pytest.raises(SystemExit, match='2 cells failed, as said above: MAE, digits: Linear; MAE, digits: VPT-Deep'):
        small().run()
    assert len(ended) == 2
    reason = dict(search='the search ended with 3', curves='a run ended with 4', record='tested otherwise')[place]
    assert f'MAE, digits: Linear: {reason}' in capfd.readouterr().out


def test_stopped_it_tells_its_search(tmp_path):
    """A signal while a tool runs: the tool is told by SIGTERM, may end in order, and is waited for."""
    script = ('import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(.5), '
              'open(sys.argv[1], "w").close(), sys.exit(9))); open(sys.argv[2], "w").close(); time.sleep(60)')
    ended, begun = tmp_path / 'ended', tmp_path / 'begun'

    def interrupt(*_):
        raise SystemExit(143)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 2.)
        with pytest.raises(SystemExit):
            study.run([sys.executable, '-c', script, str(ended), str(begun)], {})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.)
        signal.signal(signal.SIGALRM, before)
    assert begun.exists() and ended.exists()


def test_a_kill_loses_half_a_minute_at_most(tmp_path, monkeypatch):
    """Of the time that a cell took; a tool that runs for long is asked for it."""
    now = [1000.]
    monkeypatch.setattr(study_processes.time, 'time', lambda: now[0])
    path = tmp_path / 'seconds.json'
    with study_processes.clock(str(path)) as first:
        now[0] += 29
        assert first() == 29 and not path.exists()
        now[0] += 2
        first()
        assert json.loads(path.read_text()) == 31
        now[0] += 60  # killed here, it would be 31
    assert json.loads(path.read_text()) == 91
    with study_processes.clock(str(path)) as second:
        now[0] += 9
        assert second() == 100
    monkeypatch.setattr(study_processes, 'WRITTEN', 0.05)
    asked = []
    assert study.run([sys.executable, '-c', 'import time; time.sleep(1); raise SystemExit(5)'], {},
                     lambda: asked.append(0)) == 5
    assert len(asked) > 2


def test_what_became_of_the_prompts(tmp_path):
    """Two blocks of three prompts along the axes: lengths and cosines by hand."""
    assert study_records.read_prompts(str(tmp_path)) is None
    axes = torch.eye(3)
    save_file({'prompts': 2 * axes[torch.tensor([[0, 0, 1], [0, 1, 2]])]}, tmp_path / 'initial_prompts.safetensors')
    checkpoint = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': {'backbone.prompts': 5 * axes[torch.zeros(2, 3, dtype=int)]}}, checkpoint)
    (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    assert study_records.read_prompts(str(tmp_path)) == pytest.approx(
        dict(before=2, after=5, cosine=1 / 2, pairs_before=1 / 6, pairs_after=1))


class OneWeight(BaseModel):
    """Is trained towards 0."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, number, mode):  # a list of tensors, (1,) each
        return dict(loss=(self.weight * number[0]).square().sum())


@pytest.mark.parametrize(('calls', 'resumed'), [(['train'], False), (['resume'], False), (['train', 'resume'], True)])
def test_a_resumed_run_is_known(tmp_path, calls, resumed):
    """By the log of MMEngine's own runner; a run that begins anew, for want of a checkpoint, is as any other."""
    for call in calls:
        runner = Runner(
            OneWeight(), str(tmp_path), dict(dataset=[dict(number=torch.ones(1))], batch_size=1, sampler=dict(
                type='DefaultSampler', shuffle=False)), train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), resume=call == 'resume', default_scope='mmengine',
            experiment_name=f'{tmp_path.name}_{call}')
        runner.train()
    (tmp_path / 'train.txt').write_text(''.join(path.read_text() for path in sorted(tmp_path.glob('*/*.log'))))
    assert study_records.was_resumed(str(tmp_path)) == resumed


def test_a_final_run_without_its_checkpoint_is_named(tmp_path):
    with pytest.raises(study_processes.Failed, match=f"'{tmp_path}' must have a checkpoint, but has none: delete"):
        study_processes.test(str(tmp_path), {})


def test_a_model_that_tests_otherwise_is_named(tmp_path):
    (tmp_path / study_records.HITS).write_text('1101')
    assert study_records.read_hits(str(tmp_path), 75.) == 'd0'
    with pytest.raises(ValueError, match=r"alike twice, but that of '.*' gave 74.00 and 75.00 %: delete"):
        study_records.read_hits(str(tmp_path), 74.)


def test_pictures():
    """Each that the records have numbers for, whatever else is missing."""
    with styled():
        drawn = dict(study_pictures.draw(RECORDS))
    assert {name: len(figure.axes) for name, figure in drawn.items()} == dict(
        study_curves=2, study_rates=2, study_nmi=1, study_prompts=1)
    rates = drawn['study_rates'].axes[0]
    assert rates.get_title() == 'MAE, digits'
    assert rates.lines[0].get_xydata().tolist() == [[0.01, 10.], [0.1, 40.], [1., 30.], [3., 20.]]
    assert drawn['study_prompts'].axes[0].lines[0].get_xydata().tolist() == [[5., 50.], [20., 66.]]
    with styled():
        assert dict(study_pictures.draw({})) == {}


def test_pictures_have_a_row_a_backbone():
    """And a column a task: what is compared stands in a column."""
    _, axes = study_pictures.figure_of([('mae', 'flowers'), ('mae', 'digits'), ('mocov3', 'digits')])
    flowers, digits, below = (panel.get_position() for panel in axes)
    assert flowers.y0 == digits.y0 > below.y1
    assert flowers.x1 < digits.x0 == below.x0


def test_hours_and_only(small, capfd):
    small(hours=-1.).run()
    assert '-1 hours are over; 2 cells are left.' in capfd.readouterr().out
    assert [cell.method for cell in small(only=['linear', 'nothing']).cells] == ['Linear']
    with pytest.raises(SystemExit, match='--only must name cells, but none of 2 holds nothing'):
        small(only=['nothing'])


def test_without_a_checkpoint_cells_stay_empty(small, monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(study_plan, 'ROOT', str(tmp_path))
    small().run()
    shown = capfd.readouterr().out
    assert 'Cells of vit-8x128_mae_cifar10 stay empty: ' in shown and 'next:' not in shown
