"""Give a checkpoint's weights the model's shapes and places, or refuse them."""
import math
import re
from collections.abc import Iterable, Mapping

import torch
from mmengine.logging import MMLogger
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from .layouts import PLAIN, StateDict, other_network

ARGUMENTS = (
    (r'\.gamma[12]\.weight$', 'layer_scale_init_value=1e-5', 'layer_scale_init_value=0'),
    (r'^pre_norm\.', 'pre_norm=True', 'pre_norm=False'),
    (r'\.attn\.qkv\.bias$', 'qkv_bias=True', 'qkv_bias=False'),
    (r'^register_tokens$', 'num_registers to their number', 'num_registers=0'),
    (r'^patch_embed\.projection\.bias$', 'patch_cfg=dict(bias=True)', 'patch_cfg=dict(bias=False)'),
    (r'\.ffn\.w(12|3)\.', "layer_cfgs=dict(ffn_type='swiglu_fused')", "layer_cfgs=dict(ffn_type='origin')"),
    (r'^prompts\.', '`num_prompts`, or `prompts` to the method that was tuned', None),
    (r'^cls_token$', None, "with_cls_token=False and out_type='avg_featmap'"),
    (r'^ln[12]\.', None, "final_norm=False (out_type='avg_featmap' if the checkpoint has fc_norm)"),
)
"""Weights, and the arguments of the network that has them, and of the one that has not."""


def refuse_other_networks(encoder: StateDict, reads: set[str]) -> None:
    """Raise ValueError for weights of a network of another kind; ``reads`` are the names of the model's parameters."""
    other = other_network([key for key in encoder if key not in reads])
    if other is not None:
        raise other


def arguments(names: Iterable[str], present: bool) -> tuple[list[str], list[str]]:
    """Find the arguments that give a network some weights, or leave them out.

    Args:
        names (Iterable[str]): Of the weights.
        present (bool): Whether the network shall have them.

    Returns:
        tuple[list[str], list[str]]: The arguments, and the names of the weights that no argument is for.
    """
    found, rest = [], []
    for name in names:
        matches = [pair[not present] for pattern, *pair in ARGUMENTS if re.search(pattern, name)]
        if matches and matches[0]:
            found.append(matches[0])
        else:
            rest.append(name)
    return list(dict.fromkeys(found)), rest


def place_final_norm(encoder: StateDict, reads: set[str]) -> StateDict:
    """Bring the encoder's final norm to where the head reads it.

    MMPretrain applies ``ln2`` to the mean of the patch tokens (``out_type='avg_featmap'``), while every
    pre-training calls its only final norm ``ln1`` / ``norm``.

    Args:
        encoder (dict[str, Tensor]): Weights named as MMPretrain does.
        reads (set[str]): Names of the model's parameters.

    Returns:
        dict[str, Tensor]: The same; ``ln1`` moved to ``ln2``, or dropped if the model has no final norm.
    """
    has_ln1, has_ln2 = 'ln1.weight' in reads, 'ln2.weight' in reads
    if has_ln2 and not has_ln1 and 'ln2.weight' not in encoder:
        return {re.sub(r'^ln1\.', 'ln2.', key): value for key, value in encoder.items()}
    return {key: value for key, value in encoder.items()
            if (has_ln1 or not key.startswith('ln1.')) and (has_ln2 or not key.startswith('ln2.'))}


