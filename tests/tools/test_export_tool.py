"""tools/export.py on a trained run, and on what cannot be exported."""
import json
import re

import torch

from helpers import tool


def test_a_trained_run(runs, tmp_path):
    out = tmp_path / 'model.pt2'
    output = tool('export.py', runs.job.config, f'{runs.spt}/epoch_2.pth', out)
    assert f'epoch_2.pth -> {out}\n{out.stat().st_size:,} bytes; ' \
        'for images of 32 x 32 pixels (height x width); greatest difference from PyTorch ' in output
    assert float(re.search(r'PyTorch (\S+)', output)[1]) <= 1e-4
    assert 'Warning' not in output


def test_the_size_is_that_of_the_test_pipeline(runs, tmp_path):
    """In MMCV's order (width, height); whatever img_size says."""
    out = tmp_path / 'model.pt2'
    output = tool('export.py', runs.job.config, f'{runs.spt}/epoch_2.pth', out, '--cfg-options',
                  'test_dataloader.dataset.pipeline.1.scale=(48,40)')
    assert 'for images of 40 x 48 pixels' in output
    notes = {'mmspt.json': ''}
    torch.export.load(out, extra_files=notes)
    assert json.loads(json.loads(notes['mmspt.json'])['image_size']) == [40, 48]


def test_another_ending_is_refused_before_anything_is_built(tmp_path):
    output = tool('export.py', 'absent.py', 'absent.pth', 'model.pth', cwd=tmp_path, fails=True)
    assert "export: the file must end in .onnx or .pt2, got 'model.pth'" in output


def test_checkpoints_that_do_not_fill_the_model(runs, tmp_path):
    out = tmp_path / 'model.pt2'
    output = tool('export.py', runs.job.config, f'{runs.linear}/epoch_2.pth', out, fails=True)
    assert "export: a checkpoint must hold the model's prompts" in output
    assert 'has no prompts.tokens:' in ' '.join(output.split())
    output = tool('export.py', runs.job.config, f'{runs.shallow}/epoch_2.pth', out, '--cfg-options',
                  'model.backbone.prompts.type=mmspt.GatedPrompts', fails=True)
    assert 'has no prompts.gate_logits, prompts.temperatures:' in ' '.join(output.split())
    output = tool('export.py', runs.job.config, f'{runs.spt}/epoch_2.pth', out, '--cfg-options',
                  'model.head.num_classes=5', fails=True)
    assert 'export: a checkpoint must fit its config' in output
    output = tool('export.py', runs.job.config, tmp_path / 'absent.pth', out, fails=True)
    assert 'export: ' in output and 'Traceback' not in output
    assert not out.exists()
