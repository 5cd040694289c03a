"""The sheet of nearest patches against the run's own data."""
import numpy as np
import pytest
from matplotlib.image import AxesImage

from made_runs import read_csv, tokens_of
from mmspt.visualization import RunFolder
from mmspt.visualization.images import preprocess, to_pixels
from mmspt.visualization.prototypes import GREY, draw_prototypes


@pytest.mark.parametrize('name, layer', [('spt_seed1', 2), ('shallow', 1)])
def test_sampled_prompts_find_themselves(runs, name, layer):
    rows = read_csv(draw_prototypes(RunFolder(getattr(runs, name)), layer, count=2))
    first = [float(row['score']) for row in rows if (row['when'], row['rank']) == ('before', '1')]
    assert len(first) == 5
    np.testing.assert_allclose(first, 1, atol=1e-5)


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
def test_numbers(runs, metric):
    run, layer = RunFolder(runs.spt), 3
    picture = draw_prototypes(run, layer, count=3, metric=metric)
    tokens, found = tokens_of(run, layer), read_csv(picture)
    files = (runs.job.data / 'train.txt').read_text().splitlines()
    prompts = dict(before=run.initial_prompts[layer - 1].double().numpy(),
                   after=run.tuned_prompts[layer - 1].double().numpy())
    assert not np.allclose(prompts['before'], prompts['after'])
    assert len(found) == 2 * 5 * 3 and picture.name == f'prototypes_layer_{layer:02d}'
    for row in found:
        prompt = prompts[row['when']][int(row['prompt']) - 1]
        distances = np.linalg.norm(tokens - prompt, axis=2)
        if metric == 'cosine':
            distances = -(tokens @ prompt) / np.linalg.norm(tokens, axis=2) / np.linalg.norm(prompt)
        own = distances[int(row['image']), 4 * int(row['row']) + int(row['column'])]  # 32 pixels, patches of 8
        assert float(row['score']) == pytest.approx(own if metric == 'euclidean' else -own, abs=1e-4)
        assert own == pytest.approx(np.sort(distances.min(axis=1))[int(row['rank']) - 1], abs=1e-4)
        assert int(row['layer']) == layer
        assert row['image_path'].endswith(files[int(row['image'])].split()[0])


@pytest.mark.parametrize('context', [pytest.param(0, marks=pytest.mark.slow), 1])
def test_crops_are_the_pixels_that_the_network_saw(runs, context):
    """Grey outside of the image."""
    run, margin = RunFolder(runs.spt), 8 * context
    picture = draw_prototypes(run, count=2, context=context, prompts=[3, 1])
    shown = [child.get_array() for child in picture.figure.axes[0].get_children() if isinstance(child, AxesImage)]
    drawn = [row for row in read_csv(picture) if row['prompt'] in '13']
    assert len(shown) == len(drawn) == 2 * 2 * 2
    for pixels, row in zip(shown, drawn, strict=True):
        image = preprocess([run.images('train')[int(row['image'])]], run.model.data_preprocessor)
        whole = np.pad(to_pixels(image, run.model.data_preprocessor)[0].numpy(),
                       ((margin, margin), (margin, margin), (0, 0)), constant_values=GREY)
        top, left, size = 8 * int(row['row']), 8 * int(row['column']), 8 + 2 * margin
        np.testing.assert_array_equal(pixels, whole[top:top + size, left:left + size])


def test_rows_and_headings(runs):
    picture = draw_prototypes(RunFolder(runs.spt), layer=2, count=1, prompts=[4, 2], num_images=5)
    texts = [text.get_text() for text in picture.figure.axes[0].texts]
    assert texts[:4] == ['before tuning\n(below: cosine similarity)', 'after tuning\n(below: cosine similarity)',
                         'prompt\n4', 'prompt\n2']
    drawn = [row for row in read_csv(picture) if row['prompt'] in '24']
    assert texts[4:] == [f"{float(row['score']):.3f}" for row in drawn] and len(drawn) == 4
    assert '2 of its 5 prompts' in picture.caption and ' 5 training images' in picture.caption


@pytest.mark.parametrize('name, options, message', [
    ('shallow', dict(layer=2), 'layers with prompts of their own must be .* from 1 to 1, got 2'),
    ('spt', dict(context=-1), 'context must be at least 0 patches, got -1'),
    ('spt', dict(num_images=0), 'num_images must be at least 1, or None for all, got 0'),
    ('linear', {}, 'needs a run with prompts'),
])
def test_errors(runs, name, options, message):
    with pytest.raises(ValueError, match=message):
        draw_prototypes(RunFolder(getattr(runs, name)), **options)
