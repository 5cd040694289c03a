"""Pictures of attention against the concatenated network's weights, for real runs."""
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import LogNorm
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from made_runs import read_csv
from mmspt.visualization import RunFolder
from mmspt.visualization.attention import draw_attention

L, N_P, N_E = 4, 5, 16
TOKENS = 1 + N_P + N_E
TEST_0 = 'images/class_0/006.png'


def first_image(runs):
    """File of the first test image."""
    return str(runs.job.data / TEST_0)


def table(picture):
    """{(layer, token): {column: value}} of the CSV."""
    return {(int(row.pop('layer')), row.pop('token')): {name: float(value) for name, value in row.items()}
            for row in read_csv(picture)}


def patches(row):
    return [value for name, value in row.items() if ' patch ' in name]


def expected_weights(folder, file, block):
    """(queries, keys) of a block of the concatenated network, mean over heads, from the config and the file."""
    cfg = Config.fromfile(str(next(Path(folder).glob('*.py'))))
    cfg.model.backbone.update(concatenate=True)
    model = MODELS.build(cfg.model | dict(data_preprocessor=cfg.data_preprocessor, _scope_='mmpretrain'))
    newest = max(Path(folder).glob('epoch_*.pth'))
    model.init_weights()
    saved = torch.load(newest, map_location='cpu', weights_only=False)['state_dict']
    del saved['backbone.fingerprint']
    assert not model.load_state_dict(saved, strict=False).unexpected_keys
    backbone = model.eval().backbone
    pixels = np.asarray(Image.open(file).convert('RGB').resize((32, 32), Image.BILINEAR), dtype=np.float32)
    pixels = (pixels - np.array(cfg.data_preprocessor.mean)) / np.array(cfg.data_preprocessor.std)
    seen = []
    attn, real = backbone.layers[block - 1].attn, backbone.layers[block - 1].attn.scaled_dot_product_attention
    attn.scaled_dot_product_attention = lambda q, k, v, **kwargs: (seen.append((q, k)), real(q, k, v, **kwargs))[1]
    with torch.no_grad():
        backbone(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])
    query, key = seen[0]
    return F.scaled_dot_product_attention(query, key, torch.eye(TOKENS).expand(1, 4, -1, -1))[0].mean(0)


@pytest.fixture(scope='module')
def small_file(runs, tmp_path_factory):
    """An image of the network's size, so that no resizing, whose last digits differ among libraries, is in the way."""
    path = tmp_path_factory.mktemp('images') / 'grün & gelb.v2.png'
    Image.open(first_image(runs)).convert('RGB').resize((32, 32)).save(path)
    return str(path)


@pytest.mark.parametrize(('name', 'layer'), [('spt', 3), ('spt', 4), ('shallow', 3)])
def test_numbers_are_those_of_the_concatenated_network(runs, small_file, name, layer):
    run = RunFolder(getattr(runs, name))
    looks = table(draw_attention(run, small_file, layers=[1], prompts=[1]))
    read = table(draw_attention(run, small_file, layers=[1], prompts=[1], direction='read'))
    expected = expected_weights(run.folder, small_file, layer)
    for token, place in (('CLS', 0), ('prompt 1', 1), ('prompt 5', 5)):
        row = looks[layer, token]
        assert patches(row) == pytest.approx(expected[place, 1 + N_P:].tolist(), rel=1e-3)
        assert row['on CLS'] == pytest.approx(float(expected[place, 0]), rel=1e-3)
        assert row['on prompts'] == pytest.approx(float(expected[place, 1:1 + N_P].sum()), rel=1e-3)
        row = read[layer, token]
        assert patches(row) == pytest.approx(expected[1 + N_P:, place].tolist(), rel=1e-3)
        assert row['by CLS'] == pytest.approx(float(expected[0, place]), rel=1e-3)


def test_the_table_holds_everything_whatever_is_drawn(runs):
    looks, read = (table(draw_attention(RunFolder(runs.vpt), 'test:1', [2], [3], direction))
                   for direction in ('looks', 'read'))
    tokens = ['CLS', *(f'prompt {i}' for i in range(1, N_P + 1))]
    assert list(looks) == list(read) == [(layer, token) for layer in range(1, L + 1) for token in tokens]
    names = [f'on patch r{row}c{column}' for row in range(1, 5) for column in range(1, 5)]
    for row in looks.values():
        assert list(row) == ['on CLS', 'on prompts', *names] and sum(row.values()) == pytest.approx(1, abs=1e-5)
    assert all(list(row) == ['by CLS', *(name.replace('on', 'by') for name in names)] for row in read.values())


@pytest.mark.parametrize(('layers', 'prompts', 'rows', 'columns', 'direction'), [
    (None, None, [1, 2, 3, 4], [1, 2, 3, 4, 5], 'looks'),
    ([4, 2], [5], [4, 2], [5], 'read')])
