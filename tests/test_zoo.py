"""The model index says of every recipe what the recipe says, and MMPretrain and MMEngine find it."""
import shutil
import subprocess
import sys

import cv2
import mmengine
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain import ImageClassificationInferencer, get_model, inference_model, list_models
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS
from modelindex.load_model_index import load as load_index
from safetensors.torch import load_file

from helpers import ROOT, environment
from mmspt.datasets.tasks import TASKS, task_of
from mmspt.evaluation.published import PUBLISHED
from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS

FOLDERS = ('spt', 'vpt', 'linear', 'finetune', 'gatevpt', 'vipamin')
COLLECTIONS = dict(spt='SPT', vpt='VPT', linear='Linear probe', finetune='Fine-tuning', gatevpt='GateVPT',
                   vipamin='VIPAMIN')
INDEX = load_index(str(ROOT / 'model-index.yml'))
ENTRIES = {model.name: model for model in INDEX.models}
RECIPES = {name: model.config for name, model in ENTRIES.items()}
# Vision Transformer (arXiv 2010.11929), table 1
WIDTHS = {'ViT-B/16': (768, 16), 'ViT-L/16': (1024, 16), 'ViT-H/14': (1280, 14), 'ViT-XS/2': (128, 2)}
OTHER_DATA = dict(digits='Optical Recognition of Handwritten Digits', flowers17='Oxford Flowers-17',
                  in1k_stock='ImageNet-1k')


def test_each_entry_is_named_after_its_recipe():
    """`test_configs.py` compares the entries with the recipes that there should be."""
    for name, path in RECIPES.items():
        _, folder, file = path.split('/')
        assert (ROOT / path).is_file() and name == f'{folder}_{file.removesuffix(".py")}' and folder in FOLDERS
    assert len(INDEX.models.models) == len(ENTRIES)
    assert all(not model.check_errors for model in INDEX.models)


@pytest.mark.parametrize('folder', FOLDERS)
def test_entries_say_what_the_recipes_say(folder):
    for name, path in RECIPES.items():
        if not name.startswith(f'{folder}_'):
            continue
        cfg, entry = Config.fromfile(ROOT / path), ENTRIES[name]
        with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
            model = MODELS.build(cfg.model)
        metadata, (result, ) = entry.metadata.data, entry.results
        architecture, = metadata['Architecture']
        assert (model.backbone.embed_dims, model.backbone.patch_size[0]) == WIDTHS[architecture], name
        assert metadata['Parameters'] == sum(parameter.numel() for parameter in model.parameters()), name
        task = task_of(cfg.test_dataloader.dataset)
        other = path.removesuffix('.py').removesuffix('_shallow').split('_', 2)[2]
        data = OTHER_DATA[other] if task is None else TASKS[task].name
        if task is not None and task.startswith('vtab_'):
            data = f'VTAB-1k {data}'
        assert metadata['Training Data'] == result.dataset == data, name
        assert result.task == 'Image Classification' and entry.weights is None
        assert entry.in_collection == COLLECTIONS[folder]
        checkpoint = cfg.model.backbone.init_cfg.checkpoint
        backbone = entry.data.get('Backbone', {})
        assert backbone.get('File', '') == checkpoint.split('/')[-1], name
        if checkpoint:
            assert (backbone['Architecture'], backbone['Pre-training']) == (architecture, cfg.pretraining), name


def test_backbones_have_the_addresses_and_hashes_that_are_fetched_by():
    backbones = [model.data['Backbone'] for model in INDEX.models if 'Backbone' in model.data]
    found = {backbone['File']: (backbone.get('URL'), backbone.get('MD5')) for backbone in backbones}
    own = 'vit-xs_mae_digits.safetensors'
    assert found.pop(own) == (None, None) and (ROOT / 'configs' / 'pretrain' / own).is_file()
    assert found == PUBLIC_CHECKPOINTS


