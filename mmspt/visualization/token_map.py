"""A map of each block's patch tokens, and of its prompts before and after tuning."""
import math
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.progress import track
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from mmspt.prompts.tokens import collect_tokens

from .choices import choose
from .images import stream_images
from .picture import Picture, styled
from .run_folder import RunFolder

MOST_LAYERS, MOST_IMAGES = 6, 200
REACH = 1.5
"""Prompts farther from the patches' middle than this, in half extents of the patches, are drawn on a frame."""
KINDS = {'patch': ('patch tokens', '0.62', 'o', 5), 'initial': ('prompts before tuning', 'C0', 'o', 62),
         'tuned': ('prompts after tuning', 'C1', 's', 24)}
"""Kind -> name, colour, marker, size; a prompt that hardly moved still shows twice."""
Map = tuple[np.ndarray, tuple[str, str]]
"""Points in two dimensions, (patches, initial and tuned prompts, 2), and the labels of the axes."""


def pca(patches: np.ndarray, prompts: np.ndarray, seed: int) -> Map:
    """Project onto the plane of the patches' largest variance; the prompts have no part in choosing it."""
    model = PCA(2, svd_solver='full').fit(patches)
    first, second = (f'PC {i} ({share:.0%} of variance)' for i, share in enumerate(model.explained_variance_ratio_, 1))
    return model.transform(np.concatenate((patches, prompts))), (first, second)


def tsne(patches: np.ndarray, prompts: np.ndarray, seed: int) -> Map:
    """Embed patches and prompts together by t-SNE."""
    tokens = np.concatenate((patches, prompts))
    model = TSNE(2, perplexity=min(30., (len(tokens) - 1) / 3), init='pca', random_state=seed % 2**32)
    return model.fit_transform(tokens), ('t-SNE 1 (no unit)', 't-SNE 2 (no unit)')


METHODS: dict[str, tuple[Callable[[np.ndarray, np.ndarray, int], Map], str]] = dict(
    pca=(pca, "The plane is that of the patches' largest variance; distances off it are not seen."),
    tsne=(tsne, 'Only neighbourhood has a meaning, not the distances between groups.'))
"""Method -> its function ((patches (N, D), prompts (M, D), seed) -> map of both, in this order), and how to read it."""


