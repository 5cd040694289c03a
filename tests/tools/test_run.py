"""The runner for real: train, validate, checkpoint, stop, resume, test; on one process and on two."""
import json
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain import ImageClassificationInferencer
from safetensors.torch import load_file, save_file

from helpers import ROOT, command, scalars, tool


def prompts(path):
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')['state_dict']['backbone.prompts.tokens']


def test_train_stop_resume_test(job):
    """A run stopped after two epochs and resumed ends where an uninterrupted one ends, to the bit."""
    whole, parts = job.root / 'whole', job.root / 'parts'
    tool('train.py', job.config, '--work-dir', whole)
    tool('train.py', job.config, '--work-dir', parts, '--cfg-options', 'train_cfg.max_epochs=2')
    initial = (parts / 'initial_prompts.safetensors').stat().st_mtime_ns
    output = tool('train.py', job.config, '--work-dir', parts, '--resume')

    assert 'Resumed: prompts come from the checkpoint' in output
    assert (parts / 'initial_prompts.safetensors').stat().st_mtime_ns == initial
    assert torch.equal(prompts(whole / 'epoch_4.pth'), prompts(parts / 'epoch_4.pth'))
    started = load_file(whole / 'initial_prompts.safetensors')['prompts']
    assert (prompts(whole / 'epoch_4.pth') - started).abs().max() > 1e-3
    assert list(parts.glob('best_accuracy_top1_epoch_*.pth'))

    losses = [record['loss'] for record in scalars(whole) if 'loss' in record]
    assert len(losses) == 12 and np.mean(losses[-3:]) < np.mean(losses[:3])
    rates = [record['lr'] for record in scalars(whole) if 'lr' in record]
    np.testing.assert_allclose(rates[:4], [0, 5e-2 / 3, 1e-1 / 3, 5e-2], rtol=1e-6)

    tool('test.py', job.config, parts / 'epoch_4.pth', '--work-dir', parts, '--out', parts / 'metrics.json',
         '--out-item', 'metrics')
    again = tool('test.py', job.config, parts / 'epoch_4.pth', '--work-dir', parts, '--cfg-options',
                 'test_dataloader.dataset.ann_file=val.txt', '--out', parts / 'val.json', '--out-item', 'metrics')
    assert Config.fromfile(parts / 'job.py').get('load_from') is None  # testing left the run's config as it was
    (job.data / 'test.txt').write_text('class_1/006.png 7\n')
    assert 'labels from 7 to 7' in tool('test.py', job.config, parts / 'epoch_4.pth', '--work-dir', parts, '--tta',
                                        fails=True)
    assert 0 <= json.loads((parts / 'metrics.json').read_text())['accuracy/top1'] <= 100
    validated = [record['accuracy/top1'] for record in scalars(whole) if 'accuracy/top1' in record]
    assert json.loads((parts / 'val.json').read_text())['accuracy/top1'] == validated[-1], again


def test_two_processes_without_a_gpu(job):
    """Same initial prompts as one process, same global batch, and a checkpoint that one process resumes."""
    one, two = job.root / 'one', job.root / 'two'
    tool('train.py', job.config, '--work-dir', one, '--cfg-options', 'train_cfg.max_epochs=1')
    command(ROOT / 'tools/dist_train.sh', job.config, 2, '--work-dir', two,
            '--cfg-options', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=2')
    assert torch.equal(load_file(one / 'initial_prompts.safetensors')['prompts'],
                       load_file(two / 'initial_prompts.safetensors')['prompts'])
    assert len([record for record in scalars(two) if 'loss' in record]) == 3
    tool('train.py', job.config, '--work-dir', two, '--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    assert (two / 'epoch_2.pth').exists()


def test_init_prompts_without_training(job):
    output = tool('init_prompts.py', job.config, '--work-dir', job.root / 'init', '--cfg-options',
                  'custom_hooks.0.initializer.type=mmspt.KMeansInit')
    assert 'Prompts from KMeansInit: 12 images' in output
    assert not (job.root / 'init/job.py').exists()  # the name of a training's config
    path = job.root / 'init/initial_prompts.safetensors'
    made = load_file(path)['prompts']
    assert made.shape == (4, 5, 64) and not list((job.root / 'init').glob('*.pth'))
    tool('train.py', job.config, '--work-dir', job.root / 'run', '--cfg-options', 'train_cfg.max_epochs=1',
         'custom_hooks.0.initializer.type=mmspt.FileInit', f'custom_hooks.0.initializer.path={path}')
    assert torch.equal(load_file(job.root / 'run/initial_prompts.safetensors')['prompts'], made)


def test_runs_of_one_seed_differ_in_their_prompts_alone(job):
    """At rate 0 nothing moves: another initializer must leave the head as it was."""
    states = []
    for name in ('RandomSampleInit', 'UniformInit'):
        tool('train.py', job.config, '--work-dir', job.root / name, '--cfg-options', 'train_cfg.max_epochs=1',
             'optim_wrapper.optimizer.lr=0', f'custom_hooks.0.initializer.type=mmspt.{name}')
        states.append(CheckpointLoader.load_checkpoint(str(job.root / name / 'epoch_1.pth'))['state_dict'])
    differ = [key for key in states[0] if not torch.equal(states[0][key], states[1][key])]
    assert differ == ['backbone.prompts.tokens']


def test_inferencer(job):
    """MMPretrain's inferencer hands pixels to the config's test pipeline."""
    config = Config.fromfile(job.config)
    config.test_dataloader.dataset.pipeline = Config.fromfile(
        ROOT / 'configs/spt/vit-b_mae_flowers17.py').test_dataloader.dataset.pipeline
    inferencer = ImageClassificationInferencer(model=config, pretrained=False, device='cpu')
    (result, ) = inferencer(np.zeros((50, 60, 3), dtype=np.uint8))
    assert result['pred_scores'].shape == (3, ) and result['pred_scores'].sum() == pytest.approx(1, abs=1e-5)


def test_export_backbone(job, tmp_path):
    """The exported half-precision encoder loads like any checkpoint, equal to half precision."""
    tool('export_backbone.py', ROOT / 'tests/data/mae_deep_pretrain.pth', tmp_path / 'encoder.safetensors')
    source = torch.load(ROOT / 'tests/data/mae_deep_pretrain.pth', weights_only=True)['model']
    exported = load_file(tmp_path / 'encoder.safetensors')
    assert torch.equal(exported['layers.3.ffn.layers.1.weight'], source['blocks.3.mlp.fc2.weight'].half())
    assert len(exported) == len(source)
    save_file({'prompts': torch.zeros(1)}, tmp_path / 'other.safetensors')
    output = tool('export_backbone.py', tmp_path / 'other.safetensors', tmp_path / 'out.safetensors', fails=True)
    assert 'holds no ViT in a known layout' in output


@pytest.mark.parametrize('script', [Path('test.py'), Path(mmpretrain.__file__).parent / '.mim/tools/test.py'])
def test_a_checkpoint_of_other_classes_gives_no_result(script, runs, tmp_path):
    output = tool(script, runs.job.config, f'{runs.spt}/epoch_2.pth', '--work-dir', tmp_path, '--cfg-options',
                  'model.head.num_classes=4', fails=True)
    assert '2 are random: head.fc.bias, head.fc.weight' in output and not list(tmp_path.rglob('result.json'))
