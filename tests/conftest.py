"""What several tests need: golden files, tiny models, image folders, and a quiet, seeded environment."""
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from PIL import Image

import mmspt  # noqa: F401

ROOT = Path(__file__).parents[1]
DATA = ROOT / 'tests' / 'data'
TINY = dict(embed_dims=64, num_layers=4, num_heads=4, feedforward_channels=256)
os.environ.setdefault('OMP_NUM_THREADS', '1')


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Seed, use MMPretrain's scope as every config does, and leave out MMEngine's line for each parameter."""
    torch.manual_seed(0)
    np.random.seed(0)
    monkeypatch.setattr(BaseModule, '_dump_init_info', lambda self: None)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def golden_checkpoint(case: str) -> str:
    """Path of a golden case's checkpoint in FAIR's layout."""
    return str(next(DATA.glob(f'{case}_pretrain.*')))


def tiny_backbone(case: str = 'mae_deep', **kwargs) -> dict:
    """Config of a PromptedViT of the golden cases' size, with the case's checkpoint."""
    ssl, prompt_type = case.split('_')
    outputs = dict(mae=dict(out_type='avg_featmap', final_norm=False), mocov3=dict(out_type='cls_token'))[ssl]
    return dict(type='mmspt.PromptedViT', arch=TINY, img_size=32, patch_size=8, num_prompts=5, prompt_type=prompt_type,
                init_cfg=dict(type='Pretrained', checkpoint=golden_checkpoint(case))) | outputs | kwargs


def make_images(folder: Path, per_class: int, classes: int = 3, size: int = 40, seed: int = 0) -> list[tuple[str, int]]:
    """Write PNGs whose colour tells the class; return (relative path, label)."""
    generator = np.random.default_rng(seed)
    items = []
    for label in range(classes):
        (folder / f'class_{label}').mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            pixels = generator.integers(0, 120, (size, size, 3), dtype=np.uint8)
            pixels[..., label % 3] += 120
            name = f'class_{label}/{i:03d}.png'
            Image.fromarray(pixels).save(folder / name)
            items.append((name, label))
    return items
