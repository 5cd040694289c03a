#!/usr/bin/env python
"""Write what configs/*/metafile.yml and model-index.yml say of the recipes: run it after a recipe was added or changed.

A metafile begins with its collection (paper, code), typed by hand; its models are read from the recipes beside it.
"""
from pathlib import Path
from typing import Any

import torch
import yaml
from mmengine.config import Config

from mmspt.datasets.tasks import TASKS
from mmspt.engine.build import build_model
from mmspt.evaluation.description import identify
from mmspt.evaluation.published import PUBLISHED
from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = {(384, 14): 'ViT-S/14', (768, 14): 'ViT-B/14', (768, 16): 'ViT-B/16', (1024, 14): 'ViT-L/14',
                 (1024, 16): 'ViT-L/16', (1280, 14): 'ViT-H/14', (128, 2): 'ViT-XS/2'}
"""(width, patch size) -> name."""
OTHER_DATA = {'Digits': 'Optical Recognition of Handwritten Digits', 'CustomDataset flowers17': 'Oxford Flowers-17',
              'ImageNet imagenet': 'ImageNet-1k'}
MEASURED = {'spt_vit-b_mae_cub': ('SPT-Deep', 'MAE', 'cub', 'SPT code')}
"""Recipe -> row of the published numbers that it repeats."""
MODELS_BEGIN = '\nModels:\n'


def make_metafiles(root: Path = ROOT) -> dict[Path, str]:
    """Return the content of every metafile and of the model index, by path."""
    paths = sorted(root.glob('configs/*/metafile.yml'))
    index = dict(Import=[str(path.relative_to(root)) for path in paths])
    contents = {root / 'model-index.yml': yaml.safe_dump(index)}
    for path in paths:
        head = path.read_text(encoding='utf-8').partition(MODELS_BEGIN)[0]
        collection = yaml.safe_load(head)['Collections'][0]['Name']
        backbones: dict[str, dict] = {}  # one object for each, which YAML writes once
        entries = [describe(recipe, collection, backbones) for recipe in sorted(path.parent.glob('*.py'))]
        models = yaml.safe_dump(entries, sort_keys=False, default_flow_style=None, width=120)
        contents[path] = f'{head.rstrip()}\n{MODELS_BEGIN}{models}'
    return contents


def describe(recipe: Path, collection: str, backbones: dict[str, dict]) -> dict[str, Any]:
    """Return a recipe's entry of the model index."""
    cfg = Config.fromfile(recipe)
    with torch.device('meta'):
        model = build_model(cfg)
    name = f'{recipe.parent.name}_{recipe.stem}'
    architecture = ARCHITECTURES.get((model.backbone.embed_dims, model.backbone.patch_size[0]), 'custom')
    task, _ = identify(cfg.test_dataloader.dataset)
    data = TASKS[task].name if task in TASKS else OTHER_DATA.get(task, task)
    data = f'VTAB-1k {data}' if task.startswith('vtab_') else data
    if task in TASKS and cfg.model.head.num_classes < TASKS[task].num_classes:
        data = f'{data}, {cfg.model.head.num_classes} of its classes'
    entry: dict[str, Any] = {'Name': name, 'In Collection': collection}
    checkpoint = cfg.model.backbone.init_cfg.checkpoint
    file = checkpoint if '://' in checkpoint else checkpoint.rpartition('/')[2]
    if file:
        url, md5 = PUBLIC_CHECKPOINTS.get(file, (None, None))
        url = file.replace('hf://', 'https://huggingface.co/') if file.startswith('hf://') else url
        backbone = dict(Architecture=architecture, File=file, URL=url, MD5=md5) | {'Pre-training': cfg.pretraining}
        entry['Backbone'] = backbones.setdefault(file, {key: value for key, value in backbone.items() if value})
    values = next((row.values for row in PUBLISHED
                   if (row.method, row.pretraining, row.task, row.source) == MEASURED.get(name)), None)
    metrics = {'Top 1 Accuracy': round(sum(values) / len(values), 2)} if values else {}
    return entry | {
        'Metadata': {'Architecture': [architecture], 'Training Data': data,
                     'Parameters': sum(parameter.numel() for parameter in model.parameters())},
        'Results': [dict(Task='Image Classification', Dataset=data, Metrics=metrics)],
        'Config': f'configs/{recipe.parent.name}/{recipe.name}'}


def main() -> None:
    for path, content in make_metafiles().items():
        path.write_text(content, encoding='utf-8')


if __name__ == '__main__':
    main()
