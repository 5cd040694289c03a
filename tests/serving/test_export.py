"""Exported models against the ordinary PyTorch model on the same images, and what their graphs hold."""
import copy
import json
import os
import sys

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from helpers import SMALL
from mmspt.serving import export as exporting
from mmspt.serving.export import check, export
from mmspt.serving.folded import FoldedModel

CLS, MEAN = dict(out_type='cls_token'), dict(out_type='avg_featmap', final_norm=False)
CASES = [
    CLS, MEAN, dict(MEAN, prompt_type='shallow'), dict(CLS, num_prompts=0),
    dict(CLS, type='mmspt.GatedPromptedViT', out_indices=[0, 1]),
    dict(MEAN, pool_prompts=False, img_size=(32, 48)),
    dict(CLS, concatenate=True, in_channels=1),
    dict(MEAN, frozen=False, drop_rate=0.3, drop_path_rate=0.3, prompt_drop_rate=0.5, with_cls_token=False),
    dict(CLS, pre_norm=True, layer_scale_init_value=0.1, qkv_bias=False), dict(CLS, num_registers=2),
    dict(out_type='cls_avg_featmap', num_registers=2),
    dict(MEAN, num_registers=3, pre_norm=True, layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU'))),
]


def classifier(**kwargs):
    """A small classifier with random weights, as training leaves it: in training mode, with gradients."""
    backbone = dict(type='mmspt.PromptedViT', num_prompts=4, allow_random_backbone=True) | SMALL | copy.deepcopy(kwargs)
    channels = kwargs.get('in_channels', 3)
    model = MODELS.build(dict(
        type='mmspt.ImageClassifier', backbone=backbone, head=dict(type='LinearClsHead', num_classes=7),
        data_preprocessor=dict(mean=[123.675, 116.28, 103.53][:channels], std=[58.395, 57.12, 57.375][:channels],
                               to_rgb=True)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.train()


def pixels(model, count):
    """Random uint8 images as MMPretrain reads them (BGR), and the same as float RGB."""
    channels, (height, width) = model.backbone.patch_embed.projection.in_channels, model.backbone.img_size
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)
    return images, (images.flip(1) if channels == 3 else images).float()


def scores_of_a_test_run(model, images):
    """Scores of MMPretrain's own test step."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        samples = model.test_step(dict(inputs=list(images), data_samples=[DataSample() for _ in images]))
    return torch.stack([sample.pred_score for sample in samples])


def assert_same_scores(logits, expected):
    torch.testing.assert_close(torch.as_tensor(logits).softmax(dim=1), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('kwargs', CASES, ids=str)
def test_folded_model_gives_the_scores_of_a_test_run(kwargs):
    model = classifier(**kwargs)
    raw, images = pixels(model, 3)
    assert_same_scores(FoldedModel(model)(images), scores_of_a_test_run(model, raw))


def test_another_size_than_img_size(tmp_path):
    model, raw = classifier(**MEAN), torch.randint(0, 256, (3, 3, 24, 40), dtype=torch.uint8)
    export(model, str(tmp_path / 'model.pt2'), size=(24, 40))
    run = exporting.KINDS['.pt2'].load(str(tmp_path / 'model.pt2'))
    assert_same_scores(run(raw.flip(1).float()), scores_of_a_test_run(model, raw))


def test_preprocessing_is_part_of_the_network():
    model = classifier()
    raw, images = pixels(model, 2)
    for given, scale in ((dict(mean=[10., 20., 30.], std=[40., 50., 60.]), 1), (dict(to_rgb=True), 255)):
        model.data_preprocessor = MODELS.build(dict(type='ClsDataPreprocessor', **given))
        assert_same_scores(FoldedModel(model)(images / scale), scores_of_a_test_run(model, raw / scale))


def test_the_given_model_is_not_changed_and_its_weights_are_shared():
    model = classifier(prompt_drop_rate=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    folded = FoldedModel(model).train()
    assert not any(module.training for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    own = dict(model.named_parameters())
    shared = dict(folded.backbone.named_parameters(prefix='backbone'))
    assert set(own) - set(shared) == {'backbone.prompts.tokens', 'head.fc.weight', 'head.fc.bias'}
    assert all(value.data_ptr() == own[name].data_ptr() for name, value in shared.items())
    assert folded.head.weight.data_ptr() == model.head.fc.weight.data_ptr()
    folded.double()
    assert model.backbone.prompts.tokens.requires_grad and model.head.fc.weight.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(('kwargs', 'expected'), [
    (CLS, dict.fromkeys(('keys_values_0', 'keys_values_1', 'keys_values_2'), (4, 2, 2, 16))),
    (MEAN, dict(keys_values_0=(4, 2, 2, 16), keys_values_1=(4, 2, 2, 16), tokens_2=(4, 32))),
    (dict(MEAN, prompt_type='shallow'), dict(tokens_0=(4, 32))),
], ids=str)
def test_prompts_are_constants_of_the_folded_model(kwargs, expected):
    folded = FoldedModel(classifier(**kwargs))
    assert {name: tuple(value.shape) for name, value in folded._buffers.items() if 'pixel' not in name} == expected
    assert all(value.untyped_storage().nbytes() == 4 * value.numel() for value in folded._buffers.values())
    assert 'backbone.prompts.tokens' not in folded.state_dict()


def load(path):
    """A file as a function of images, and its notes, by the library alone."""
    if path.suffix == '.onnx':
        ort = pytest.importorskip('onnxruntime')
        session = ort.InferenceSession(str(path), providers=['CPUExecutionProvider'])
        return (lambda images: session.run(['logits'], dict(images=images.numpy()))[0],
                session.get_modelmeta().custom_metadata_map)
    notes = {'mmspt.json': ''}
    return torch.export.load(str(path), extra_files=notes).module(), json.loads(notes['mmspt.json'])


@pytest.mark.parametrize(('ending', 'kwargs'), [
    ('pt2', dict(MEAN, prompt_type='shallow')), ('onnx', CLS)], ids=str)
def test_a_file_gives_the_scores_of_a_test_run_for_any_batch(ending, kwargs, tmp_path):
    """What a user's program reads, notes included; a file that differs from the model is refused."""
    if ending == 'onnx':
        pytest.importorskip('onnx')
    model, path = classifier(**kwargs), tmp_path / f'model.{ending}'
    written = export(model, str(path), classes=['ä', *'bcdefg'])
    assert written == ([str(path)], path.stat().st_size, written.difference) and 0. <= written.difference <= 1e-4
    assert check(str(path), model) == written.difference
    run, notes = load(path)
    for count in (1, 2, 7):
        raw, images = pixels(model, count)
        assert_same_scores(run(images), scores_of_a_test_run(model, raw))
    assert {name: json.loads(value) for name, value in notes.items() if name != 'mmspt_version'} == dict(
        class_names=['ä', *'bcdefg'], image_size=[*model.backbone.img_size], pixels='RGB, 0 to 255, float32',
        normalization='part of the graph')
    before = path.read_bytes()
    assert os.path.dirname(exporting.__file__).encode() not in before  # nothing tells of this machine
    with torch.no_grad():
        model.backbone.prompts.tokens.neg_()
    with pytest.raises(RuntimeError, match='must be those of PyTorch'):
        check(str(path), model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, 'TOLERANCE', -1.)
        with pytest.raises(RuntimeError, match='must be those of PyTorch'):
            export(model, str(path))
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    with torch.no_grad():
        model.head.fc.bias[0] = np.nan
    with pytest.raises(RuntimeError, match='nan'):
        check(str(path), model)


def test_the_graph_of_an_onnx_file(tmp_path, monkeypatch):
    """Prompts are constants; weights of large models lie beside the file."""
    onnx = pytest.importorskip('onnx')
    monkeypatch.setattr(exporting, 'ONE_FILE', 1000)
    model = classifier(img_size=(32, 48), **MEAN)
    written = export(model, str(tmp_path / 'model.onnx'))
    assert sorted(os.listdir(tmp_path)) == ['model.onnx', 'model.onnx.data']
    assert written.paths == [str(tmp_path / name) for name in ('model.onnx', 'model.onnx.data')]
    assert written.num_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    os.rename(tmp_path, tmp_path.with_name('moved'))
    graph = onnx.load(str(tmp_path.with_name('moved') / 'model.onnx')).graph
    assert [node.op_type for node in graph.node].count('LayerNormalization') == 7
    shapes = {tuple(tensor.dims) for tensor in graph.initializer}
    folded = {tuple(value.shape) for name, value in FoldedModel(model)._buffers.items() if 'pixel' not in name}
    assert {shape for shape in shapes if shape[:1] == (4, )} == folded
    for value, expected in ((graph.input[0], ('images', [3, 32, 48])), (graph.output[0], ('logits', [7]))):
        assert (value.name, [axis.dim_value for axis in value.type.tensor_type.shape.dim][1:]) == expected


@pytest.mark.parametrize(('change', 'message'), [
    (lambda model: model.backbone, 'got PromptedViT of NoneType'),
    (lambda model: model.half(), 'must be float32, got torch.float16'),
    (lambda model: setattr(model, 'neck', torch.nn.Identity()), 'PromptedViT, Identity, LinearClsHead'),
    (lambda model: setattr(model.backbone, 'out_type', 'raw'), "got 'raw'"),
    (lambda model: setattr(model.data_preprocessor, 'pad_size_divisor', 32), 'pad_size_divisor=32'),
])
def test_models_that_cannot_be_folded(change, message):
    model = classifier()
    with pytest.raises(ValueError, match=message):
        FoldedModel(change(model) or model)


def test_wrong_calls(tmp_path, monkeypatch):
    model = classifier()
    with pytest.raises(ValueError, match='each of the 7 classes, got 2'):
        export(model, str(tmp_path / 'model.pt2'), classes=['a', 'b'])
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(ImportError, match=r"onnxscript cannot be found: pip install 'mmspt\[onnx\]'"):
        export(model, str(tmp_path / 'model.onnx'))
    assert os.listdir(tmp_path) == []
