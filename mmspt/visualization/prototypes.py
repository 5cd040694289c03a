"""The training images' patches nearest to each prompt, before and after tuning: what prompts stand for."""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmspt.engine.training_images import SeededImages
from mmspt.visualization.nearest_patches import METRICS, nearest_patches

from .choices import choose
from .images import preprocess, stream_images, to_pixels
from .picture import Picture, styled
from .run_folder import RunFolder

MOST_ROWS = 12
WHEN = ('before', 'after')
GREY = 0.85
"""Outside the image."""
CROP, GAP, LINE = 1., 0.6, 0.27
"""Sizes of the sheet, inches: a crop, the gap between the halves, a line of text."""


class Patch(NamedTuple):
    """A patch on the sheet."""
    prompt: int  # from 1 on
    when: str
    rank: int  # from 1 on
    image: int
    row: int  # of the image's grid of patches, from 0 on, as is column
    column: int
    score: float


def draw_prototypes(run: RunFolder, layer: int = 1, count: int = 6, context: int = 2, metric: str = 'cosine',
                    prompts: Sequence[int] | None = None, num_images: int | None = None) -> Picture:
    """Draw the patches nearest to each prompt of a block, before and after tuning, with their surroundings.

    Prompts P_{i-1} of block i are compared with the tokens E_{i-1} of all training images in the frozen network without
    prompts: the space in which the initial ones are prototypes. The images are augmented as they were when the prompts
    were made. The numbers hold all prompts, even if few are drawn.

    Args:
        run (RunFolder): A run with prompts.
        layer (int): Number i = 1..L of the block; 1 for shallow prompts.
        count (int): Patches a prompt, each of another image; ``context`` patches are shown on each side.
        metric (str): A key of METRICS.
        prompts (Sequence[int] | None): Which are drawn, 1..N_p; None is all, or 12 spread evenly.
        num_images (int | None): Training images to look through, drawn by the run's seed; None is all.

    Raises:
        OSError, ValueError: An option out of its range, no prompts, or the data are missing.
    """
    choose('layers with prompts of their own', [layer], len(run.tuned_prompts), 1)
    if context < 0:
        raise ValueError(f'context must be at least 0 patches, got {context!r}')
    if num_images is not None and num_images < 1:
        raise ValueError(f'num_images must be at least 1, or None for all, got {num_images!r}')
    initial, tuned = run.initial_prompts[layer - 1], run.tuned_prompts[layer - 1]
    drawn = choose('prompts', prompts, len(tuned), MOST_ROWS)
    images = run.sample_images(num_images)
    preprocessor = run.model.data_preprocessor
    batches = stream_images(run, images, f'nearest patches, block {layer}')
    scores, indices, positions = nearest_patches(batches, run.backbone.patch_tokens, torch.cat((initial, tuned)), layer,
                                                 count, metric)
    patch_size = tuple(run.backbone.patch_size)
    width = preprocess([images[0]], preprocessor).shape[3]  # all have one size
    columns = -(-width // patch_size[1])  # the patch embedding pads below and to the right
    patches = [Patch(i % len(tuned) + 1, WHEN[i // len(tuned)], rank + 1, int(indices[i, rank]),
                     int(positions[i, rank]) // columns, int(positions[i, rank]) % columns, float(scores[i, rank]))
               for i in range(len(scores)) for rank in range(scores.shape[1])]
    wanted = [patch for patch in patches if patch.prompt in drawn]
    crops: dict[Patch, np.ndarray] = {}
    paths: dict[int, str] = {}
    again = SeededImages(images.dataset, sorted({patch.image for patch in patches}), images.seed)
    for position, index in enumerate(again.indices):
        item = again[position]
        paths[index] = getattr(item['data_samples'], 'img_path', None) or ''
        pixels = to_pixels(preprocess([item], preprocessor), preprocessor)[0].numpy()
        crops |= {patch: crop_patch(pixels, patch.row, patch.column, patch_size, context)
                  for patch in wanted if patch.image == index}
    with styled():
        figure = _draw(wanted, crops, drawn, scores.shape[1], context, METRICS[metric].label)
        figure.suptitle(f'{run.label}, block {layer}', fontsize='medium')
    shown = 'its prompts' if len(drawn) == len(tuned) else f'{len(drawn)} of its {len(tuned)} prompts'
    caption = (f'{run.label}: for block {layer}, {shown} (rows) with the nearest patches (framed) of {len(images):,} '
               f'training images, one an image, before tuning (left) and after (right). The number is the '
               f'{METRICS[metric].label} of the prompt and E_{layer - 1}, the token that the frozen network without '
               f'prompts hands block {layer}: where it is low, the prompt is like none of them. The '
               f'surroundings are {context} patches a side, grey is outside.')
    return Picture(f'prototypes_layer_{layer:02d}', f'What the prompts of block {layer} stand for', caption, figure,
                   ('layer', 'prompt', 'when', 'rank', 'image', 'image_path', 'row', 'column', 'score'),
                   [(layer, *p[:4], paths[p.image], *p[4:]) for p in patches])


def crop_patch(pixels: np.ndarray, row: int, column: int, patch_size: tuple[int, ...], context: int) -> np.ndarray:
    """Cut a patch and ``context`` patches on each side out of (H, W, 3) in [0, 1]; GREY outside of the image."""
    (height, width), across = patch_size, 2 * context + 1
    below, beside = (context + 1) * height, (context + 1) * width  # one more: the patch embedding pads
    padded = np.pad(pixels, ((context * height, below), (context * width, beside), (0, 0)), constant_values=GREY)
    return padded[row * height:(row + across) * height, column * width:(column + across) * width]


def _draw(patches: list[Patch], crops: dict[Patch, np.ndarray], drawn: list[int], columns: int, context: int,
          label: str) -> Figure:
    """One axes in inches, y downwards: a row a prompt, a crop a patch, its score below."""
    half, pitch = columns * CROP, CROP + LINE
    figure = Figure(figsize=(2 * half + GAP + 1., len(drawn) * pitch + 2 * LINE + 0.2))
    axes = figure.add_subplot()
    axes.set(xlim=(-0.9, 2 * half + GAP), ylim=(len(drawn) * pitch, -2 * LINE), aspect='equal')
    axes.axis('off')
    for i, when in enumerate(WHEN):
        axes.text(i * (half + GAP) + half / 2, -0.1, f'{when} tuning\n(below: {label})', ha='center', va='bottom')
    for i, prompt in enumerate(drawn):
        axes.text(-0.1, i * pitch + CROP / 2, f'prompt\n{prompt}', ha='right', va='center')
    for patch in patches:
        left = WHEN.index(patch.when) * (half + GAP) + (patch.rank - 1) * CROP
        top = drawn.index(patch.prompt) * pitch
        score = f'{patch.score:.3f}' if abs(patch.score) < 10 else f'{patch.score:.3g}'
        _draw_crop(axes, crops[patch], left + 0.04, top + 0.04, CROP - 0.08, context)
        axes.text(left + CROP / 2, top + CROP, score, ha='center', va='top', fontsize=11)
    return figure


def _draw_crop(axes: Axes, crop: np.ndarray, left: float, top: float, side: float, context: int) -> None:
    axes.imshow(crop, extent=(left, left + side, top + side, top), aspect='equal')
    axes.set_autoscale_on(False)
    across = 2 * context + 1
    for colour, line, out in (('black', 1.6, 0.03), ('white', 1.6, 0.011)):  # one of them stands out on any ground
        corner = left + side * context / across - out, top + side * context / across - out
        axes.add_patch(Rectangle(corner, *[side / across + 2 * out] * 2, fill=False, edgecolor=colour, linewidth=line))
