"""A pack's images are the recipe's own, and nothing in its description can run or ask for more than a bound."""
import inspect
import json
import pathlib
import re
import sys
import warnings

import mmcv
import mmengine.registry
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmpretrain.models import ClsDataPreprocessor
from PIL import Image

from mmspt.packs.preprocessing import KINDS, MAX_PIXELS, MAX_SIDE, Preprocessing

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
RECIPES = {  # file, (height, width)
    'fgvc': ('_base_/datasets/cub.py', (224, 224)),
    'vtab': ('_base_/datasets/vtab.py', (224, 224)),
    'flowers17': ('_base_/datasets/flowers17.py', (224, 224)),
    'flowers17 small': ('spt/vit-xs_mae_flowers17.py', (32, 32)),
    'digits': ('_base_/datasets/digits.py', (16, 16)),
}
LOAD, PACK = dict(type='mmspt.LoadImageFromFile'), dict(type='PackInputs')
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def recipe(name):
    """Test pipeline, data preprocessor, size."""
    file, size = RECIPES[name]
    config = Config.fromfile(CONFIGS / file)
    return config.test_dataloader.dataset.pipeline, config.data_preprocessor, size


def oracle(pipeline, data_preprocessor, item):
    """What MMEngine and MMPretrain make of an item, (3, H, W)."""
    if 'img_path' in item and 'LoadImageFromFile' not in pipeline[0]['type']:  # of digits, which are in memory
        pipeline = [LOAD, *pipeline]
    batch = pseudo_collate([Compose(pipeline)(item)])
    return ClsDataPreprocessor(**data_preprocessor)(batch)['inputs'][0]


def noise(height, width, channels=3):
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return dict(exif=exif)


