"""How far training moved the prompts."""
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .picture import Picture, styled
from .run_folder import RunFolder


def draw_drift(run: RunFolder) -> Picture:
    """Draw cosine and norms by block: means as lines, bands from the lowest to the highest prompt.

    Raises:
        ValueError: The run has no prompts, or its initial prompts or its checkpoint are missing.
    """
    initial, tuned = run.initial_prompts, run.tuned_prompts  # (L, N_p, D)
    cosine = F.cosine_similarity(initial, tuned, dim=-1)  # (L, N_p), as all that follow
    before, after, distance = (vectors.norm(dim=-1) for vectors in (initial, tuned, tuned - initial))
    blocks = range(1, len(cosine) + 1)
    with styled():
        figure = Figure(figsize=(12, 4.2))
        figure.suptitle(run.label, fontsize='medium')
        left, right = figure.subplots(1, 2)
        for axes, values, label in ((left, cosine, None), (right, before, 'before training'),
                                    (right, after, 'after training')):
            low, high = values.amin(dim=1), values.amax(dim=1)
            line, = axes.plot(blocks, values.mean(dim=1), label=label)
            axes.fill_between(blocks, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
            if len(blocks) == 1:  # a band of one block has no width
                axes.vlines(blocks, low, high, color=line.get_color(), alpha=0.4)
            axes.set_xlabel('block')
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(ylabel='cosine, before and after', ylim=(min(0., float(cosine.min())) - 0.03, 1.03))
        right.set(ylabel='norm of a prompt', ylim=(0, None))
        right.legend()
    rows = [(block, prompt + 1, *(float(values[block - 1, prompt]) for values in (cosine, before, after, distance)))
            for block in blocks for prompt in range(cosine.shape[1])]
    caption = (f'{run.label}: how far each block\'s prompts moved. Lines are means over the prompts, bands go from the '
               'lowest to the highest prompt; a cosine of 1 is no turn. Norms are in the units of the tokens.')
    return Picture('drift', 'How far the prompts moved', caption, figure,
                   ('layer', 'prompt', 'cosine', 'norm before', 'norm after', 'distance'), rows)
