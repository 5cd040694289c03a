"""The model index says of every recipe what the recipe says, and MMPretrain and MMEngine find it."""
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmpretrain import ImageClassificationInferencer, get_model, inference_model, list_models
from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load as load_index

from helpers import ROOT, environment, load_tool
from mmspt.evaluation.published import PUBLISHED
from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS
from mmspt.quickstart.encoder import FILE

FOLDERS = ('spt', 'vpt', 'linear', 'finetune', 'gatevpt', 'vipamin', 'bpt')
INDEX = load_index(str(ROOT / 'model-index.yml'))
ENTRIES = {model.name: model for model in INDEX.models}
RECIPES = {name: model.config for name, model in ENTRIES.items()}


def test_each_entry_is_named_after_its_recipe():
    """`test_configs.py` compares the entries with the recipes that there should be."""
    for name, path in RECIPES.items():
        _, folder, file = path.split('/')
        assert (ROOT / path).is_file() and name == f'{folder}_{file.removesuffix(".py")}' and folder in FOLDERS
    assert len(INDEX.models.models) == len(ENTRIES)
    assert all(not model.check_errors for model in INDEX.models)


@pytest.mark.parametrize('folder', [
    pytest.param(folder, marks=pytest.mark.slow if folder == 'spt' else ()) for folder in FOLDERS])
def test_metafiles_are_current(folder):
    """Otherwise run tools/metafiles.py."""
    content = yaml.safe_load((ROOT / f'configs/{folder}/metafile.yml').read_text())
    collection, = content['Collections']
    models = content['Models']
    describe = load_tool('metafiles').describe
    assert models == [describe(ROOT / model['Config'], collection['Name'], {}) for model in models]


def test_backbones_are_fetched_or_lie_here():
    files = {model.data['Backbone']['File'] for model in INDEX.models if 'Backbone' in model.data}
    hub = {file for file in files if file.startswith('hf://')}
    assert files - hub - {'vit-xs_mae_digits.safetensors', FILE} == set(PUBLIC_CHECKPOINTS)
    assert all(re.fullmatch(r'hf://(facebook|openai)/[\w-]+', file) for file in hub)
    assert (ROOT / 'configs/pretrain/vit-xs_mae_digits.safetensors').is_file()


def test_metrics_are_published():
    """One number in the index is an accuracy: the mean of three seeds, from the README of the authors' code."""
    values, = (row.values for row in PUBLISHED if (row.method, row.pretraining, row.task, row.source) == (
        'SPT-Deep', 'MAE', 'cub', 'SPT code'))
    metrics = {name: result.metrics for name, model in ENTRIES.items() for result in model.results if result.metrics}
    assert metrics == {'spt_vit-b_mae_cub': {'Top 1 Accuracy': round(float(np.mean(values)), 2)}}


# -------------------------------------------------------------------------------------------- MMPretrain


def test_mmpretrain_lists_them_beside_its_own():
    assert set(RECIPES) <= set(list_models())
    assert set(list_models('spt_*')) == {name for name in RECIPES if name.startswith('spt_')}
    assert set(RECIPES) <= set(list_models(task='Image Classification'))
    assert len(list_models('resnet*')) > 10 and ModelHub.has('spt_vit-b_mae_cub')


def test_get_model_and_inferencers(tmp_path):
    """A tuned checkpoint gives the same scores by every way in, those of resizing, normalizing and one pass by hand."""
    options = dict(backbone=dict(num_prompts=5), head=dict(num_classes=3))
    model = get_model('spt_vit-xs_mae_digits', **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    checkpoint = str(tmp_path / 'tuned.pth')
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=('a', 'b', 'c')))), checkpoint)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    resized = cv2.resize(image, (16, 16), interpolation=cv2.INTER_CUBIC)[..., ::-1].copy()
    with torch.no_grad():
        features = model.extract_feat((torch.from_numpy(resized).permute(2, 0, 1)[None] - 127.5) / 127.5)
        expected = model.head.fc(features[-1]).softmax(1)[0].numpy()
    loaded = get_model('spt_vit-xs_mae_digits', pretrained=checkpoint, **options)
    inferencer = ImageClassificationInferencer('spt_vit-xs_mae_digits', pretrained=checkpoint, **options)
    for result in (inference_model(loaded, image), *inferencer(image)):
        np.testing.assert_allclose(result['pred_scores'], expected, rtol=1e-4)
        assert result['pred_class'] == 'abc'[expected.argmax()]


# ---------------------------------------------------------------------------------------------- import


def run(code, cwd, **variables):
    return subprocess.run([sys.executable, '-c', code], env=environment() | variables, cwd=cwd, capture_output=True,
                          text=True, check=True).stdout


@pytest.mark.parametrize('code', [
    pytest.param('import mmspt', marks=pytest.mark.slow), 'import mmpretrain; mmpretrain.list_models(); import mmspt'])
def test_in_every_order_of_imports(code, tmp_path):
    code += '\nfrom mmpretrain import list_models; print(len(list_models("spt_*")))'
    assert int(run(code, tmp_path)) == sum(name.startswith('spt_') for name in RECIPES)
