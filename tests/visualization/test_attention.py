"""Pictures of attention against the concatenated network's weights, for real runs."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import LogNorm
from mmpretrain.registry import MODELS
from PIL import Image

from made_runs import read_csv
from mmspt.visualization import RunFolder
from mmspt.visualization.attention import draw_attention

L, N_P, N_E = 4, 5, 16
TOKENS = 1 + N_P + N_E
TEST_0 = 'images/class_0/006.png'


def table(picture):
    """{(layer, token): {column: value}} of the CSV."""
    return {(int(row.pop('layer')), row.pop('token')): {name: float(value) for name, value in row.items()}
            for row in read_csv(picture)}


def patches(row):
    return [value for name, value in row.items() if ' patch ' in name]


def expected_weights(folder, file, block):
    """(queries, keys) of a block of the concatenated network, mean over heads."""
    run = RunFolder(folder)
    run.config.model.backbone.update(concatenate=True)
    pixels = np.asarray(Image.open(file), dtype=np.float32)
    pixels = (pixels - np.array(run.config.data_preprocessor.mean)) / np.array(run.config.data_preprocessor.std)
    seen = []
    attn, real = run.backbone.layers[block - 1].attn, run.backbone.layers[block - 1].attn.scaled_dot_product_attention
    attn.scaled_dot_product_attention = lambda q, k, v, **kwargs: (seen.append((q, k)), real(q, k, v, **kwargs))[1]
    with torch.no_grad():
        run.backbone(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])
    query, key = seen[0]
    return F.scaled_dot_product_attention(query, key, torch.eye(TOKENS).expand(1, 4, -1, -1))[0].mean(0)


@pytest.fixture(scope='module')
def small_file(runs, tmp_path_factory):
    """An image of the network's size, so that no resizing, whose last digits differ among libraries, is in the way."""
    path = tmp_path_factory.mktemp('images') / 'grün & gelb.v2.png'
    Image.open(runs.job.data / TEST_0).convert('RGB').resize((32, 32)).save(path)
    return str(path)


@pytest.mark.parametrize(('name', 'layer'), [('spt', 4), ('shallow', 3)])
def test_numbers_are_those_of_the_concatenated_network(runs, small_file, name, layer):
    run = RunFolder(getattr(runs, name))
    looks = table(draw_attention(run, small_file, layers=[1], prompts=[1]))
    read = table(draw_attention(run, small_file, layers=[1], prompts=[1], direction='read'))
    expected = expected_weights(run.folder, small_file, layer)
    tokens = ['CLS', *(f'prompt {i}' for i in range(1, N_P + 1))]  # all, whatever is drawn
    assert list(looks) == list(read) == [(layer, token) for layer in range(1, L + 1) for token in tokens]
    names = [f'on patch r{row}c{column}' for row in range(1, 5) for column in range(1, 5)]
    assert all(list(row) == ['on CLS', 'on prompts', *names] for row in looks.values())
    assert all(list(row) == ['by CLS', *(name.replace('on', 'by') for name in names)] for row in read.values())
    for token, place in (('CLS', 0), ('prompt 1', 1), ('prompt 5', 5)):
        row = looks[layer, token]
        assert patches(row) == pytest.approx(expected[place, 1 + N_P:].tolist(), rel=1e-3)
        assert row['on CLS'] == pytest.approx(float(expected[place, 0]), rel=1e-3)
        assert row['on prompts'] == pytest.approx(float(expected[place, 1:1 + N_P].sum()), rel=1e-3)
        row = read[layer, token]
        assert patches(row) == pytest.approx(expected[1 + N_P:, place].tolist(), rel=1e-3)
        assert row['by CLS'] == pytest.approx(float(expected[0, place]), rel=1e-3)


def test_layout(runs):
    picture = draw_attention(RunFolder(runs.spt), 'val:2', [4, 2], [5], 'read')
    *panels, bar = picture.figure.axes
    assert [axes.get_title() for axes in panels] == ['image', 'CLS', 'prompt 5', '', '', '']
    assert [axes.get_ylabel() for axes in panels[::3]] == ['block 4', 'block 2']
    assert bar.get_ylabel() == 'attention, multiple of uniform'
    numbers, shown = table(picture), [axes.images[0] for axes in panels]
    assert shown[0].get_array().shape == shown[3].get_array().shape == (32, 32, 3)
    for i, token in ((1, (4, 'CLS')), (2, (4, 'prompt 5')), (4, (2, 'CLS')), (5, (2, 'prompt 5'))):
        assert shown[i].get_extent() == shown[0].get_extent() and len(panels[i].collections) == 1  # outlines
        expected = np.array(patches(numbers[token])).reshape(4, 4) * TOKENS
        np.testing.assert_allclose(np.asarray(shown[i].get_array()), expected, rtol=1e-5)
        assert shown[i].norm is shown[1].norm
    assert isinstance(shown[1].norm, LogNorm) and shown[1].norm.vmin < 1 < shown[1].norm.vmax
    assert picture.name == 'attention_val_2_read' and picture.render('png').startswith(b'\x89PNG')
    assert f'1/{TOKENS}' in picture.caption and '4 x 4 patches' in picture.caption and 'CLS' in picture.caption


