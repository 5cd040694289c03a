"""The map of tokens and prompts against NumPy."""
from collections import Counter

import numpy as np
import pytest

from made_runs import read_csv, tokens_of
from mmspt.visualization import RunFolder
from mmspt.visualization.token_map import draw_token_map

NUM_TOKENS = 12 * 16  # all that the run's data have


def numbers(picture, layer, kind):
    rows = [row for row in read_csv(picture) if (row['layer'], row['kind']) == (str(layer), kind)]
    assert [int(row['number']) for row in rows] == list(range(1, len(rows) + 1))
    return np.array([(float(row['x']), float(row['y'])) for row in rows])


def flat_tokens(run, layer):
    return tokens_of(run, layer).reshape(NUM_TOKENS, -1)


def test_pca(runs):
    run, layer = RunFolder(runs.spt), 3
    picture = draw_token_map(run, [layer], num_tokens=NUM_TOKENS)
    tokens = flat_tokens(run, layer)
    _, values, axes = np.linalg.svd(tokens - tokens.mean(axis=0), full_matrices=False)
    found = numbers(picture, layer, 'patch')
    assert found.shape == (NUM_TOKENS, 2)
    expected = (tokens - tokens.mean(axis=0)) @ axes[:2].T
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-3)
    for kind, prompts in (('initial', run.initial_prompts), ('tuned', run.tuned_prompts)):
        projected = (prompts[layer - 1].double().numpy() - tokens.mean(axis=0)) @ axes[:2].T * signs
        np.testing.assert_allclose(numbers(picture, layer, kind), projected, atol=1e-3)
    shares = values[:2]**2 / (values**2).sum()
    panel = picture.figure.axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == tuple(
        f'PC {i} ({share:.0%} of variance)' for i, share in enumerate(shares, 1))


def test_number_of_tokens(runs):
    """The same number of each of 12 images."""
    picture = draw_token_map(RunFolder(runs.spt), [1, 4], num_tokens=50)
    assert Counter((row['layer'], row['kind']) for row in read_csv(picture)) == {
        (layer, kind): count for layer in '14' for kind, count in dict(patch=48, initial=5, tuned=5).items()}
    assert '48 patch tokens' in picture.caption


def test_tsne_keeps_neighbours_together(runs):
    """Initial prompts are patch tokens: each lies nearer to its own than to most others. Drawn twice it is the same."""
    run = RunFolder(runs.spt)
    picture, again = (draw_token_map(run, [4], 'tsne', NUM_TOKENS) for _ in range(2))
    assert picture.csv == again.csv
    assert picture.name == 'tokens_tsne'
    own = np.linalg.norm(run.initial_prompts[3].numpy()[:, None] - flat_tokens(run, 4), axis=2).argmin(axis=1)
    gaps = np.linalg.norm(numbers(picture, 4, 'initial')[:, None] - numbers(picture, 4, 'patch'), axis=2)
    assert (gaps < gaps[np.arange(5), own][:, None]).mean() < 0.1


def test_panels_and_legend(runs):
    picture = draw_token_map(RunFolder(runs.vpt), num_tokens=24)
    figure = picture.figure
    assert [axes.get_title().split(',')[0] for axes in figure.axes] == ['block 1', 'block 2', 'block 3', 'block 4']
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        'patch tokens', 'prompts before tuning', 'prompts after tuning']
    assert len(figure.legends) == 1 and not any(axes.get_legend() for axes in figure.axes)
    assert all(len(axes.lines) == 5 for axes in figure.axes)


def test_far_prompts_stay_in_sight(runs, monkeypatch):
    near = draw_token_map(RunFolder(runs.spt), [1], num_tokens=NUM_TOKENS)
    monkeypatch.setattr(RunFolder, 'tuned_prompts', RunFolder(runs.spt).tuned_prompts * 1e4)
    far = draw_token_map(RunFolder(runs.spt), [1], num_tokens=NUM_TOKENS)
    assert 'outside' not in near.figure.axes[0].get_title() and 'so far out' not in near.caption
    assert far.figure.axes[0].get_title() == 'block 1, 5 prompts outside'
    assert '5 prompts lie so far out' in far.caption
    assert np.abs(numbers(far, 1, 'tuned')).max() > 100 * np.abs(numbers(near, 1, 'tuned')).max()
    wide, narrow = (np.ptp(picture.figure.axes[0].dataLim.intervalx) for picture in (far, near))
    assert wide < 2 * narrow


@pytest.mark.parametrize('name, options, message', [
    ('shallow', dict(layers=[2]), 'layers with prompts of their own must be .* from 1 to 1, got 2'),
    ('spt', dict(method='lda'), "method must be one of pca, tsne, got 'lda'"),
    ('spt', dict(num_tokens=1), 'num_tokens must be at least 2, got 1'),
])
def test_errors(runs, name, options, message):
    with pytest.raises(ValueError, match=message):
        draw_token_map(RunFolder(getattr(runs, name)), **options)
