"""The frozen backbone that packs share: find it, load it, check it, merge it with a pack."""
import os.path as osp
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import torch

from mmspt.checkpoint_loaders import load_file
from mmspt.hub import is_address
from mmspt.models import PromptedViT
from mmspt.models.backbones.prompted_vit import FOLDED, OLD_NAMES
from mmspt.models.backbones.reading import KEY as READING
from mmspt.models.weights.fingerprint import to_hex
from mmspt.models.weights.layouts import find_encoder
from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS

from .architecture import Architecture
from .pack import Pack


def find_source(packs: Iterable[Pack]) -> str | None:
    """Return the address from which the backbone of packs can be fetched; None if they name none, or several.

    A repository on the hub, or the address of a public checkpoint whose MD5 is known: no file of this machine is
    opened because a pack names it, and what is fetched must have the packs' fingerprint.
    """
    named = {pack.checkpoint for pack in packs}
    checkpoint = named.pop() if len(named) == 1 else ''
    if is_address(checkpoint):
        return checkpoint
    public = PUBLIC_CHECKPOINTS.get(osp.basename(checkpoint))
    known = public and public.md5 and (checkpoint == public.url or '/' not in checkpoint)
    return public.url if public and known else None


def load_backbone(architecture: Architecture, checkpoint: str) -> PromptedViT:
    """Build a pack's backbone, frozen, in eval mode and without prompts, and load its checkpoint.

    Args:
        architecture (Architecture): Of a pack.
        checkpoint (str): Path or address, in any layout of :mod:`mmspt.models.weights.layouts`.

    Raises:
        FileNotFoundError, RuntimeError: The checkpoint cannot be read.
        ValueError: It is of another architecture.
    """
    encoder = find_encoder(load_file(checkpoint))
    if encoder is None:
        raise ValueError("a backbone's checkpoint must hold a ViT in a layout that mmspt/models/weights/layouts.py "
                         f"lists, but '{checkpoint}' does not: name the one that the pack was tuned on")
    vit = replace(architecture, num_prompts=0, prompt_type='deep').build()
    try:  # of a whole tuned checkpoint, the frozen weights alone
        vit.load_state_dict({name: value for name, value in encoder.items()
                             if not vit.is_learnable(OLD_NAMES.get(name, name))})
        vit.check_weights()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"a pack's backbone must fit its checkpoint, but '{checkpoint}' does not ({error!s:.500}): "
                         'name the one that the pack was tuned on') from error
    return vit.eval()


def check_backbone(pack: Pack, vit: PromptedViT, name: str = 'the pack') -> None:
    """Raise ValueError, with both fingerprints, if a backbone is not the one that a pack was tuned on."""
    own = vit.fingerprint()
    if not torch.equal(own, pack.fingerprint):
        hint = f' (it names {pack.checkpoint!r})' if pack.checkpoint else ''
        raise ValueError(f'{name} was tuned on the frozen backbone of fingerprint {to_hex(pack.fingerprint)}, and fits '
                         f'no other; this one has {to_hex(own)}. Give the checkpoint that it was tuned on{hint}')


def merge(pack: Pack, checkpoint: str) -> dict[str, Any]:
    """Merge a pack and its backbone's checkpoint, see :func:`load_backbone` and :func:`check_backbone`.

    Returns:
        dict: An MMPretrain checkpoint of an ``ImageClassifier``: ``state_dict`` with every weight in fp32, and ``meta``
        with the class names.
    """
    vit = load_backbone(pack.backbone, checkpoint)
    check_backbone(pack, vit)
    weights = {f'backbone.{name}': value for name, value in vit.state_dict().items()}
    tuned = pack.tuned_weights()
    if pack.logit_scale is None and pack.gate is None:  # prompt tokens alone, under the name that they are tuned by
        tuned = {'backbone.prompts.tokens' if name == f'backbone.{FOLDED}tokens' else name: value
                 for name, value in tuned.items() if name != f'backbone.{READING}'}
    tuned = {name: value.float() if value.is_floating_point() else value for name, value in tuned.items()}
    return dict(state_dict=weights | tuned, meta=dict(
        dataset_meta=dict(classes=pack.classes), preprocessing=asdict(pack.preprocessing)))
