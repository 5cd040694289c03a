"""Checkpoints without the frozen backbone: small, and all that a checkpoint is for works as with whole ones."""
import re
import shutil

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import get_state_dict, load_checkpoint

from forked import train
from helpers import golden_checkpoint, make_job, scalars, tool

MARK = 'backbone.fingerprint'
TUNED = {'backbone.prompts', 'head.fc.weight', 'head.fc.bias'}
EMA = "custom_hooks = _base_.custom_hooks + [dict(type='EMAHook'{more})]\n"
WHOLE = 'default_hooks.checkpoint.save_frozen=True'
SHORT = ['train_cfg.max_epochs=2', 'default_hooks.checkpoint.save_best=auto']


def load(path):
    return torch.load(path, map_location='cpu', weights_only=False)


def model_of(config, init=True, **backbone):
    """The config's classifier, its backbone's checkpoint loaded."""
    cfg = Config.fromfile(str(config))
    cfg.model.backbone.update(backbone)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor, _scope_='mmpretrain'))
    if init:
        model.init_weights()
    return model


@pytest.fixture(scope='module')
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp('trained_only'))


@pytest.fixture(scope='module', params=['', EMA.format(more=''), EMA.format(more=', begin_epoch=2')],
                ids=['plain', 'averaged', 'averaged later'])
def runs(request, job, tmp_path_factory):
    """The same training with checkpoints of both kinds."""
    root = tmp_path_factory.mktemp('runs')
    config = root / 'job.py'
    config.write_text(f'_base_ = {job.config!r}\n{request.param}')
    for name, more in (('whole', [WHOLE]), ('short', [])):
        code, output = train([config, '--work-dir', root / name, '--cfg-options', *SHORT, *more], root / f'{name}.log')
        assert code == 0, output
    return root


def test_a_checkpoint_holds_what_was_trained(runs):
    """And the whole one what stock checkpoints hold: every weight."""
    for name in ('epoch_1.pth', 'epoch_2.pth', next((runs / 'short').glob('best_*')).name):
        whole, short = load(runs / 'whole' / name), load(runs / 'short' / name)
        assert set(short['state_dict']) == TUNED | {MARK}
        assert set(whole['state_dict']) == set(model_of(runs / 'job.py').state_dict()) > TUNED
        assert all(torch.equal(short['state_dict'][key], whole['state_dict'][key]) for key in TUNED)
        if 'ema_state_dict' in whole:
            extra = {'steps'} | {f'module.{key}' for key in TUNED}
            assert set(short['ema_state_dict']) == extra | {f'module.{MARK}'}
            assert all(torch.equal(short['ema_state_dict'][key], whole['ema_state_dict'][key]) for key in extra)
    frozen = sum(value.nbytes for key, value in whole['state_dict'].items() if key not in TUNED)
    sizes = [(runs / name / 'epoch_2.pth').stat().st_size for name in ('whole', 'short')]
    assert sizes[0] - sizes[1] > frozen


def test_training_is_the_same(runs):
    whole, short = ([{key: record[key] for key in ('loss', 'accuracy/top1', 'step') if key in record}
                     for record in scalars(runs / name)] for name in ('whole', 'short'))
    assert whole == short and len(whole) > 8


@pytest.mark.parametrize('flags', [(), ('--tta', )], ids=' '.join)
def test_test_py(runs, flags, tmp_path):
    found = []
    for name in ('whole', 'short'):
        out = tmp_path / f'{name}.pkl'
        tool('test.py', runs / 'job.py', runs / name / 'epoch_2.pth', '--work-dir', tmp_path / name, '--out', out,
             *flags)
        found.append(torch.stack([result['pred_score'] for result in mmengine.load(out)]))
    assert torch.equal(*found) and found[0].shape == (6, 3)


def test_resume(runs, tmp_path):
    """From the first of two epochs, to the same end, whichever kind the checkpoint is of, or becomes."""
    ends = []
    for kind, more in (('whole', [WHOLE]), ('short', []), ('whole', [])):
        folder = tmp_path / f'{kind}{len(more)}'
        code, output = train([runs / 'job.py', '--work-dir', folder, '--resume', runs / kind / 'epoch_1.pth',
                              '--cfg-options', *SHORT, *more], tmp_path / 'log')
        assert code == 0, output
        ends.append(load(folder / 'epoch_2.pth'))
    undisturbed = load(runs / 'short' / 'epoch_2.pth')
    for end in ends:
        assert set(end['state_dict']) >= TUNED and (MARK in end['state_dict']) == (end is not ends[0])
        for part in ('state_dict', 'ema_state_dict'):
            assert (part in end) == (part in undisturbed)
            for key, value in undisturbed.get(part, {}).items():
                if not key.endswith(MARK) or end is not ends[0]:
                    assert torch.equal(end[part][key], value), key


