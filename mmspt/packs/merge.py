"""Merge a pack and its backbone."""
from typing import Any

from mmspt.models.backbones.prompted_vit import FOLDED
from mmspt.models.backbones.reading import KEY as READING

from .backbone import check_backbone, load_backbone
from .pack import Pack


def merge(pack: Pack, checkpoint: str) -> dict[str, Any]:
    """Merge a pack into its backbone.

    Args:
        pack (Pack): Prompts and head.
        checkpoint (str): Path or address of its backbone's checkpoint.

    Returns:
        dict: An MMPretrain checkpoint of an ``ImageClassifier``: ``state_dict`` with every weight in fp32, and ``meta``
        with the class names.

    Raises:
        FileNotFoundError, RuntimeError: The checkpoint cannot be read.
        ValueError: It is another backbone.
    """
    vit = load_backbone(pack.backbone, checkpoint)
    check_backbone(pack, vit)
    weights = {f'backbone.{name}': value for name, value in vit.state_dict().items()}
    tuned = pack.tuned_weights()
    if pack.logit_scale is None and pack.gate is None:  # prompt tokens alone, under the name that they are tuned by
        tuned = {'backbone.prompts.tokens' if name == f'backbone.{FOLDED}tokens' else name: value
                 for name, value in tuned.items() if name != f'backbone.{READING}'}
    tuned = {name: value.float() if value.is_floating_point() else value for name, value in tuned.items()}
    return dict(state_dict=weights | tuned, meta=dict(dataset_meta=dict(classes=pack.classes)))
