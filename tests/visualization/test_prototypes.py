"""The sheet of nearest patches against the run's own data."""
import csv
import io

import numpy as np
import pytest
import torch
from matplotlib.image import AxesImage

from mmspt.visualization import RunFolder
from mmspt.visualization.images import preprocess, to_pixels
from mmspt.visualization.prototypes import GREY, crop_patch, draw_prototypes


def numbers(picture):
    return list(csv.DictReader(io.StringIO(picture.csv)))


def tokens_of(run, layer):
    """All training tokens E_{layer-1}, (images, N_e, D), one image at a time."""
    images = run.images('train')
    single = [preprocess([images[i]], run.model.data_preprocessor) for i in range(len(images))]
    return torch.cat([list(run.backbone.patch_tokens(image, layer))[layer - 1] for image in single]).double().numpy()


@pytest.mark.parametrize('name, layer', [('spt_seed1', 2), ('shallow', 1)])
def test_sampled_prompts_find_themselves(runs, name, layer):
    rows = numbers(draw_prototypes(RunFolder(getattr(runs, name)), layer, count=2))
    first = [float(row['score']) for row in rows if (row['when'], row['rank']) == ('before', '1')]
    assert len(first) == 5
    np.testing.assert_allclose(first, 1, atol=1e-5)


def test_random_prompts_do_not(runs):
    rows = numbers(draw_prototypes(RunFolder(runs.vpt), count=1))
    assert max(float(row['score']) for row in rows) < 0.9


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
def test_numbers(runs, metric):
    run, layer = RunFolder(runs.spt), 3
    picture = draw_prototypes(run, layer, count=3, metric=metric)
    tokens, found = tokens_of(run, layer), numbers(picture)
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


def test_crops_are_the_pixels_that_the_network_saw(runs):
    run = RunFolder(runs.spt)
    picture = draw_prototypes(run, count=2, context=0, prompts=[3, 1])
    shown = [child.get_array() for child in picture.figure.axes[0].get_children() if isinstance(child, AxesImage)]
    drawn = [row for row in numbers(picture) if row['prompt'] in '13']
    assert len(shown) == len(drawn) == 2 * 2 * 2
    for pixels, row in zip(shown, drawn, strict=True):
        image = preprocess([run.images('train')[int(row['image'])]], run.model.data_preprocessor)
        whole = to_pixels(image, run.model.data_preprocessor)[0].numpy()
        top, left = 8 * int(row['row']), 8 * int(row['column'])
        np.testing.assert_array_equal(pixels, whole[top:top + 8, left:left + 8])


def test_rows_and_headings(runs):
    picture = draw_prototypes(RunFolder(runs.spt), layer=2, count=1, prompts=[4, 2])
    texts = [text.get_text() for text in picture.figure.axes[0].texts]
    assert texts[:4] == ['before tuning\n(below: cosine similarity)', 'after tuning\n(below: cosine similarity)',
                         'prompt\n4', 'prompt\n2']
    drawn = [row for row in numbers(picture) if row['prompt'] in '24']
    assert texts[4:] == [f"{float(row['score']):.3f}" for row in drawn] and len(drawn) == 4
    assert '2 of its 5 prompts' in picture.caption and '12 training images' in picture.caption


def test_fewer_images(runs):
    run = RunFolder(runs.spt)
    few, everything = (numbers(draw_prototypes(run, count=100, num_images=n)) for n in (5, None))
    assert len({row['image'] for row in few}) == 5 and len(few) == 2 * 5 * 5
    assert len({row['image'] for row in everything}) == 12 and len(everything) == 2 * 5 * 12


@pytest.mark.parametrize('name, options, message', [
    ('spt', dict(layer=0), 'layer must be the number of a block, at least 1, got 0'),
    ('shallow', dict(layer=2), 'layers with prompts of their own must be .* from 1 to 1, got 2'),
    ('spt', dict(context=-1), 'context must be at least 0 patches, got -1'),
    ('spt', dict(prompts=[1, 6]), 'numbers from 1 to 5, got 6'),
    ('spt', dict(num_images=0), 'num_images must be at least 1, or None for all, got 0'),
    ('linear', {}, 'needs a run with prompts'),
])
def test_errors(runs, name, options, message):
    with pytest.raises(ValueError, match=message):
        draw_prototypes(RunFolder(getattr(runs, name)), **options)


@pytest.mark.parametrize('context', [0, 2])
@pytest.mark.parametrize('row, column', [(0, 0), (1, 2), (3, 3)])
def test_crop_patch(row, column, context):
    """Grid of 3 x 4 patches, 2 x 3 pixels each; a fourth row, such as padding makes, is outside of the image."""
    pixels = np.random.default_rng(0).random((6, 12, 3), dtype=np.float32)
    padded = np.pad(pixels, ((12, 12), (18, 18), (0, 0)), constant_values=GREY)
    crop = crop_patch(pixels, row, column, (2, 3), context)
    top, left = 12 + 2 * (row - context), 18 + 3 * (column - context)
    across = 2 * context + 1
    assert crop.shape == (2 * across, 3 * across, 3)
    expected = padded[top:top + 2 * across, left:left + 3 * across]
    np.testing.assert_array_equal(crop[:len(expected)], expected)
    assert (crop[len(expected):] == np.float32(GREY)).all()
