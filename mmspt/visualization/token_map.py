"""A map of each block's patch tokens, and of its prompts before and after tuning."""
import importlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from mmspt.prompts.tokens import collect_tokens

from .choices import choose_own
from .images import stream_images
from .picture import Picture, styled
from .progress import Track, untracked
from .run_folder import RunFolder

MOST_LAYERS, MOST_IMAGES = 6, 200
REACH = 1.5
"""Prompts are shown where they are as far as this many times the patches' extent from the patches' middle."""
KINDS = {'patch': ('patch tokens', '0.62', 'o', 5), 'initial': ('prompts before tuning', 'C0', 'o', 62),
         'tuned': ('prompts after tuning', 'C1', 's', 24)}
"""Kind -> name, colour, marker, size; a prompt that hardly moved still shows twice."""


class Map(NamedTuple):
    """Tokens in two dimensions."""
    points: np.ndarray
    """(N, 2): patches, initial, tuned prompts."""
    labels: tuple[str, str]
    """Of the axes."""


Projection = Callable[[np.ndarray, np.ndarray], Map]
"""(patches (N, D), prompts (M, D)) -> map of both, in this order."""


def pca(seed: int) -> Projection:
    """The plane of the patches' largest variance; the prompts, which have no part in choosing it, are projected."""
    def project(patches: np.ndarray, prompts: np.ndarray) -> Map:
        model = PCA(2, svd_solver='full').fit(patches)
        first, second = (f'PC {i + 1} ({share:.0%} of variance)' for i, share in enumerate(
            model.explained_variance_ratio_))
        return Map(model.transform(np.concatenate((patches, prompts))), (first, second))
    return project


def tsne(seed: int) -> Projection:
    """t-SNE of patches and prompts together."""
    def project(patches: np.ndarray, prompts: np.ndarray) -> Map:
        tokens = np.concatenate((patches, prompts))
        model = TSNE(2, perplexity=min(30., (len(tokens) - 1) / 3), init='pca', random_state=seed % 2**32)
        return Map(model.fit_transform(tokens), ('t-SNE 1 (no unit)', 't-SNE 2 (no unit)'))
    return project


def umap(seed: int) -> Projection:
    """UMAP of patches and prompts together; ValueError if its package is missing."""
    try:
        package = importlib.import_module('umap')
    except ImportError as error:
        raise ValueError("method='umap' needs the package umap-learn, which is missing: pip install umap-learn, or "
                         "choose 'pca' or 'tsne'") from error

    def project(patches: np.ndarray, prompts: np.ndarray) -> Map:
        tokens = np.concatenate((patches, prompts))
        model = package.UMAP(n_components=2, n_neighbors=min(15, len(tokens) - 1), random_state=seed % 2**32)
        return Map(np.asarray(model.fit_transform(tokens)), ('UMAP 1 (no unit)', 'UMAP 2 (no unit)'))
    return project


METHODS: dict[str, Callable[[int], Projection]] = dict(pca=pca, tsne=tsne, umap=umap)
READING = dict(pca='The plane is that of the patches\' largest variance; what lies off it is not seen.',
               tsne='Only who is near whom has a meaning, not distances between groups.')
READING['umap'] = READING['tsne']


