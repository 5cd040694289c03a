"""A pack's images are the recipe's own, and what a pack cannot say is refused."""
import json
import pathlib
import re
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmpretrain.models import ClsDataPreprocessor
from PIL import Image

from mmspt.packs.preprocessing import Preprocessing

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
RECIPES = {  # file, (height, width)
    'fgvc': ('_base_/datasets/cub.py', (224, 224)),
    'vtab': ('_base_/datasets/vtab.py', (224, 224)),
    'digits': ('_base_/datasets/digits.py', (16, 16)),
}
LOAD, PACK = dict(type='mmspt.LoadImageFromFile'), dict(type='PackInputs')
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def recipe(name):
    """Test pipeline, data preprocessor, size."""
    config = Config.fromfile(CONFIGS / RECIPES[name][0])
    return config.test_dataloader.dataset.pipeline, config.data_preprocessor, RECIPES[name][1]


def oracle(pipeline, data_preprocessor, item):
    """What MMEngine and MMPretrain make of an item, (3, H, W)."""
    if 'img_path' in item and 'LoadImageFromFile' not in pipeline[0]['type']:  # of digits, which are in memory
        pipeline = [LOAD, *pipeline]
    return ClsDataPreprocessor(**data_preprocessor)(pseudo_collate([Compose(pipeline)(item)]))['inputs'][0]


def noise(height, width, channels=3):
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return dict(exif=exif)


PICTURES = {  # image, format, options of saving
    'jpeg': (Image.fromarray(noise(301, 277)), 'JPEG', {}),
    'grey': (Image.fromarray(noise(231, 257)).convert('L'), 'PNG', {}),
    'alpha': (Image.fromarray(noise(225, 223, 4)), 'PNG', {}),
    'orientation': (Image.fromarray(noise(241, 367)), 'JPEG', turned(6)),
}


@pytest.mark.parametrize('name', RECIPES)
def test_files_and_arrays_as_the_recipe_reads_them(name, tmp_path):
    pipeline, data_preprocessor, size = recipe(name)
    preprocessing = Preprocessing.from_pipeline(pipeline, data_preprocessor, size)
    for picture, (image, kind, options) in PICTURES.items():
        path = tmp_path / picture
        image.save(path, kind, **options)
        made = preprocessing(path)
        assert made.shape == (3, *size) and made.dtype == torch.float32
        assert torch.equal(made, oracle(pipeline, data_preprocessor, dict(img_path=str(path)))), picture
    steps = [step for step in pipeline if not step['type'].endswith('LoadImageFromFile')]
    for image in (noise(8, 8), noise(225, 301), noise(641, 480)):
        before = image.copy()
        assert torch.equal(preprocessing(image), oracle(steps, data_preprocessor, dict(img=image.copy())))
        np.testing.assert_array_equal(image, before)


def test_the_snippet_in_the_docs_reads_images_as_the_pipeline(tmp_path, monkeypatch):
    """Upright as EXIF says, grey, alpha, 16 bits; Pillow's rounding aside. A stand-in for onnxruntime keeps the
    input."""
    snippet, = re.findall(r'```python\n(.*?)```', (CONFIGS.parent / 'docs/export.md').read_text(), re.DOTALL)
    session = SimpleNamespace(run=lambda outputs, inputs: [inputs['images']], get_modelmeta=lambda: SimpleNamespace(
        custom_metadata_map=dict(class_names='[]')))
    monkeypatch.setitem(sys.modules, 'onnxruntime', SimpleNamespace(InferenceSession=lambda path: session))
    monkeypatch.chdir(tmp_path)
    deep = Image.fromarray(noise(300, 301, 1)[..., 0].astype(np.uint16) * 257)
    for picture, (image, kind, options) in (PICTURES | {'16 bits': (deep, 'PNG', {})}).items():
        image.save('bird.jpg', kind, **options)
        found: dict = {}
        exec(snippet, found)
        expected = oracle(recipe('fgvc')[0], dict(to_rgb=True), dict(img_path='bird.jpg'))
        np.testing.assert_allclose(found['logits'][0], expected.numpy(), rtol=0, atol=2, err_msg=picture)


def test_arrays_of_every_kind(tmp_path):
    """A file is its pixels; grey becomes colour; views that run backwards or cannot be written to."""
    preprocessing = make()
    Image.fromarray(noise(255, 403)).save(tmp_path / 'a.png')  # in RGB
    assert torch.equal(preprocessing(tmp_path / 'a.png'), preprocessing(noise(255, 403)[..., ::-1]))
    assert torch.equal(preprocessing(str(tmp_path / 'a.png')), preprocessing(tmp_path / 'a.png'))
    grey = noise(90, 70, 1)[..., 0]
    assert torch.equal(preprocessing(grey), preprocessing(np.dstack([grey] * 3)))
    view = np.ascontiguousarray(noise(310, 297).transpose(2, 0, 1)).transpose(1, 2, 0)[::-1, ::-1, ::-1]
    view.flags.writeable = False
    for resize in (None, 256, (250, 240)):
        made = make(resize=resize)(view)
        assert made.is_contiguous() and torch.equal(made, make(resize=resize)(view.copy()))