PICTURES = {  # image, format, options of saving
    'jpeg': (Image.fromarray(noise(301, 277)), 'JPEG', {}),
    'png': (Image.fromarray(noise(255, 403)), 'PNG', {}),
    'small': (Image.fromarray(noise(7, 5)), 'PNG', {}),
    'square': (Image.fromarray(noise(256, 256)), 'PNG', {}),
    'narrow': (Image.fromarray(noise(19, 611)), 'JPEG', {}),
    'grey': (Image.fromarray(noise(231, 257)).convert('L'), 'PNG', {}),
    'grey jpeg': (Image.fromarray(noise(333, 129)).convert('L'), 'JPEG', {}),
    'alpha': (Image.fromarray(noise(225, 223, 4)), 'PNG', {}),
    'palette': (Image.fromarray(noise(123, 321)).quantize(64), 'PNG', {}),
    **{f'orientation {i}': (Image.fromarray(noise(241, 367)), 'JPEG', turned(i)) for i in range(2, 9)},
}


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Name -> path."""
    folder = tmp_path_factory.mktemp('pictures')
    for name, (image, kind, options) in PICTURES.items():
        image.save(folder / name, kind, **options)
    return {name: folder / name for name in PICTURES}


@pytest.mark.parametrize('name', RECIPES)
@pytest.mark.parametrize('picture', PICTURES)
def test_files_as_the_recipe_reads_them(pictures, picture, name):
    pipeline, data_preprocessor, size = recipe(name)
    made = Preprocessing.from_config(pipeline, data_preprocessor, size)(pictures[picture])
    assert made.shape == (3, *size) and made.dtype == torch.float32
    torch.testing.assert_close(made, oracle(pipeline, data_preprocessor, dict(img_path=str(pictures[picture]))),
                               rtol=0, atol=0)


@pytest.mark.parametrize('name', RECIPES)
@pytest.mark.parametrize(('height', 'width'), [(8, 8), (97, 61), (225, 301), (256, 224), (641, 480)])
def test_arrays_as_the_recipe_reads_them(name, height, width):
    pipeline, data_preprocessor, size = recipe(name)
    image = noise(height, width)
    without = [step for step in pipeline if not step['type'].endswith('LoadImageFromFile')]
    made = Preprocessing.from_config(pipeline, data_preprocessor, size)(image)
    torch.testing.assert_close(made, oracle(without, data_preprocessor, dict(img=image.copy())), rtol=0, atol=0)
    np.testing.assert_array_equal(image, noise(height, width))  # the caller's


def test_a_file_is_its_pixels_and_its_name_may_be_text(pictures):
    preprocessing = make()
    made = preprocessing(pictures['png'])
    assert torch.equal(made, preprocessing(str(pictures['png'])))
    assert torch.equal(made, preprocessing(noise(255, 403)[..., ::-1]))  # PNG has RGB; a view with negative strides


def test_grey_arrays_become_colour():
    grey = noise(90, 70, 1)[..., 0]
    assert torch.equal(make()(grey), make()(np.dstack([grey] * 3)))


def test_arrays_that_cannot_be_written_to():
    image = noise(300, 300)
    image.flags.writeable = False
    preprocessing = make(transforms=[dict(type='CenterCrop', crop_size=224)])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert torch.equal(preprocessing(image), preprocessing(noise(300, 300)))


@pytest.mark.parametrize('transform', [dict(type='Resize', scale=[40, 30]), dict(type='CenterCrop', crop_size=[40, 30]),
                                       dict(type='Pad', size=[40, 30])])
def test_views(transform):
    """Rows and columns backwards and channels first; the result lies as tensors do."""
    height, width = (20, 31) if transform['type'] == 'Pad' else (61, 97)
    view = np.ascontiguousarray(noise(height, width).transpose(2, 0, 1)).transpose(1, 2, 0)[::-1, ::-1, ::-1]
    preprocessing = make(transforms=[transform], size=[30, 40], mean=None, std=None, to_rgb=False)
    made = preprocessing(view)
    assert made.is_contiguous() and torch.equal(made, preprocessing(view.copy()))


PIPELINES = {  # transforms, size
    'nothing': ([], (61, 97)),
    'to a rectangle': ([dict(type='Resize', scale=(40, 24))], (24, 40)),
    'as large as fits': ([dict(type='Resize', scale=(64, 48), keep_ratio=True),
                          dict(type='Pad', size=(64, 48), pad_val=7)], (48, 64)),
    'an integer, keeping the ratio': ([dict(type='Resize', scale=50, keep_ratio=True)], (31, 50)),
    'long edge, padded': ([dict(type='ResizeEdge', scale=60, edge='long'), dict(type='Pad', pad_to_square=True)],
                          (60, 60)),
    'height': ([dict(type='ResizeEdge', scale=33, edge='height'), dict(type='CenterCrop', crop_size=(31, 29))],
               (29, 31)),
    'width': ([dict(type='ResizeEdge', scale=33, edge='width')], (20, 33)),
    'crop larger than the image': ([dict(type='CenterCrop', crop_size=80)], (61, 80)),
    'scopes': ([dict(type='mmcv.Resize', scale=70), dict(type='mmpretrain.ResizeEdge', scale=50),
                dict(type='mmcv.CenterCrop', crop_size=32)], (32, 32)),
    'what does nothing here': ([dict(type='Resize', scale=30, clip_object_border=False),
                                dict(type='CenterCrop', crop_size=20, auto_pad=False, clip_object_border=True)],
                               (20, 20)),
    **{f'pad by {mode}': ([dict(type='Pad', size=(250, 200), padding_mode=mode)], (200, 250))
       for mode in ('constant', 'edge', 'reflect', 'symmetric')},
    **{f'{backend} {name}': ([dict(type='Resize', scale=(40, 80), backend=backend, interpolation=name)], (80, 40))
       for backend, names in dict(cv2='nearest bilinear bicubic area lanczos',
                                  pillow='nearest bilinear bicubic box lanczos hamming').items()
       for name in names.split()},
}


@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize('data_preprocessor', [
    {}, IMAGENET, dict(IMAGENET, to_rgb=False, type='ClsDataPreprocessor'),
    dict(mean=[0, 127, 255], std=[1, 2, 255], num_classes=3, pad_size_divisor=1, pad_value=9, to_onehot=True),
], ids=['plain', 'rgb', 'bgr', 'integers'])
def test_every_transform_and_argument(name, data_preprocessor):
    transforms, size = PIPELINES[name]
    made = Preprocessing.from_config([LOAD, *transforms, PACK], data_preprocessor, size)(noise(61, 97))
    options = {key: value for key, value in data_preprocessor.items() if key != 'type'}
    assert made.shape == (3, *size)
    assert torch.equal(made, oracle([*transforms, PACK], options, dict(img=noise(61, 97))))


@pytest.mark.parametrize('to_rgb', [False, True])
def test_normalization_by_hand(to_rgb):
    mean, std = np.array([10, 20.5, 30]), np.array([0.5, 2, 255])
    image = noise(4, 6)
    made = make(transforms=[], size=[4, 6], mean=mean.tolist(), std=std.tolist(), to_rgb=to_rgb)(image)
    expected = ((image[..., ::-1] if to_rgb else image) - mean) / std
    np.testing.assert_allclose(made, expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


def test_normalize_takes_batches():
    batch = torch.from_numpy(noise(8, 6).reshape(2, 4, 6, 3).transpose(0, 3, 1, 2).copy())
    assert torch.equal(make().normalize(batch)[1], make().normalize(batch[1]))


def test_batch_augments_act_on_training_alone():
    augments = dict(augments=[dict(type='Mixup', alpha=0.2)])
    pipeline, data_preprocessor, size = recipe('fgvc')
    with_augments = Preprocessing.from_config(pipeline, dict(data_preprocessor, batch_augments=augments), size)
    assert with_augments == Preprocessing.from_config(pipeline, data_preprocessor, size)
    torch.testing.assert_close(
        with_augments(noise(300, 260)),
        oracle([*pipeline[1:]], dict(data_preprocessor, batch_augments=augments), dict(img=noise(300, 260))),
        rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------------- as JSON

def content(**changes):
    """A valid description, changed."""
    return dict(dict(transforms=[dict(type='ResizeEdge', scale=256, edge='short', backend='pillow',
                                      interpolation='bicubic'), dict(type='CenterCrop', crop_size=224)],
                     size=[224, 224], **IMAGENET), **changes)


def make(**changes):
    return Preprocessing.from_json(content(**changes))


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_survive_json(name):
    made = Preprocessing.from_config(*recipe(name))
    assert Preprocessing.from_json(made.to_json()) == made
    assert Preprocessing.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False))) == made


@pytest.mark.parametrize('name', PIPELINES)
def test_pipelines_survive_json(name):
    transforms, size = PIPELINES[name]
    made = Preprocessing.from_config(transforms, {}, size)
    again = Preprocessing.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made and again.to_json() == made.to_json()
    assert torch.equal(again(noise(61, 97)), made(noise(61, 97)))


def test_json_of_a_recipe():
    assert Preprocessing.from_config(*recipe('fgvc')).to_json() == content()


def test_what_is_left_out_is_written_down():
    """Another default of a later MMCV changes no pack."""
    assert make(transforms=[dict(type='Resize', scale=[224, 200])]).to_json()['transforms'] == [
        dict(type='Resize', scale=[224, 200], keep_ratio=False, backend='cv2', interpolation='bilinear')]


def test_defaults_are_those_of_the_classes():
    for name, kind in KINDS.items():
        defaults = {key: parameter.default for key, parameter in inspect.signature(kind.build).parameters.items()}
        defaults['pad_val'] = 0  # dict(img=0, seg=255)
        assert kind.defaults.items() <= defaults.items(), name


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def step(kind, **arguments):
    """A description of one transform."""
    return content(transforms=[dict(type=kind, **arguments)])


NAN, INFINITY = float('nan'), float('inf')
BAD = {  # description, what the error says
    'nothing': (None, 'must have just the keys'),
    'a list': ([], 'must have just the keys'),
    'text': ('os.system', 'must have just the keys'),
    'an unknown key': (content(seed=1), "just the keys .*'seed'"),
    'a key that is no text': ({**content(), 1: 2}, 'just the keys'),
    **{f'without {key}': ({k: v for k, v in content().items() if k != key}, 'just the keys') for key in content()},
    'transforms none': (content(transforms=None), 'transforms must be a list of at most 8'),
    'transforms a mapping': (content(transforms=dict(type='Resize', scale=2)), 'transforms must be a list'),
    'transforms text': (content(transforms='Resize'), 'transforms must be a list'),
    '9 transforms': (content(transforms=[dict(type='Resize', scale=224)] * 9), 'at most 8'),
    'a transform that is text': (content(transforms=['Resize']), "CenterCrop, Pad, got 'Resize'"),
    'a transform that is a list': (content(transforms=[[]]), 'a transform must be one of'),
    'a transform without a type': (content(transforms=[dict(scale=2)]), 'one of .*, got None'),
    'a type that is a list': (step(['Resize']), 'a transform must be one of'),
    'a type that is a number': (step(1), 'a transform must be one of'),
    'flips': (step('RandomFlip', prob=0.5), "Resize, ResizeEdge, CenterCrop, Pad, got 'RandomFlip'"),
    'several views': (step('TestTimeAug', transforms=[]), "got 'TestTimeAug'"),
    'with a scope': (step('mmcv.Resize', scale=224), "got 'mmcv.Resize'"),
    'a loader': (step('LoadImageFromFile'), "got 'LoadImageFromFile'"),
    'an unknown argument': (step('Resize', scale=2, out='/etc/passwd'), "Resize must have the arguments .*'out'"),
    'boxes': (step('Resize', scale=2, clip_object_border=True), 'Resize must have the arguments'),
    'a factor': (step('Resize', scale_factor=1e9), 'Resize must have the arguments'),
    'padding by the registry': (step('CenterCrop', crop_size=2, auto_pad=True, pad_cfg=dict(type='os.system')),
                                'CenterCrop must have the arguments'),
    'Resize without a scale': (step('Resize'), 'must have the arguments scale'),
    'ResizeEdge without a scale': (step('ResizeEdge', edge='short'), 'must have the arguments scale'),
    'CenterCrop without a size': (step('CenterCrop'), 'must have the arguments crop_size'),
    **{f'Resize to {scale!r:.20}': (step('Resize', scale=scale), 'scale of Resize must be a whole number')
       for scale in (None, 0, -1, 4097, 10**400, 224., True, '224', NAN, [224], [1, 2, 3], [1, 0], [4097, 1],
                     [1, True], [1., 2.], [[1, 2], 3], {}, dict(w=1))},
    **{f'ResizeEdge to {scale!r:.20}': (step('ResizeEdge', scale=scale), 'scale of ResizeEdge must be a whole number')
       for scale in (None, 0, -1, 4097, 224., True, '224', [224, 224])},
    **{f'crop to {size!r}': (step('CenterCrop', crop_size=size), 'crop_size of CenterCrop must be a whole number')
       for size in (None, 0, 4097, 1.5, False, [1], [0, 1], [1, 4097])},
    **{f'edge {edge!r}': (step('ResizeEdge', scale=2, edge=edge), 'edge of ResizeEdge must be one of short, long')
       for edge in (None, 'shortest', 1, ['short'])},
    **{f'backend {backend!r}': (step(kind, scale=2, backend=backend), f'backend of {kind} must be one of cv2, pillow')
       for kind in ('Resize', 'ResizeEdge') for backend in (None, 'tensorflow', 0, ['cv2'])},
    **{f'interpolation {name!r}': (step(kind, scale=2, interpolation=name), f'interpolation of {kind} must be one of')
       for kind in ('Resize', 'ResizeEdge') for name in (None, 'cubic', 3, ['bicubic'])},
    'area of pillow': (step('Resize', scale=2, backend='pillow', interpolation='area'), 'backend that has the interp'),
    'box of cv2': (step('ResizeEdge', scale=2, backend='cv2', interpolation='box'), 'cv2 has nearest, bilinear'),
    'hamming of the default': (step('Resize', scale=2, interpolation='hamming'), 'backend that has the interpolation'),
    **{f'keep_ratio {keep!r}': (step('Resize', scale=2, keep_ratio=keep), 'keep_ratio of Resize must be true or false')
       for keep in (None, 0, 1, 'yes')},
    **{f'Pad to {size!r}': (step('Pad', size=size), 'size of Pad must be two whole numbers from 1 to 4,096, width and')
       for size in (224, [224], [0, 1], [4097, 1], [1, 2.], [1, True], '22')},
    'Pad to nothing': (step('Pad'), 'the arguments of Pad must be of either size or pad_to_square'),
    'Pad to both': (step('Pad', size=[2, 2], pad_to_square=True), 'of either size or pad_to_square'),
    'Pad to a square of 1': (step('Pad', pad_to_square=1), 'pad_to_square of Pad must be true or false'),
    **{f'Pad with {value!r}': (step('Pad', size=[2, 2], pad_val=value), 'pad_val of Pad must be a whole number from 0')
       for value in (None, -1, 256, 1.5, True, [0, 0, 0], dict(img=0))},
    'Pad by wrapping': (step('Pad', size=[2, 2], padding_mode='wrap'), 'padding_mode of Pad must be one of constant'),
    **{f'size {size!r}': (content(size=size), 'size must be two whole numbers from 1 to 4,096, height and width')
       for size in (None, 224, [224], [224, 224, 3], [0, 224], [224, 4097], [224, 224.], [224, True], '22', {})},
    **{f'{key} {value!r:.20}': (content(**{key: value}), f'{key} must be three numbers from {least} to 255, or null')
       for key, least in (('mean', 0), ('std', '0.001'))
       for value in (1, [1], [1, 2], [1, 2, 3, 4], [1, 2, NAN], [1, 2, INFINITY], [1, 2, -1], [1, 2, 256],
                     [1, 2, 10**400], [1, 2, '3'], [1, 2, None], [1, 2, True], '123', {})},
    'std zero': (content(std=[1, 2, 0]), 'std must be three numbers from 0.001'),
    'std zero in float32': (content(std=[1, 2, 1e-300]), 'std must be three numbers from 0.001'),
    'mean alone': (content(std=None), 'mean and std must be given together'),
    'std alone': (content(mean=None), 'mean and std must be given together'),
    **{f'to_rgb {value!r}': (content(to_rgb=value), 'to_rgb must be true or false') for value in (None, 0, 1, 'true')},
    'long text': (step('x' * 1_000_000), 'a transform must be one of'),
    'a long list': (content(mean=[0] * 1_000_000), 'mean must be three numbers'),
    'many keys': (step('Resize', **{f'k{i}': i for i in range(10_000)}), 'Resize must have the arguments'),
    'deep lists': (content(size=nested(900)), 'size must be two whole numbers'),
    'a terminal\'s commands': (step('\x1b[2J'), re.escape(r"'\x1b[2J'")),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_json(name):
    description, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        Preprocessing.from_json(description)
    text = str(error.value)
    assert text.endswith(': correct the recipe and export the pack again')
    assert len(text.removesuffix(': correct the recipe and export the pack again').partition(', got ')[2]) < 100


def test_the_bounds_themselves_are_allowed():
    made = make(transforms=[dict(type='Resize', scale=MAX_SIDE)] * 8, size=[1, MAX_SIDE], mean=[0, 255, 0],
                std=[1e-3, 255, 1])
    assert made.size == (1, MAX_SIDE) and made.std == (1e-3, 255., 1.)


@pytest.mark.parametrize('kind', ['os.system', 'mmspt.packs.preprocessing.os.system', 'antigravity', 'this.s',
                                  'mmspt.search.Study', 'builtins.eval', 'Resize.__init__', 'mmpretrain.os.system'])
@pytest.mark.parametrize('source', ['json', 'config', 'pad_cfg'])
def test_nothing_named_is_imported_or_built(monkeypatch, kind, source):
    def refuse(*args, **kwargs):
        raise AssertionError('a registry was asked')
    monkeypatch.setattr(mmengine.registry.Registry, 'get', refuse)
    monkeypatch.setattr(mmengine.registry.Registry, 'build', refuse)
    monkeypatch.setattr('importlib.import_module', refuse)
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r'must be one of Resize, ResizeEdge, CenterCrop, Pad, got|must have the arg'):
        if source == 'json':
            make(transforms=[dict(type=kind, command='false')])
        elif source == 'config':
            Preprocessing.from_config([LOAD, dict(type=kind, command='false'), PACK], IMAGENET, (2, 2))
        else:
            make(transforms=[dict(type='CenterCrop', crop_size=900, pad_cfg=dict(type=kind), auto_pad=True)])
    assert set(sys.modules) == before


def test_images_are_made_without_a_registry(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('a registry was asked')
    monkeypatch.setattr(mmengine.registry.Registry, 'get', refuse)
    monkeypatch.setattr(mmengine.registry.Registry, 'build', refuse)
    for transforms, size in PIPELINES.values():
        Preprocessing.from_config(transforms, IMAGENET, size)(noise(61, 97))


def test_it_is_a_value(monkeypatch):
    with pytest.raises(AttributeError):
        make().size = (1, 1)
    given = content()
    made = Preprocessing.from_json(given)
    given['transforms'][0]['scale'] = 7
    made.to_json()['transforms'][1]['crop_size'] = 7
    assert made == make()


# ------------------------------------------------------------------------------------------------------ from a config

BAD_CONFIGS = {  # steps between loading and packing, data preprocessor, what the error says
    'flips': ([dict(type='RandomFlip', prob=0.5)], {}, "Resize, ResizeEdge, CenterCrop, Pad, got 'RandomFlip'"),
    'several views': ([dict(type='TestTimeAug', transforms=[[]])], {}, "got 'TestTimeAug'"),
    'a transform of mine': ([dict(type='mmspt.Sharpen')], {}, "got 'mmspt.Sharpen'"),
    'loading twice': ([LOAD], {}, "got 'mmspt.LoadImageFromFile'"),
    'packing twice': ([PACK], {}, "got 'PackInputs'"),
    'padding what is cropped': ([dict(type='CenterCrop', crop_size=2, auto_pad=True)], {}, "'auto_pad'"),
    'a scope of others': ([dict(type='mmdet.Resize', scale=2)], {}, "got 'mmdet.Resize'"),
    'text': (['Resize'], {}, "a step of the pipeline must be dict.*got 'Resize'"),
    'a class': ([dict(type=mmcv.transforms.Resize, scale=2)], {}, 'a step of the pipeline must be dict'),
    'no type': ([dict(scale=2)], {}, 'a step of the pipeline must be dict'),
    'padded batches': ([], dict(pad_size_divisor=32), 'pad_size_divisor of data_preprocessor must be 1 .*got 32'),
    'another preprocessor': ([], dict(type='SelfSupDataPreprocessor'), "must be 'ClsDataPreprocessor' for a pack"),
    'an option of others': ([], dict(bgr_to_rgb=True), "no options beside .*'bgr_to_rgb'"),
    'one mean': ([], dict(mean=[127.5], std=[127.5]), 'mean must be three numbers'),
    'mean alone': ([], dict(mean=[127.5] * 3), 'mean and std must be given together'),
}


@pytest.mark.parametrize('name', BAD_CONFIGS)
def test_bad_configs(name):
    steps, data_preprocessor, message = BAD_CONFIGS[name]
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_config([LOAD, *steps, PACK], data_preprocessor, (2, 2))


@pytest.mark.parametrize('options', [dict(to_float32=True), dict(color_type='grayscale'),
                                     dict(imdecode_backend='pillow')])
def test_loading_otherwise(options):
    with pytest.raises(ValueError, match=f'{next(iter(options))} of LoadImageFromFile must be'):
        Preprocessing.from_config([dict(LOAD, **options), PACK], {}, (2, 2))


def test_packing_otherwise():
    with pytest.raises(ValueError, match="input_key of PackInputs must be 'img'"):
        Preprocessing.from_config([dict(PACK, input_key='depth')], {}, (2, 2))


@pytest.mark.parametrize('loader', ['LoadImageFromFile', 'mmspt.LoadImageFromFile', 'mmpretrain.LoadImageFromFile',
                                    'mmcv.LoadImageFromFile'])
@pytest.mark.parametrize('packer', ['PackInputs', 'mmpretrain.PackInputs'])
@pytest.mark.parametrize('preprocessor', ['ClsDataPreprocessor', 'mmpretrain.ClsDataPreprocessor'])
def test_scopes(loader, packer, preprocessor):
    pipeline = [dict(type=loader, max_pixels=5, backend_args=None, color_type='color'), *content()['transforms'],
                dict(type=packer, meta_keys=())]
    assert Preprocessing.from_config(pipeline, dict(IMAGENET, type=preprocessor), (224, 224)) == make()


def test_the_config_is_not_changed():
    pipeline, data_preprocessor, size = recipe('fgvc')
    before = (json.dumps(pipeline), json.dumps(data_preprocessor))
    Preprocessing.from_config(pipeline, data_preprocessor, size)
    assert (json.dumps(pipeline), json.dumps(data_preprocessor)) == before


# --------------------------------------------------------------------------------------------------------- bad images

@pytest.mark.parametrize('image', [
    noise(9, 9).astype(np.float32), noise(9, 9).astype(np.int64), noise(9, 9) > 7, noise(9, 9, 1), noise(9, 9, 4),
    noise(9, 9)[None], noise(9, 9)[0, 0], np.zeros((0, 9, 3), np.uint8), np.zeros((9, 0), np.uint8),
    np.array(None)], ids=['float', 'int64', 'bool', '1 channel', '4 channels', 'batch', 'row', 'no rows', 'no columns',
                          'object'])
def test_bad_arrays(image):
    message = f'must be uint8, (H, W, 3) in BGR or (H, W) of grey, and not empty, got {image.dtype}, {image.shape}'
    with pytest.raises(ValueError, match=re.escape(message)):
        make()(image)


@pytest.mark.parametrize('image', [None, 7, b'image.png', [[1, 2], [3, 4]], torch.zeros(4, 4, 3, dtype=torch.uint8)])
def test_neither_path_nor_array(image):
    with pytest.raises(ValueError, match=f'must be a path or an array, got {type(image).__name__}'):
        make()(image)


def test_bad_files(tmp_path):
    (tmp_path / 'empty.png').touch()
    (tmp_path / 'text.png').write_text('text')
    for name, message in (('none.png', 'none.png'), ('empty.png', 'the file is empty'), ('text.png', 'finds no image')):
        with pytest.raises(ValueError, match=f"every image must be readable, but '.*{name}' is not .*{message}"):
            make()(tmp_path / name)


def test_a_bomb_is_not_decoded(tmp_path):
    Image.new('1', (9460, 9460)).save(tmp_path / 'bomb.png')
    with pytest.raises(ValueError, match='9,460 x 9,460 pixels are over max_pixels=89,478,485'):
        make()(tmp_path / 'bomb.png')


def test_another_size_names_both(tmp_path):
    Image.fromarray(noise(20, 30)).save(tmp_path / 'small.png')
    preprocessing = make(transforms=[dict(type='CenterCrop', crop_size=24)], size=[24, 24])
    with pytest.raises(ValueError, match=r"24 x 24 pixels \(height x width\), but '.*small.png' comes to 20 x 24"):
        preprocessing(tmp_path / 'small.png')
    with pytest.raises(ValueError, match='but the array comes to 24 x 20'):
        preprocessing(noise(30, 20))


EDGE = dict(type='ResizeEdge', scale=256, backend='pillow', interpolation='bicubic')
EXTREMES = {  # (height, width), transforms, what the error says
    'a line': ((1, 60_000), [EDGE], 'makes 256 x 15,360,000 pixels .height x width. of 1 x 60,000, but a'),
    'a column': ((60_000, 1), [EDGE], 'ResizeEdge makes 15,360,000 x 256 .* must not exceed 65,535'),
    'the area alone': ((2000, 4), [dict(EDGE, scale=4096, edge='width')], '2,048,000 x 4,096'),
    'a square of a line': ((1, 60_000), [dict(type='Pad', pad_to_square=True)], 'makes 60,000 x 60,000 .*89,478,485'),
    'held on the way': ((60_000, 1), [dict(type='Resize', scale=(4096, 4), backend='pillow')],
                        'Resize makes 4 x 4,096 pixels .* nor the area on the way 89,478,485'),
    'after another': ((100, 100), [dict(type='CenterCrop', crop_size=(100, 1)), EDGE,
                                   dict(type='Pad', pad_to_square=True)], 'Pad makes 25,600 x 25,600 pixels'),
    'too long': ((1, 70_000), [dict(type='Resize', scale=16)], 'a side must not exceed 65,535'),
    'too long afterwards': ((300, 1), [EDGE], 'makes 76,800 x 256 pixels .* a side must not exceed 65,535'),
    'nothing left of the height': ((1, 1000), [dict(EDGE, edge='long')], 'makes 0 x 256 .* side must keep a pixel'),
    'nothing left of the width': ((1000, 1), [dict(type='Resize', scale=224, keep_ratio=True)], 'makes 224 x 0'),
}


@pytest.mark.parametrize('name', EXTREMES)
def test_images_too_extreme_for_a_transform(monkeypatch, name):
    """Refused before any resizing."""
    (height, width), transforms, message = EXTREMES[name]
    preprocessing = make(transforms=transforms)
    image = np.zeros((height, width, 3), np.uint8)
    if name != 'after another':
        monkeypatch.setattr(mmcv, 'imresize', None)
        monkeypatch.setattr(mmcv, 'impad', None)
    with pytest.raises(ValueError, match=f'^the array: .*{message}'):
        preprocessing(image)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('interpolation', ['nearest', 'bilinear', 'bicubic', 'lanczos'])
@pytest.mark.parametrize(('height', 'width'), [(1, 65_535), (65_535, 1), (1, 1)])
def test_as_extreme_as_allowed(backend, interpolation, height, width):
    made = make(transforms=[dict(type='Resize', scale=16, backend=backend, interpolation=interpolation)],
                size=[16, 16], mean=None, std=None)(np.full((height, width, 3), 77, np.uint8))
    assert torch.equal(made, torch.full((3, 16, 16), 77.))


@pytest.mark.parametrize('name', PIPELINES)
@pytest.mark.parametrize('seed', range(5))
def test_sizes_foreseen_are_those_made(name, seed):
    """The bound on memory rests on them."""
    for height, width in np.random.default_rng(seed).integers(1, 400, (10, 2)).tolist():
        image = np.zeros((height, width, 3), np.uint8)
        for transform in Preprocessing.from_config(PIPELINES[name][0], {}, (1, 1)).transforms:
            kind, arguments = KINDS[transform['type']], {k: v for k, v in transform.items() if k != 'type'}
            foreseen = kind.leaves(arguments, *image.shape[:2])
            assert foreseen[0] * foreseen[1] <= MAX_PIXELS
            if min(foreseen) < 1:
                break
            image = kind.build(**arguments)(dict(img=image))['img']
            assert image.shape == (*foreseen, 3)
