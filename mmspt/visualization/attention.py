"""Where CLS and each prompt look in an image, or which patches read them, block by block."""
import os.path as osp
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from torch import Tensor

from mmspt.models import PromptedViT
from mmspt.models.layers.attention_maps import attention_maps

from .choices import choose
from .images import ITEM, load_item, preprocess, to_pixels
from .picture import Picture, label_log_axis, styled
from .run_folder import RunFolder

MOST_LAYERS, MOST_PROMPTS = 6, 8
LEVELS = (0.35, 0.65)
"""Quantiles of the image's lightness at which its outlines are drawn over the heat."""
DIRECTIONS = dict(
    looks=('Where the prompts look',
           'how CLS and the prompts share their attention among the patches (row of a softmax)'),
    read=('Which patches read the prompts',
          "the weight that each patch's query puts on the key of CLS or of a prompt (column of a softmax)"))


def draw_attention(run: RunFolder, image: str, layers: Sequence[int] | None = None,
                   prompts: Sequence[int] | None = None, direction: str = 'looks') -> Picture:
    """Draw the image that the network saw and, block by block, the patches that CLS and prompts look at or feed.

    The numbers hold all blocks, CLS and all prompts, even if few are drawn.

    Args:
        run (RunFolder): A run with prompts and a checkpoint.
        image (str): See :func:`.load_item`.
        layers, prompts (Sequence[int] | None): Numbers, from 1; None is all, or 6 blocks and 8 prompts, evenly spread.
        direction (str): One of DIRECTIONS.

    Raises:
        OSError, ValueError: No such image, block, prompt or direction; no prompts; no checkpoint.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f'direction must be one of {tuple(DIRECTIONS)}, got {direction!r}')
    backbone = run.backbone
    layers = choose('layers', layers, len(backbone.layers), MOST_LAYERS)
    prompts = choose('prompts', prompts, backbone.num_prompts, MOST_PROMPTS)
    inputs = preprocess([load_item(run, image)], run.model.data_preprocessor)
    n, behind = backbone.num_extra_tokens, backbone.num_extra_tokens + backbone.num_prompts
    maps = (attention_maps(layer, read.tokens, read.prompts, n, read.logit_scale)
            for layer, read in zip(backbone.layers, backbone.block_inputs(inputs), strict=True))
    # mean over heads: (L, queries, keys), both [CLS; prompts; patches], n + N_p + N_e
    weights = torch.stack([block.mean((0, 1)).cpu() for block in maps])
    if direction == 'read':
        weights = weights.transpose(1, 2)  # (L, read, by)
    with torch.no_grad():
        grid = backbone.patch_embed(inputs)[1]  # (h, w)
    before = ['CLS'] * (backbone.cls_token is not None)
    before += [f'register {i}' for i in range(1, backbone.num_registers + 1)]
    names = before + [f'prompt {i}' for i in range(1, backbone.num_prompts + 1)]
    shown = [*range(n - backbone.num_registers), *(n + i - 1 for i in prompts)]
    chosen = weights[[layer - 1 for layer in layers]][:, shown, behind:].unflatten(-1, grid)  # (rows, columns, h, w)
    figure = _draw(to_pixels(inputs, run.model.data_preprocessor)[0].numpy(), (chosen * weights.shape[-1]).numpy(),
                   [f'block {layer}' for layer in layers], [names[i] for i in shown])
    figure.suptitle(f'{run.label}: {DIRECTIONS[direction][0].lower()}', fontsize='medium')
    stem = image if ITEM.fullmatch(image) else osp.splitext(osp.basename(image))[0]
    name = 'attention_' + re.sub(r'[^\w-]+', '_', stem) + '_read' * (direction == 'read')
    caption = f"{run.label}, image '{image}': {_explain(backbone, direction, grid)}"
    return Picture(name, f'{DIRECTIONS[direction][0]}: {image}', caption, figure,
                   *_table(weights, names, n, grid, direction))


def _explain(backbone: PromptedViT, direction: str, grid: tuple[int, int]) -> str:
    """Say what the weights are, their unit, and which of them do not act in this model."""
    note = ''
    if direction == 'looks' and backbone.prompt_type == 'deep':
        pooled = backbone.out_type == 'avg_featmap' and backbone.pool_prompts
        note = (' The network never asks with its prompts' + ', but in the last block, where their outputs are pooled'
                * pooled + ': this is what they would look at.')
    if direction == 'looks' and backbone.out_type == 'avg_featmap':
        note += ' The output of CLS in the last block is not used.'
    elif direction == 'read' and backbone.out_type == 'cls_token':
        note = ' In the last block the reading of the patches is not used: the output is CLS alone.'
    tokens = backbone.num_extra_tokens + backbone.num_prompts + grid[0] * grid[1]
    before = 'CLS, ' * (backbone.cls_token is not None)
    before += f'{backbone.num_registers} registers, ' if backbone.num_registers else ''
    return (f'{DIRECTIONS[direction][1]}.{note} Mean over {backbone.layers[0].attn.num_heads} heads, as a multiple of '
            f'1/{tokens}, the weight of each token if all ({before}{backbone.num_prompts} '
            f'prompts, {grid[0]} x {grid[1]} patches) had the same. The image is what the network saw; '
            'thin lines over the heat are its outlines, of its darker (black) and lighter parts (white).')


def _draw(pixels: np.ndarray, maps: np.ndarray, rows: list[str], columns: list[str]) -> Figure:
    """Image (H, W, 3) and maps (rows, columns, h, w), multiples of uniform attention, as a table of panels."""
    low, high = np.quantile(maps, (0.05, 0.995))
    high = max(float(high), 2.)  # a scale with room on both sides of 1, and above 0
    low = max(min(float(low), 0.5), high / 1000)
    norm = LogNorm(low, high, clip=True)
    height, width = pixels.shape[:2]
    smooth = gaussian_filter(pixels.mean(axis=-1), [height / maps.shape[2] / 2, width / maps.shape[3] / 2])
    levels = sorted(set(np.quantile(smooth, LEVELS))) if np.ptp(smooth) > 0.02 else []
    with styled():
        figure = Figure(figsize=(1.15 * (1 + len(columns)) + 1.4, max(1.15 * height / width * len(rows) + 0.5, 3.)))
        panels = figure.subplots(len(rows), 1 + len(columns), squeeze=False)
        for i, line in enumerate(panels):
            line[0].imshow(pixels)
            line[0].set_ylabel(rows[i])
            for axes, table in zip(line[1:], maps[i], strict=True):
                shades = axes.imshow(table, norm=norm, interpolation='nearest',
                                     extent=(-0.5, width - 0.5, height - 0.5, -0.5))
                if levels:
                    axes.contour(smooth, levels, colors=('black', 'white')[:len(levels)], linewidths=0.4,
                                 antialiased=False)  # blended lines make files more than twice as large
        for axes, title in zip(panels[0], ['image', *columns], strict=True):
            axes.set_title(title, fontsize='medium')
        for axes in panels.flat:
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set_visible(False)
        bar = figure.colorbar(shades, ax=panels, extend='both', aspect=30, pad=0.01,
                              label='attention, multiple of uniform')
        label_log_axis(bar.ax.yaxis)
    return figure


def _table(weights: Tensor, names: list[str], n: int, grid: tuple[int, int],
           direction: str) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows, one for each block and CLS or prompt: weights of CLS, all prompts, each patch."""
    by = 'on' if direction == 'looks' else 'by'
    header = ['layer', 'token', *(f'{by} {name}' for name in names[:n]), *['on prompts'] * (direction == 'looks'),
              *(f'{by} patch r{row}c{column}' for row in range(1, grid[0] + 1) for column in range(1, grid[1] + 1))]
    prompts, patches = weights[..., n:len(names)].sum(-1, keepdim=True), weights[..., len(names):]
    parts = [weights[..., :n], prompts, patches] if direction == 'looks' else [weights[..., :n], patches]
    return header, [[layer, name, *row] for layer, block in enumerate(torch.cat(parts, dim=-1).tolist(), 1)
                    for name, row in zip(names, block, strict=False)]  # the patches' own rows are left out