PIPELINES = {  # transforms, (height, width) of their result
    'to a rectangle': ([dict(type='Resize', scale=(40, 24), backend='pillow', interpolation='box')], (24, 40)),
    'to a rectangle, cropped': ([dict(type='mmcv.Resize', scale=(40, 24), clip_object_border=False),
                                 dict(type='mmcv.CenterCrop', crop_size=(31, 17))], (17, 31)),
    'edge': ([dict(type='mmpretrain.ResizeEdge', scale=33, interpolation='area'),
              dict(type='CenterCrop', crop_size=32, auto_pad=False)], (32, 32)),
    'by torch': ([dict(type='mmspt.Resize', scale=(40, 24), backend='torch', interpolation='bicubic')], (24, 40)),
    "edge, ours by MMPretrain's backend": ([dict(type='mmspt.ResizeEdge', scale=33, interpolation='lanczos'),
                                            dict(type='CenterCrop', crop_size=32)], (32, 32)),
    'crop alone': ([dict(type='CenterCrop', crop_size=(29, 31))], (31, 29)),
    'nothing': ([], (61, 97)),
}


@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize('data_preprocessor', [
    {}, dict(IMAGENET, to_rgb=False, type='ClsDataPreprocessor'),
    dict(mean=[0, 127, 255], std=[1, 2, 255], num_classes=3, to_onehot=True, pad_size_divisor=1, to_rgb=True,
         batch_augments=dict(augments=[dict(type='Mixup', alpha=0.2)])),
], ids=['plain', 'bgr', 'integers'])
def test_every_pipeline_that_a_pack_can_say(name, data_preprocessor):
    transforms, size = PIPELINES[name]
    made = Preprocessing.from_pipeline([LOAD, *transforms, PACK], data_preprocessor, (61, 97))
    options = {key: value for key, value in data_preprocessor.items() if key != 'type'}
    assert made.size == size
    assert torch.equal(made(noise(61, 97)), oracle([*transforms, PACK], options, dict(img=noise(61, 97))))
    assert Preprocessing.from_json(json.loads(json.dumps(asdict(made)))) == made


# ---------------------------------------------------------------------------------------------------------- as JSON

def content(**changes):
    """The description of FGVC, changed."""
    return dict(size=[224, 224], resize=256, crop=True, interpolation='bicubic', backend='torch', **IMAGENET) | changes


def make(**changes):
    values = content(**changes).items()
    return Preprocessing(**{name: tuple(value) if isinstance(value, list) else value for name, value in values})


def test_json_of_a_recipe():
    made = Preprocessing.from_pipeline(*recipe('fgvc'))
    assert json.loads(json.dumps(asdict(made))) == content() and hash(made) == hash(make())


def test_cards_of_version_1():
    """They list transforms."""
    transforms = [dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
                  dict(type='CenterCrop', crop_size=224)]
    made = Preprocessing.from_json(dict(transforms=transforms, size=[224, 224], **IMAGENET))
    assert made == make(backend='pillow')