def draw_token_map(run: RunFolder, layers: Sequence[int] | None = None, method: str = 'pca', num_tokens: int = 2000,
                   track: Track = untracked) -> Picture:
    """Draw a sample of patch tokens E_{i-1} and the prompts P_{i-1} of blocks i, a panel a block.

    Tokens are taken as in :func:`mmspt.visualization.prototypes.draw_prototypes`, from up to 200 images.

    Args:
        run (RunFolder): A run with prompts.
        layers (Sequence[int] | None): Numbers of the blocks, 1..L; None is all, or six spread evenly.
            Defaults to None.
        method (str): 'pca', 'tsne' or 'umap' (if umap-learn is installed). Defaults to 'pca'.
        num_tokens (int): Patch tokens a block, at most. Defaults to 2000.
        track (Track): A progress bar. Defaults to none.

    Raises:
        ValueError: An option out of its range, umap-learn is missing, or a run whose prompts cannot be compared.
        OSError: The data are missing.
    """
    if method not in METHODS:
        raise ValueError(f'method must be one of {", ".join(METHODS)}, got {method!r}')
    if num_tokens < 2:
        raise ValueError(f'num_tokens must be at least 2, got {num_tokens!r}')
    project = METHODS[method](run.seed)
    shown = choose_own(run, layers, MOST_LAYERS)
    images = run.sample_images(min(MOST_IMAGES, num_tokens))
    tokens = collect_tokens(stream_images(run, images, 'tokens', track), run.backbone.patch_tokens, len(images),
                            max(shown), num_tokens // len(images), run.seed)  # (L, images, kept, D)
    maps, num_prompts = {}, run.tuned_prompts.shape[1]
    for layer in track(shown, f'{method}: blocks', len(shown)):
        prompts = [prompts[layer - 1].double().numpy() for prompts in (run.initial_prompts, run.tuned_prompts)]
        maps[layer] = project(tokens[layer - 1].flatten(0, 1).double().numpy(), np.concatenate(prompts))
    with styled():
        figure, outside = _draw(maps, num_prompts)
        figure.suptitle(run.label, fontsize='medium')
    far = (f' {outside} prompts lie so far out that they stand, hollow, on a dotted frame, in their direction from '
           "the patches' middle; the CSV tells where they are.") if outside else ''
    caption = (f'{run.label}: {tokens.shape[1] * tokens.shape[2]:,} patch tokens of {len(images):,} training images, '
               'as the frozen network without prompts hands them to each block, and the prompts of the block; a line '
               f'joins a prompt before and after tuning. {READING[method]}{far}')
    rows = [(layer, kind, number + 1, float(x), float(y)) for layer, points in maps.items()
            for kind, part in _split(points.points, num_prompts).items() for number, (x, y) in enumerate(part)]
    return Picture(f'tokens_{method}', 'Patch tokens and prompts', caption, figure,
                   ('layer', 'kind', 'number', 'x', 'y'), rows)


def pull_in(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move points (N, 2) outside of a box towards its middle onto its rim; return them and which were outside (N,)."""
    middle, half = (low + high) / 2, (high - low) / 2
    excess = np.abs((points - middle) / half).max(axis=1)
    return middle + (points - middle) / np.maximum(excess, 1.)[:, None], excess > 1


def _split(points: np.ndarray, num_prompts: int) -> dict[str, np.ndarray]:
    return dict(zip(KINDS, np.split(points, [len(points) - 2 * num_prompts, len(points) - num_prompts]), strict=True))


def _draw(maps: dict[int, Map], num_prompts: int) -> tuple[Figure, int]:
    rows = math.ceil(len(maps) / 3)
    columns = math.ceil(len(maps) / rows)
    figure = Figure(figsize=(max(4.2 * columns, 7.), 4. * rows + 0.5))
    panels = figure.subplots(rows, columns, squeeze=False, gridspec_kw=dict(hspace=0.06, wspace=0.06)).ravel()
    outside = 0
    for axes, (layer, points) in zip(panels, maps.items(), strict=False):
        count = _draw_panel(axes, points, num_prompts)
        axes.set_title(f'block {layer}' + (f', {count} prompts outside' if count else ''))
        outside += count
    for axes in panels[len(maps):]:
        axes.axis('off')
    legend = figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
    for handle in legend.legend_handles:
        cast(PathCollection, handle).set_sizes([40])
    return figure, outside


def _draw_panel(axes: Axes, points: Map, num_prompts: int) -> int:
    """Draw one block; return the number of prompts, before and after, that were pulled in to the rim."""
    parts = _split(points.points, num_prompts)
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
    axes.set(xlabel=points.labels[0], ylabel=points.labels[1])
    axes.set_aspect('equal', adjustable='datalim')  # a distance is one in every direction
    axes.locator_params(nbins=5)
    count = sum(int(out.sum()) for _, out in placed.values())
    if count:
        axes.add_patch(Rectangle(low, *(high - low), fill=False, linestyle=':', edgecolor='0.4'))
    return count
