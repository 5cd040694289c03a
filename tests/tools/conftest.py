"""A user's small job: an image folder with list files, a config of ten lines."""
from types import SimpleNamespace

import pytest

from helpers import ROOT, golden_checkpoint, make_images

CONFIG = """
_base_ = {base!r}
deterministic = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=4, num_heads=4, feedforward_channels=256),
        img_size=32, patch_size=8, num_prompts=5,
        init_cfg=dict(checkpoint={checkpoint!r})),
    head=dict(num_classes=3, in_channels=64))
train_dataloader = dict(batch_size=4, num_workers={workers}, dataset=dict(data_root={data!r}, pipeline=deterministic))
val_dataloader = dict(batch_size=4, num_workers={workers}, dataset=dict(data_root={data!r}, pipeline=deterministic))
test_dataloader = dict(batch_size=4, num_workers={workers}, dataset=dict(data_root={data!r}, pipeline=deterministic))
param_scheduler = dict(warmup=1, end=4)
train_cfg = dict(max_epochs=4, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""


@pytest.fixture
def job(tmp_path):
    """Data of 3 classes, and a config that inherits configs/spt/vit-b_mae_flowers17.py."""
    data = tmp_path / 'data'
    items = make_images(data / 'images', per_class=8)
    for name, keep in (('train', range(0, 4)), ('val', range(4, 6)), ('test', range(6, 8))):
        lines = [f'{path} {label}' for i, (path, label) in enumerate(items) if i % 8 in keep]
        (data / f'{name}.txt').write_text('\n'.join(lines) + '\n')
    config = tmp_path / 'job.py'

    def write(workers=0, base=ROOT / 'configs/spt/vit-b_mae_flowers17.py', extra=''):
        config.write_text(CONFIG.format(base=str(base), checkpoint=golden_checkpoint('mae_deep'), data=str(data),
                                        workers=workers) + extra)

    write()
    return SimpleNamespace(config=str(config), data=data, write=write, root=tmp_path)