BAD = {  # description, what the error says
    'without size': ({name: value for name, value in content().items() if name != 'size'}, "must have 'size'"),
    'size': (content(size=[224, 0]), 'size, resize and std must be positive'),
    'resize': (content(resize='256'), "resize must be .*, got '256'"),
    'box of cv2': (content(interpolation='box', backend='cv2'), 'interpolation must be .*, got box for cv2'),
    'lanczos of torch': (content(interpolation='lanczos'), 'interpolation must be .*, got lanczos for torch'),
    'mean': (content(mean=[1, 2, float('nan')]), 'mean must be'),
    'mean alone': (content(std=None), 'mean and std must be given together'),
    'of version 1, a name': (dict(transforms=[dict(type='os.system', command='false')], size=[2, 2], **IMAGENET),
                             "got .'os.system'"),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_json(name):
    description, message = BAD[name]
    with pytest.raises(ValueError, match=f'{message}.*: correct the recipe and export the pack again'):
        Preprocessing.from_json(description)


# ------------------------------------------------------------------------------------------------------ from a config

CROP = dict(type='CenterCrop', crop_size=2)
BAD_CONFIGS = {  # pipeline, data preprocessor, what the error says
    'flips': ([CROP, dict(type='RandomFlip', prob=0.5)], {}, "in this order.*'RandomFlip'"),
    'two resizes': ([dict(type='Resize', scale=2), dict(type='ResizeEdge', scale=2), CROP], {}, 'at most once'),
    'long edge': ([dict(type='ResizeEdge', scale=2, edge='long'), CROP], {}, "edge must be 'short'.*got 'long'"),
    'ratio': ([dict(type='Resize', scale=2, keep_ratio=True)], {}, 'keep_ratio must be False for a pack'),
    'padded crop': ([dict(CROP, auto_pad=True)], {}, 'auto_pad must be False'),
    'scaled decoding': ([dict(LOAD, min_edge=64), CROP], {}, 'min_edge must be None'),
    'loaded otherwise': ([dict(LOAD, color_type='grayscale'), CROP], {}, "color_type must be 'color'"),
    'text': (['Resize'], {}, "a step of a pipeline must be dict.*got 'Resize'"),
    'padded batches': ([CROP], dict(pad_size_divisor=32), 'pad_size_divisor must be 1 .*got 32'),
    'another preprocessor': ([CROP], dict(type='SelfSupDataPreprocessor'), 'must be ClsDataPreprocessor'),
    'one mean': ([CROP], dict(mean=[127.5], std=[127.5]), 'mean must be'),
}


@pytest.mark.parametrize('name', BAD_CONFIGS)
def test_pipelines_that_a_pack_cannot_say(name):
    pipeline, data_preprocessor, message = BAD_CONFIGS[name]
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_pipeline(pipeline, data_preprocessor, (2, 2))


# --------------------------------------------------------------------------------------------------------- bad images

@pytest.mark.parametrize('image', [noise(9, 9).astype(np.float32), noise(9, 9, 4), noise(9, 9)[None],
                                   np.zeros((0, 9, 3), np.uint8)], ids=['float', '4 channels', 'batch', 'no rows'])
def test_bad_arrays(image):
    message = f'must be uint8, (H, W, 3) in BGR or (H, W) of grey, and not empty, got {image.dtype}, {image.shape}'
    with pytest.raises(ValueError, match=re.escape(message)):
        make()(image)


def test_bad_files(tmp_path):
    (tmp_path / 'text.png').write_text('text')
    Image.fromarray(noise(20, 30)).save(tmp_path / 'small.png')
    with pytest.raises(ValueError, match=r"every image must be readable, but '.*text.png'"):
        make()(tmp_path / 'text.png')
    with pytest.raises(ValueError, match=r"come to 224 x 224 pixels .* but '.*small.png' comes to 20 x 30"):
        make(resize=None)(tmp_path / 'small.png')
    with pytest.raises(ValueError, match='must be a path or an array, got Tensor'):
        make()(torch.zeros(4, 4, 3, dtype=torch.uint8))


RESIZE = dict(type='ResizeEdge', scale=40, interpolation='bicubic', backend='pillow')
CROP = dict(type='CenterCrop', crop_size=32)
AUGMENT = dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip', prob=1.)], [PACK]])


def config_of(*steps, **normalization):
    return Config(dict(model={}, data_preprocessor=IMAGENET | normalization,
                       test_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=[LOAD, *steps]))))


OTHER = {  # the field that differs -> config
    'size': config_of(RESIZE, dict(CROP, crop_size=24), PACK),
    'resize': config_of(dict(RESIZE, scale=36), CROP, PACK),
    'interpolation': config_of(dict(RESIZE, interpolation='bilinear'), CROP, PACK),
    'backend': config_of(dict(RESIZE, backend='cv2'), CROP, PACK),
    'mean': config_of(RESIZE, CROP, PACK, mean=[127.5] * 3),
    'to_rgb': config_of(RESIZE, CROP, AUGMENT, to_rgb=False),
}


@pytest.mark.parametrize('field', OTHER)
def test_a_config_of_other_images_is_refused(field):
    tuned = Preprocessing.from_config(config_of(RESIZE, CROP, PACK), (32, 32))
    with pytest.raises(ValueError, match=rf'a pack must be given images as it was tuned, with {field}=[^=]*\(the config'
                                         r' [^=]*: set data_preprocessor'):
        tuned.check(OTHER[field])


def test_configs_of_the_same_images():
    """In other words, or with augmentation."""
    tuned = Preprocessing.from_config(config_of(RESIZE, CROP, PACK), (32, 32))
    tuned.check(config_of(RESIZE, CROP, AUGMENT))
    tuned.check(config_of(RESIZE, CROP, PACK, mean=[123.5, 116.5, 103.5], std=[58.5, 57., 57.5]))  # in bfloat16
    tuned.check(config_of(dict(RESIZE, type='mmpretrain.ResizeEdge'), dict(CROP, crop_size=(32, 32)), PACK, mean=(
        123.675, 116.28, 103.53)))
    tuned.check(config_of(RESIZE, dict(type='Pad', size=(32, 32)), PACK))  # cannot be compared: a warning
    with pytest.raises(ValueError, match=r'with mean='):  # of the rest
        tuned.check(config_of(RESIZE, dict(type='Pad', size=(32, 32)), PACK, mean=[127.5] * 3))
    fast = dict(RESIZE, type='mmspt.ResizeEdge', backend='torch')  # as recipes say it, which once had Pillow
    tuned.check(config_of(fast, CROP, dict(type='mmspt.PackInputs')))
    Preprocessing.from_config(config_of(fast, CROP, PACK), (32, 32)).check(config_of(RESIZE, CROP, PACK))
    whole = Preprocessing.from_config(config_of(dict(type='Resize', scale=32), PACK), (32, 32))
    whole.check(config_of(dict(type='Resize', scale=(32, 32)), CROP, PACK))
