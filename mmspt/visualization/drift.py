"""How far training moved the prompts."""
from typing import NamedTuple

import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .picture import Picture, styled
from .run_folder import RunFolder


class Drift(NamedTuple):
    """Measures of each prompt, (L, N_p)."""
    cosine: Tensor
    """Between the prompt before and after, in [-1, 1]."""
    before: Tensor
    """Euclidean norm before."""
    after: Tensor
    """Euclidean norm after."""
    distance: Tensor
    """Euclidean distance between before and after."""


def measure_drift(initial: Tensor, tuned: Tensor) -> Drift:
    """Compare prompts before and after training, both (L, N_p, D)."""
    return Drift(F.cosine_similarity(initial, tuned, dim=-1), initial.norm(dim=-1), tuned.norm(dim=-1),
                 (tuned - initial).norm(dim=-1))


def draw_drift(run: RunFolder) -> Picture:
    """Draw cosine and norms by block: means as lines, bands from the lowest to the highest prompt.

    Raises:
        ValueError: The run has no prompts, or its initial prompts or its checkpoint are missing.
    """
    drift = measure_drift(run.initial_prompts, run.tuned_prompts)
    blocks = range(1, len(drift.cosine) + 1)
    with styled():
        figure = Figure(figsize=(12, 4.2))
        figure.suptitle(run.label, fontsize='medium')
        left, right = figure.subplots(1, 2)
        for axes, values, label in ((left, drift.cosine, None), (right, drift.before, 'before training'),
                                    (right, drift.after, 'after training')):
            low, high = values.amin(dim=1), values.amax(dim=1)
            line, = axes.plot(blocks, values.mean(dim=1), label=label)
            axes.fill_between(blocks, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
            if len(blocks) == 1:  # a band of one block has no width
                axes.vlines(blocks, low, high, color=line.get_color(), alpha=0.4)
            axes.set_xlabel('block')
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(ylabel='cosine, before and after', ylim=(min(0., float(drift.cosine.min())) - 0.03, 1.03))
        right.set(ylabel='norm of a prompt', ylim=(0, None))
        right.legend()
    rows = [(block, prompt + 1, *(float(values[block - 1, prompt]) for values in drift))
            for block in blocks for prompt in range(drift.cosine.shape[1])]
    caption = (f'{run.label}: how far each block\'s prompts moved. Lines are means over the prompts, bands go from the '
               'lowest to the highest prompt; a cosine of 1 is no turn. Norms are in the units of the tokens.')
    return Picture('drift', 'How far the prompts moved', caption, figure,
                   ('layer', 'prompt', 'cosine', 'norm before', 'norm after', 'distance'), rows)