def fit_position(encoder: StateDict, grid: tuple[int, int], with_cls_token: bool,
                 mode: str) -> tuple[StateDict, Tensor | None]:
    """Give ``pos_embed`` (1, [1 +] h*w, D) the model's grid, and a row for CLS exactly if the model has CLS.

    A grid of as many patches as the model's is taken to be the model's; another one must be square to be resized,
    in fp32 at least: rounded to half precision once more, it would be another position embedding.
    timm's ``no_embed_class`` models add no position to CLS, which a row of zeros says equally.

    Args:
        encoder (dict[str, Tensor]): Weights named as MMPretrain does.
        grid (tuple[int, int]): The model's patches, (h, w).
        with_cls_token (bool): Whether the model has CLS.
        mode (str): Interpolation, as for :func:`torch.nn.functional.interpolate`.

    Returns:
        tuple[dict[str, Tensor], Tensor | None]: The same with ``pos_embed`` fitted, and without ``cls_token`` if the
        model has none; and what was resized, with a row for CLS if the model has CLS, None if nothing was.

    Raises:
        ValueError: A grid that is neither the model's nor square.
    """
    encoder, resized = dict(encoder), None
    pos_embed, patches = encoder.get('pos_embed'), math.prod(grid)
    if pos_embed is not None and pos_embed.ndim == 3:
        rows = pos_embed.shape[1]
        cls_row = rows - 1 == patches or ('cls_token' in encoder and _is_square(rows - 1))
        cls = pos_embed[:, :1] if cls_row else torch.zeros_like(pos_embed[:, :1])
        pos_embed = pos_embed[:, 1:] if cls_row else pos_embed
        if pos_embed.shape[1] != patches:
            if not _is_square(pos_embed.shape[1]):
                raise ValueError(
                    f'a position embedding can be resized if its grid is square, but the checkpoint has {rows} rows, '
                    f'the backbone {grid[0]} x {grid[1]} patches: set `img_size` (and with_cls_token) to what was '
                    'pre-trained')
            side = math.isqrt(pos_embed.shape[1])
            MMLogger.get_current_instance().info(f'Position embedding resized from {side} x {side} to {grid[0]} x '
                                                 f'{grid[1]} patches.')
            resized = torch.cat((cls, pos_embed), dim=1) if with_cls_token else pos_embed
            if pos_embed.is_floating_point() and pos_embed.element_size() < 4:
                pos_embed = pos_embed.float()
            pos_embed = resize_pos_embed(pos_embed, (side, side), grid, mode, num_extra_tokens=0)
        elif _is_square(patches) and grid[0] != grid[1]:
            MMLogger.get_current_instance().warning(
                f'The position embedding is taken to be of {grid[0]} x {grid[1]} patches, as the backbone; if it was '
                f'pre-trained on {math.isqrt(patches)} x {math.isqrt(patches)}, set `img_size` to that.')
        encoder['pos_embed'] = torch.cat((cls, pos_embed), dim=1) if with_cls_token else pos_embed
    if not with_cls_token:
        encoder.pop('cls_token', None)
    return encoder, resized


def _is_square(number: int) -> bool:
    return math.isqrt(number)**2 == number


def check_fit(encoder: StateDict, model: Mapping[str, Tensor], num_layers: int) -> None:
    """Refuse weights of another architecture, which MMEngine would only log.

    Args:
        encoder (dict[str, Tensor]): Weights named as MMPretrain does.
        model (Mapping[str, Tensor]): The model's own state.
        num_layers (int): The model's number of blocks.

    Raises:
        ValueError: Another number of blocks, another shape, keys that the model does not have, or values that are
            complex or not finite.
    """
    blocks = [re.match(r'layers\.([0-9]{1,6})\.', key) for key in encoder]
    depth = 1 + max((int(block[1]) for block in blocks if block), default=-1)
    if depth not in (0, num_layers):
        raise ValueError(f'a checkpoint must have as many blocks as the backbone: it has {depth}, the backbone '
                         f'{num_layers}. Set `arch` (or arch.num_layers) to what was pre-trained')
    wrong = [f'{key} is {tuple(value.shape)}, the backbone needs {tuple(model[key].shape)}'
             for key, value in encoder.items() if key in model and value.shape != model[key].shape]
    if wrong:
        raise ValueError(f'a checkpoint must have the shapes of the backbone: {_some(wrong)}. Set {_remedy(wrong)} to '
                         'what was pre-trained')
    unknown = [key for key in encoder if key not in model]
    if unknown:
        remedy, rest = arguments(unknown, True)
        raise ValueError(f'a checkpoint must hold nothing that the backbone would leave out: it has {_some(unknown)}. '
                         + (f'No argument creates {_some(rest, 2)}, it is another network: use {PLAIN}' if rest else
                            f'Set {", ".join(remedy)}'))
    odd = [f'{key} is {value.dtype}' for key, value in encoder.items() if value.is_complex()]
    if odd:
        raise ValueError(f'weights must be real numbers: {_some(odd)}. Use another checkpoint')
    broken = [key for key, value in encoder.items() if value.is_floating_point() and not _is_finite(value)]
    if broken:
        raise ValueError(f'weights must be finite: {_some(broken)} hold NaN or infinity. The file is damaged or its '
                         'training diverged: use another checkpoint')


def _is_finite(value: Tensor) -> bool:
    if value.element_size() == 1:
        value = value.float()  # torch compares no 8-bit floats
    return bool(value.isfinite().all())


def _remedy(wrong: list[str]) -> str:
    if any(line.startswith('prompts') for line in wrong):
        return '`num_prompts` and `prompt_type` (or `prompts`)'
    if all(line.startswith('register_tokens') for line in wrong):
        return '`num_registers`'
    if all('.ffn.' in line for line in wrong):
        return '`arch` (its feedforward_channels)'
    if any(line.startswith('patch_embed.projection.bias') for line in wrong) or not wrong[0].startswith('patch_embed'):
        return '`arch` (its width)'
    return '`patch_size` (and `in_channels`)'


def _some(items: list[str], most: int = 6) -> str:
    return ', '.join(items[:most]) + (f', ... ({len(items)} in all)' if len(items) > most else '')