def test_a_file_and_an_item_with_the_same_pixels_give_the_same_numbers(runs):
    run = RunFolder(runs.spt)
    first_train = str(runs.job.data / 'images' / (runs.job.data / 'train.txt').read_text().split()[0])
    pairs = [(str(runs.job.data / TEST_0), 'test:0'), (first_train, 'train:0')]  # their pipelines are the same
    (file, item), (other, train) = ([draw_attention(run, image, [1]).csv for image in pair] for pair in pairs)
    assert file == item != other == train


def test_without_test_data_files_go_through_the_validation_pipeline(runs, small_file):
    """It lies within a wrapper, and has no loader."""
    run = RunFolder(runs.spt)
    seen = np.asarray(draw_attention(run, small_file, [1]).figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(seen, np.asarray(Image.open(small_file)) / 255, atol=1e-5)
    loader = run.config.val_dataloader
    loader.dataset.pipeline[0] = dict(type='RandomFlip', prob=1.)
    loader.dataset = dict(type='RepeatDataset', times=2, dataset=loader.dataset)
    run.config.test_dataloader = None
    flipped = np.asarray(draw_attention(run, small_file, [1]).figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(flipped, seen[:, ::-1], atol=1e-5)


def test_a_model_without_cls(runs, small_file, tmp_path):
    run = RunFolder(runs.spt, str(tmp_path / 'without.pth'))
    run.config.model.backbone.update(with_cls_token=False, init_cfg=None)
    model = MODELS.build(run.config.model | dict(data_preprocessor=run.config.data_preprocessor, _scope_='mmpretrain'))
    torch.save(dict(state_dict=model.state_dict(), meta={}), run.checkpoint)
    looks = draw_attention(run, small_file)
    assert [axes.get_title() for axes in looks.figure.axes[:6]] == ['image', *(f'prompt {i}' for i in range(1, 6))]
    rows = table(looks)
    assert len(rows) == L * N_P
    for row in rows.values():
        assert len(row) == 1 + N_E and sum(row.values()) == pytest.approx(1, abs=1e-5)


def test_registers_have_columns_of_their_own(runs, small_file, tmp_path):
    run = RunFolder(runs.spt, str(tmp_path / 'registers.pth'))
    run.config.model.backbone.update(num_registers=2, init_cfg=None)
    model = MODELS.build(run.config.model | dict(data_preprocessor=run.config.data_preprocessor, _scope_='mmpretrain'))
    torch.save(dict(state_dict=model.state_dict(), meta={}), run.checkpoint)
    looks = draw_attention(run, small_file)
    assert [axes.get_title() for axes in looks.figure.axes[:4]] == ['image', 'CLS', 'prompt 1', 'prompt 2']
    assert '(CLS, 2 registers, 5 prompts, 4 x 4 patches)' in looks.caption
    rows = table(looks)
    assert {'on CLS', 'on register 1', 'on register 2', 'on prompts'} <= set(rows[1, 'register 2'])
    assert all(sum(row.values()) == pytest.approx(1, abs=1e-5) for row in rows.values())


@pytest.mark.parametrize('level', [0., 40.])
def test_flat_and_sharp_attention_can_be_drawn(runs, small_file, level):
    run = RunFolder(runs.spt)
    with torch.no_grad():
        for layer in run.backbone.layers:
            layer.attn.qkv.weight.mul_(level)
            layer.attn.qkv.bias.mul_(level)
    norm = draw_attention(run, small_file, [1], [1]).figure.axes[1].images[-1].norm
    assert 0 < norm.vmin < 1 < norm.vmax < math.inf


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(layers=[5]), 'layers must be .* from 1 to 4, got 5'),
    (dict(prompts=[2, 6]), 'prompts must be .* from 1 to 5, got 6'),
    (dict(direction='seen'), "direction must be one of .'looks', 'read'., got 'seen'"),
    (dict(image='train:x'), "'train:x' is no file: .* test:0")], ids=str)
def test_errors_name_rule_value_and_remedy(runs, kwargs, message):
    with pytest.raises(ValueError, match=message):
        draw_attention(**(dict(run=RunFolder(runs.spt), image='test:0') | kwargs))