def test_metrics_are_published():
    """One number in the index is an accuracy: the mean of three seeds, from the README of the authors' code."""
    values, = (row.values for row in PUBLISHED if (row.method, row.pretraining, row.task) == ('SPT-Deep', 'MAE', 'cub'))
    metrics = {name: result.metrics for name, model in ENTRIES.items() for result in model.results if result.metrics}
    assert metrics == {'spt_vit-b_mae_cub': {'Top 1 Accuracy': round(float(np.mean(values)), 2)}}


@pytest.mark.parametrize(('folder', 'paper', 'code'), [
    ('spt', '2402.02382', 'WangYZ1608/Self-Prompt-Tuning'), ('vpt', '2203.12119', 'KMnP/vpt'),
    ('gatevpt', '2306.05067', 'ryongithub/GatedPromptTuning'), ('vipamin', '2510.16446', 'iamjaekyun/vipamin')])
def test_collections_name_papers_and_code(folder, paper, code):
    model = ENTRIES[f'{folder}_vit-b_mae_cub'].full_model
    assert (model.paper, model.code) == (f'https://arxiv.org/abs/{paper}', f'https://github.com/{code}')


def test_mmengine_can_read_the_index():
    """It takes neither wildcards nor anchors across files: ``Import`` names files, each with ``Models``."""
    for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        assert all(model['Config'] for model in mmengine.load(ROOT / path)['Models'])


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


def test_no_tuned_weights_are_promised():
    with pytest.warns(UserWarning, match='Unable to find pre-defined checkpoint'):
        get_model('linear_vit-xs_mae_digits', pretrained=True)


# ---------------------------------------------------------------------------------------------- import


def run(code, cwd, **variables):
    return subprocess.run([sys.executable, '-c', code], env=environment() | variables, cwd=cwd, capture_output=True,
                          text=True, check=True).stdout


@pytest.mark.parametrize('code', ['import mmspt', 'import mmpretrain; mmpretrain.list_models(); import mmspt'])
def test_in_every_order_of_imports(code, tmp_path):
    code += '\nfrom mmpretrain import list_models; print(len(list_models("spt_*")))'
    assert int(run(code, tmp_path)) == sum(name.startswith('spt_') for name in RECIPES)


# --------------------------------------------------------------------------------------------- MMEngine


@pytest.fixture
def checkout(tmp_path):
    """A source tree with ``mmspt/.mim`` as an editable installation leaves it."""
    shutil.copytree(ROOT / 'mmspt', tmp_path / 'src' / 'mmspt', symlinks=True,
                    ignore=shutil.ignore_patterns('.mim', '__pycache__'))
    (tmp_path / 'src' / 'mmspt' / '.mim').mkdir()
    for name in ('configs', 'model-index.yml'):
        (tmp_path / 'src' / 'mmspt' / '.mim' / name).symlink_to(ROOT / name)
    return tmp_path / 'src'


CHILD = """
import mmspt
from mmengine.config import Config
cfg = Config.fromfile('mine.py')
print(mmspt.__file__)
print(cfg.model.backbone.init_cfg.checkpoint)
cfg.dump('dumped.py')
assert Config.fromfile('dumped.py').to_dict() == cfg.to_dict()
"""


def test_recipes_as_bases_of_other_configs(checkout, tmp_path):
    """The package lies where no metadata is, as after ``pip install -e``."""
    (tmp_path / 'mine.py').write_text("_base_ = 'mmspt::spt/vit-xs_mae_digits.py'\ntrain_cfg = dict(max_epochs=1)\n")
    metadata = tmp_path / 'site' / 'mmspt-0.0.dist-info'
    metadata.mkdir(parents=True)
    (metadata / 'METADATA').write_text('Metadata-Version: 2.1\nName: mmspt\nVersion: 0.0\n')
    (metadata / 'top_level.txt').write_text('mmspt\n')
    path = ':'.join([str(metadata.parent), str(checkout), environment()['PYTHONPATH'].partition(':')[2]])
    package, checkpoint = run(CHILD, tmp_path, PYTHONPATH=path).splitlines()
    assert package == str(checkout / 'mmspt' / '__init__.py')
    assert checkpoint.startswith(str(checkout)) and load_file(checkpoint)
