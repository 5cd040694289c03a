"""The public checkpoints that the recipes name, by their file names.

MD5, the first digits as published; addresses from the same tables:

* MAE: README of its authors' code, https://github.com/facebookresearch/mae at 1e4b9e4.
* MoCo-v3: README of Visual Prompt Tuning, https://github.com/KMnP/vpt at 4410440 (its authors' own README,
  https://github.com/facebookresearch/moco-v3, gives none).
* Supervised: timm's file is called ``model.safetensors`` where it is published and has no published MD5, so it is not
  fetched: what it would be compared with is not known.

``tools/metafiles.py`` repeats addresses and hashes in ``configs/*/metafile.yml``, for people and other software.
"""
from typing import NamedTuple


class PublicCheckpoint(NamedTuple):
    """Where a file is, and how it is known to be the right one."""
    url: str
    md5: str | None
    """The first digits; None if they were not published."""


PUBLIC_CHECKPOINTS = {
    'mae_pretrain_vit_base.pth': PublicCheckpoint(
        'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth', '8cad7c'),
    'mae_pretrain_vit_large.pth': PublicCheckpoint(
        'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_large.pth', 'b8b06e'),
    'mae_pretrain_vit_huge.pth': PublicCheckpoint(
        'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_huge.pth', '9bdbb0'),
    'linear-vit-b-300ep.pth.tar': PublicCheckpoint(
        'https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/linear-vit-b-300ep.pth.tar', '8f39ce'),
    'vit_base_patch16_224.augreg_in21k.safetensors': PublicCheckpoint(
        'https://huggingface.co/timm/vit_base_patch16_224.augreg_in21k/resolve/main/model.safetensors', None),
}