@pytest.mark.parametrize(('options', 'why'), [
    (['model.backbone.init_cfg=None', 'model.backbone.allow_random_backbone=True'], 'random weights are nowhere else'),
    (['model.backbone.init_cfg=None', f'load_from={golden_checkpoint("mae_deep")}'], 'load_from will name another'),
    ([f'load_from={golden_checkpoint("mae_shallow")}'], 'load_from replaced what init_cfg gave'),
    (['model.backbone.frozen=False'], 'all is trained'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_what_init_cfg_would_not_bring_back_is_saved(options, why, job, tmp_path):
    tool('train.py', job.config, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=1',
         'optim_wrapper.paramwise_cfg=None', *options)
    state = load(tmp_path / 'epoch_1.pth')['state_dict']
    assert MARK not in state and 'backbone.layers.3.attn.qkv.weight' in state


def test_load_from_the_same_backbone_changes_nothing(job, tmp_path):
    tool('train.py', job.config, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=1',
         f'load_from={golden_checkpoint("mae_deep")}')
    assert set(load(tmp_path / 'epoch_1.pth')['state_dict']) == TUNED | {MARK}


@pytest.fixture(scope='module')
def trained(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    tool('train.py', job.config, '--work-dir', folder, '--cfg-options', 'train_cfg.max_epochs=1')
    return folder / 'epoch_1.pth'


@pytest.mark.parametrize(('init_cfg', 'message'), [
    (dict(type='Pretrained', checkpoint=golden_checkpoint('mae_shallow')),
     r'fits no other: it was tuned on that of fingerprint [0-9a-f]{64}, this one has [0-9a-f]{64}\. Name the'),
    (None, r'needs it \(fingerprint [0-9a-f]{64}\), but the model names none: set model\.backbone\.init_cfg'),
    (dict(type='TruncNormal', layer='Linear', std=0.1), 'the model names none'),
    (dict(type='Pretrained', checkpoint='not/there.pth'), r"'not/there\.pth' is not a file"),
], ids=['another', 'none', 'drawn', 'missing'])
def test_a_backbone_that_is_not_there(init_cfg, message, job, trained):
    model = model_of(job.config, init=False, init_cfg=init_cfg)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_checkpoint(model, str(trained))


def test_both_fingerprints_are_named_and_differ(job, trained):
    other = dict(type='Pretrained', checkpoint=golden_checkpoint('mae_shallow'))
    with pytest.raises(ValueError) as error:
        load_checkpoint(model_of(job.config, init_cfg=other), str(trained))
    named = re.findall('[0-9a-f]{64}', str(error.value))
    assert named[0] == bytes(load(trained)['state_dict'][MARK].tolist()).hex() != named[1]


@pytest.mark.parametrize('init', [False, True], ids=['built', 'initialized'])
@pytest.mark.parametrize('prompts', [5, 0])
def test_loading_fills_every_weight(init, prompts, job, tmp_path):
    """Before and after init_weights; the backbone's numbers are those of the file; linear probes too."""
    source = model_of(job.config, num_prompts=prompts)
    with torch.no_grad():
        source.head.fc.weight.normal_()
    with source.backbone.saving.without_frozen(source.backbone):
        torch.save(dict(state_dict=get_state_dict(source)), tmp_path / 'short.pth')
    model = model_of(job.config, init=init, num_prompts=prompts)
    load_checkpoint(model, str(tmp_path / 'short.pth'))
    expected, found = source.state_dict(), model.state_dict()
    assert set(load(tmp_path / 'short.pth')['state_dict']) == (TUNED if prompts else TUNED - {'backbone.prompts'}) | {
        MARK}
    assert set(expected) == set(found) and all(torch.equal(found[key], value) for key, value in expected.items())
    model.backbone.check_weights()


def test_changed_frozen_weights_are_saved(job):
    """Nothing is lost, whoever changed them and whenever; state dicts are whole again later."""
    model = model_of(job.config)

    def saved():
        with model.backbone.saving.without_frozen(model.backbone):
            return model.state_dict()

    weight = model.backbone.layers[2].ln1.weight
    before = weight.detach().clone()
    assert MARK in saved() and MARK not in model.state_dict()
    with torch.no_grad():
        weight[0] += 1e-6
    state = saved()
    assert MARK not in state and torch.equal(state['backbone.layers.2.ln1.weight'], weight)
    with torch.no_grad():
        weight.copy_(before)
    assert MARK in saved()
    weight.requires_grad_(True)
    assert MARK not in saved()
    weight.requires_grad_(False)
    model.half()
    assert MARK not in saved()


def test_frozen_weights_and_a_fingerprint_contradict(job, trained, tmp_path):
    content = load(trained)
    content['state_dict']['backbone.layers.0.ln1.weight'] = torch.full((64, ), 2.)
    torch.save(content, tmp_path / 'both.pth')
    with pytest.raises(ValueError, match='has both'):
        load_checkpoint(model_of(job.config), str(tmp_path / 'both.pth'))


@pytest.mark.parametrize('mark', [torch.zeros(31, dtype=torch.uint8), torch.zeros(32)], ids=['short', 'fp32'])
def test_a_broken_fingerprint(mark, job, trained, tmp_path):
    content = load(trained)
    content['state_dict'][MARK] = mark
    torch.save(content, tmp_path / 'broken.pth')
    with pytest.raises(ValueError, match='a fingerprint must be 32 bytes'):
        load_checkpoint(model_of(job.config), str(tmp_path / 'broken.pth'))


def test_a_moved_backbone(job, tmp_path):
    """Its file may lie elsewhere later; --cfg-options names it."""
    here, there = tmp_path / 'here.pth', tmp_path / 'there.pth'
    shutil.copy(golden_checkpoint('mae_deep'), here)
    run = ['train.py', job.config, '--work-dir', tmp_path / 'run', '--cfg-options']
    tool(*run, 'train_cfg.max_epochs=1', f'model.backbone.init_cfg.checkpoint={here}')
    here.rename(there)
    test = ['test.py', job.config, tmp_path / 'run' / 'epoch_1.pth', '--work-dir', tmp_path / 'test', '--cfg-options']
    assert 'is not a file' in tool(*test, f'model.backbone.init_cfg.checkpoint={here}', fails=True)
    tool(*test, f'model.backbone.init_cfg.checkpoint={there}')


def test_a_checkpoint_of_the_trained_is_no_backbone(job, trained):
    with pytest.raises(ValueError, match='saved without the frozen ones: name the checkpoint that it was tuned on'):
        model_of(job.config, init_cfg=dict(type='Pretrained', checkpoint=str(trained)))


@pytest.mark.parametrize('name', ['mmengine.Pretrained', 'mmpretrain.Pretrained', PretrainedInit], ids=str)
def test_other_names_of_pretrained(name, job, tmp_path):
    """MMEngine knows one name alone, and draws weights anew after it has read others."""
    whole = model_of(job.config)
    other = model_of(job.config, init_cfg=dict(type=name, checkpoint=golden_checkpoint('mae_deep')))
    frozen = [key for key in whole.state_dict() if key.startswith('backbone.') and key != 'backbone.prompts']
    assert all(torch.equal(whole.state_dict()[key], other.state_dict()[key]) for key in frozen) and len(frozen) > 40
    with other.backbone.saving.without_frozen(other.backbone):
        assert MARK in other.state_dict()


def test_at_another_size_of_images(job, trained, tmp_path):
    """As with a whole checkpoint: the backbone is the file's, its positions resized."""
    model = model_of(job.config, init=False, img_size=48)
    load_checkpoint(model, str(trained))
    assert model.backbone.pos_embed.shape[1] == 37


def test_weights_that_were_there_before_are_not_init_cfgs(job, trained):
    """They fit the fingerprint, but nobody could have them again from the file that init_cfg names: they are saved."""
    other = dict(type='Pretrained', checkpoint=golden_checkpoint('mae_shallow'))
    model = model_of(job.config, init=False, init_cfg=other)
    load_checkpoint(model, golden_checkpoint('mae_deep'))
    load_checkpoint(model, str(trained))
    with model.backbone.saving.without_frozen(model.backbone):
        assert MARK not in model.state_dict()