def test_layout(runs, layers, prompts, rows, columns, direction):
    picture = draw_attention(RunFolder(runs.spt), 'val:2', layers, prompts, direction)
    *panels, bar = picture.figure.axes
    width = 2 + len(columns)
    assert len(panels) == len(rows) * width
    assert [axes.get_title() for axes in panels] == [
        'image', 'CLS', *(f'prompt {i}' for i in columns), *[''] * (width * (len(rows) - 1))]
    assert [axes.get_ylabel() for axes in panels[::width]] == [f'block {i}' for i in rows]
    assert bar.get_ylabel() == 'attention, multiple of uniform'
    numbers = table(picture)
    norms = set()
    for i, axes in enumerate(panels):
        shown, = axes.images
        if i % width == 0:
            assert shown.get_array().shape == (32, 32, 3)
            extent = shown.get_extent()
            continue
        assert shown.get_extent() == extent and len(axes.collections) == 1  # outlines
        token = 'CLS' if i % width == 1 else f'prompt {columns[i % width - 2]}'
        expected = np.array(patches(numbers[rows[i // width], token])).reshape(4, 4) * TOKENS
        np.testing.assert_allclose(np.asarray(shown.get_array()), expected, rtol=1e-5)
        norms.add(shown.norm)
    assert len(norms) == 1
    norm, = norms
    assert isinstance(norm, LogNorm) and norm.vmin < 1 < norm.vmax
    assert picture.name == 'attention_val_2' + '_read' * (direction == 'read')
    assert f'1/{TOKENS}' in picture.caption and '4 x 4 patches' in picture.caption and 'CLS' in picture.caption
    assert picture.render('png').startswith(b'\x89PNG')


def test_a_file_and_an_item_with_the_same_pixels_give_the_same_numbers(runs):
    run = RunFolder(runs.spt)
    first_train = str(runs.job.data / 'images' / (runs.job.data / 'train.txt').read_text().split()[0])
    pairs = [(first_image(runs), 'test:0'), (first_train, 'train:0')]  # all pipelines of this job are the same
    (file, item), (other, train) = ([draw_attention(run, image, [1]).csv for image in pair] for pair in pairs)
    assert file == item != other == train


def changed(runs, folder, change):
    """A copy of a run whose config is changed; its checkpoint is made anew where the model is another."""
    shutil.copytree(runs.spt, folder)
    path = next(folder.glob('*.py'))
    cfg = Config.fromfile(str(path))
    change(cfg)
    cfg.dump(str(path))
    return RunFolder(str(folder))


def test_without_test_data_files_go_through_the_validation_pipeline(runs, small_file, tmp_path):
    """It lies within a wrapper, and has no loader."""
    def drop(cfg):
        cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
        cfg.val_dataloader.dataset.pipeline[1] = dict(type='Resize', scale=32, backend='cv2')
        cfg.val_dataloader.dataset.pipeline[0] = dict(type='RandomFlip', prob=1.)
        cfg.val_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.val_dataloader.dataset)
    shown = [np.asarray(draw_attention(run, small_file, [1]).figure.axes[0].images[0].get_array())
             for run in (changed(runs, tmp_path / 'run', drop), RunFolder(runs.spt))]
    np.testing.assert_allclose(shown[0], shown[1][:, ::-1], atol=1e-5)
    np.testing.assert_allclose(shown[1], np.asarray(Image.open(small_file)) / 255, atol=1e-5)


def test_a_model_without_cls(runs, small_file, tmp_path):
    def drop(cfg):
        cfg.model.backbone.update(with_cls_token=False, init_cfg=None)
    run = changed(runs, tmp_path / 'run', drop)
    cfg = Config.fromfile(run.config_path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model | dict(data_preprocessor=cfg.data_preprocessor, _scope_='mmpretrain'))
    torch.save(dict(state_dict=model.state_dict(), meta={}), run.checkpoint)
    looks = draw_attention(run, small_file)
    assert [axes.get_title() for axes in looks.figure.axes[:6]] == ['image', *(f'prompt {i}' for i in range(1, 6))]
    assert len(looks.figure.axes) == L * 6 + 1
    rows = table(looks)
    assert len(rows) == L * N_P
    for row in rows.values():
        assert len(row) == 1 + N_E and sum(row.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('level', [0., 40.])
def test_flat_and_sharp_attention_can_be_drawn(runs, small_file, level):
    run = RunFolder(runs.spt)
    with torch.no_grad():
        for layer in run.backbone.layers:
            layer.attn.qkv.weight.mul_(level)
            layer.attn.qkv.bias.mul_(level)
    norm = draw_attention(run, small_file, [1], [1]).figure.axes[1].images[-1].norm
    assert 0 < norm.vmin < 1 < norm.vmax < math.inf


@pytest.mark.parametrize(('kwargs', 'words'), [
    (dict(layers=[5]), ['layers', '1 to 4', 'got 5']),
    (dict(prompts=[2, 6]), ['prompts', '1 to 5', 'got 6']),
    (dict(direction='seen'), ['direction', "'looks', 'read'", "'seen'"]),
    (dict(image='train:-1'), ["'train'", '0 to 11', 'got -1']),
    (dict(image='train:x'), ["'train:x'", 'no file', 'test:0'])], ids=str)
def test_errors_name_rule_value_and_remedy(runs, kwargs, words):
    with pytest.raises(ValueError) as error:
        draw_attention(**(dict(run=RunFolder(runs.spt), image='test:0') | kwargs))
    assert all(word in str(error.value) for word in words), error.value