def draw_token_map(run: RunFolder, layers: Sequence[int] | None = None, method: str = 'pca',
                   num_tokens: int = 2000) -> Picture:
    """Draw a sample of patch tokens E_{i-1} and the prompts P_{i-1} of blocks i, a panel a block.

    Tokens are taken as in :func:`.draw_prototypes`, from up to 200 images.

    Args:
        run (RunFolder): A run with prompts.
        layers (Sequence[int] | None): Numbers of the blocks, 1..L; None is all, or six spread evenly.
        method (str): One of METHODS.
        num_tokens (int): Patch tokens a block, at most.

    Raises:
        OSError, ValueError: An option out of its range, no prompts, or the data are missing.
    """
    if method not in METHODS:
        raise ValueError(f'method must be one of {", ".join(METHODS)}, got {method!r}')
    if num_tokens < 2:
        raise ValueError(f'num_tokens must be at least 2, got {num_tokens!r}')
    project, how_to_read = METHODS[method]
    layers = choose('layers with prompts of their own', layers, len(run.tuned_prompts), MOST_LAYERS)
    images = run.sample_images(min(MOST_IMAGES, num_tokens))
    tokens = collect_tokens(stream_images(run, images, 'tokens'), run.backbone.patch_tokens, len(images), max(layers),
                            num_tokens // len(images), run.seed)  # (L, images, kept, D)
    maps, num_prompts = {}, run.tuned_prompts.shape[1]
    for layer in track(layers, f'{method}: blocks', transient=True):
        prompts = torch.cat((run.initial_prompts[layer - 1], run.tuned_prompts[layer - 1])).double()
        points, labels = project(tokens[layer - 1].flatten(0, 1).double().numpy(), prompts.numpy(), run.seed)
        maps[layer] = dict(zip(KINDS, np.split(points, [-2 * num_prompts, -num_prompts]), strict=True)), labels
    rows = math.ceil(len(maps) / 3)
    columns = math.ceil(len(maps) / rows)
    outside = 0
    with styled():
        figure = Figure(figsize=(max(4.2 * columns, 7.), 4. * rows + 0.5))
        panels = figure.subplots(rows, columns, squeeze=False, gridspec_kw=dict(hspace=0.06, wspace=0.06)).ravel()
        for axes, (layer, (parts, labels)) in zip(panels, maps.items(), strict=False):
            axes.set(xlabel=labels[0], ylabel=labels[1])
            count = _draw_panel(axes, parts)
            axes.set_title(f'block {layer}' + (f', {count} prompts outside' if count else ''))
            outside += count
        for axes in panels[len(maps):]:
            axes.axis('off')
        legend = figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
        for handle in legend.legend_handles:
            cast(PathCollection, handle).set_sizes([40])
        figure.suptitle(run.label, fontsize='medium')
    far = (f' {outside} prompts lie so far out that they stand, hollow, on a dotted frame, in their direction from '
           "the patches' middle; the CSV tells where they are.") if outside else ''
    caption = (f'{run.label}: {tokens.shape[1] * tokens.shape[2]:,} patch tokens of {len(images):,} training images, '
               'as the frozen network without prompts hands them to each block, and the prompts of the block; a line '
               f'joins a prompt before and after tuning. {how_to_read}{far}')
    numbers = [(layer, kind, number, float(x), float(y)) for layer, (parts, _) in maps.items()
               for kind, points in parts.items() for number, (x, y) in enumerate(points, 1)]
    return Picture(f'tokens_{method}', 'Patch tokens and prompts', caption, figure,
                   ('layer', 'kind', 'number', 'x', 'y'), numbers)


def pull_in(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move points (N, 2) outside of a box onto its rim, towards its middle; return them and (N,) which moved."""
    middle, half = (low + high) / 2, (high - low) / 2
    excess = np.abs((points - middle) / half).max(axis=1)
    return middle + (points - middle) / np.maximum(excess, 1.)[:, None], excess > 1


def _draw_panel(axes: Axes, parts: dict[str, np.ndarray]) -> int:
    """Draw one block; return how many prompts, before and after, stand on a frame."""
    near, far = parts['patch'].min(axis=0), parts['patch'].max(axis=0)
    middle, half = (near + far) / 2, np.maximum(far - near, 1e-9) / 2
    low, high = middle - REACH * half, middle + REACH * half
    placed = {kind: pull_in(parts[kind], low, high) for kind in KINDS}
    for before, after in zip(placed['initial'][0], placed['tuned'][0], strict=True):
        axes.plot(*zip(before, after, strict=True), color='0.25', linewidth=0.7, marker='', zorder=1.5)
    for kind, (name, colour, marker, size) in KINDS.items():
        (x, y), out, is_patch = placed[kind][0].T, placed[kind][1], kind == 'patch'
        axes.scatter(x[~out], y[~out], s=size, c=colour, marker=marker, label=name, linewidths=0 if is_patch else 0.6,
                     edgecolors='white', zorder=1 if is_patch else 3, rasterized=is_patch)
        axes.scatter(x[out], y[out], s=size, facecolors='white', edgecolors=colour, marker=marker, linewidths=1.4,
                     zorder=3)
    axes.set_aspect('equal', adjustable='datalim')  # a distance is one in every direction
    axes.locator_params(nbins=5)
    count = sum(int(out.sum()) for _, out in placed.values())
    if count:
        axes.add_patch(Rectangle(low, *(high - low), fill=False, linestyle=':', edgecolor='0.4'))
    return count
