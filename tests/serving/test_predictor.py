"""Many tasks on one backbone, against MMPretrain's classifiers that do one task each, and the authors' numbers."""
import copy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from PIL import Image

import mmspt
from helpers import DATA, SMALL, command, golden_checkpoint, tiny_backbone
from mmspt.models import PromptedViT
from mmspt.models.weights.fingerprint import to_hex
from mmspt.packs.architecture import Architecture
from mmspt.packs.pack import Pack
from mmspt.packs.preprocessing import Preprocessing
from mmspt.serving.predictor import MultiTaskPredictor

MEAN, CLS = dict(out_type='avg_featmap', final_norm=False), dict(out_type='cls_token')
GATED = dict(prompts=dict(type='mmspt.GatedPrompts'))
TASKS = {  # classes, backbone
    'birds': (5, dict(num_prompts=4, **MEAN)),
    'dogs': (3, dict(num_prompts=4, **MEAN)),
    'patches alone': (4, dict(num_prompts=4, pool_prompts=False, **MEAN)),
    'six prompts': (4, dict(num_prompts=6, **MEAN)),
    'shallow mean': (2, dict(num_prompts=5, prompt_type='shallow', **MEAN)),
    'cls': (6, dict(num_prompts=4, **CLS)),
    'other cls': (5, dict(num_prompts=4, pool_prompts=False, **CLS)),
    'shallow cls': (3, dict(num_prompts=5, prompt_type='shallow', **CLS)),
    'gated cls': (4, dict(GATED, num_prompts=5, **CLS)),
    'other gated cls': (2, dict(GATED, num_prompts=5, **CLS)),
    'probe of cls': (4, dict(num_prompts=0, **CLS)),
    'probe of mean': (5, dict(num_prompts=0, prompt_type='shallow', **MEAN)),
    'both': (3, dict(num_prompts=4, out_type='cls_avg_featmap')),
}
NETWORK = SMALL | dict(num_registers=2, pre_norm=True)
PASSES = 10
"""birds and dogs go together, and so do the two of cls and the two gated of cls."""
RESIZED = Preprocessing((32, 32), (32, 32), mean=(120., 110., 100.), std=(60., 50., 55.), to_rgb=True)
CROPPED = replace(RESIZED, resize=None, crop=True)


def classifier(weights, classes, concatenate=False, **kwargs):
    """MMPretrain's, tuned at random on the given frozen weights."""
    model = MODELS.build(dict(
        type='mmspt.ImageClassifier', head=dict(type='LinearClsHead', num_classes=classes),
        backbone=dict(type='mmspt.PromptedViT', concatenate=concatenate) | NETWORK | copy.deepcopy(kwargs))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if hasattr(model.backbone.prompts, 'temperatures'):
        torch.nn.init.uniform_(model.backbone.prompts.temperatures, 0.3, 12.)  # some beyond their range
    model.backbone.load_state_dict(weights)
    return model


def pack_of(model, task, preprocessing=RESIZED, **kwargs):
    """What was tuned of a classifier."""
    tokens, scale, gate = (None, None, None) if model.backbone.prompts is None else model.backbone.prompts()
    given = dict(
        task=task, classes=tuple(f'{task} {i}' for i in range(model.head.num_classes)), prompts=tokens,
        weight=model.head.fc.weight, bias=model.head.fc.bias, backbone=Architecture.from_model(model.backbone),
        fingerprint=model.backbone.fingerprint(), preprocessing=preprocessing, checkpoint='their_vit.pth',
        logit_scale=scale, gate=gate) | kwargs
    return Pack(**given)


@pytest.fixture(scope='module')
def weights():
    """Of the frozen network."""
    torch.manual_seed(7)
    vit = PromptedViT(num_prompts=0, **copy.deepcopy(NETWORK))
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vit.state_dict()


@pytest.fixture(scope='module')
def models(weights):
    """Task -> classifier. Tests must not change them."""
    torch.manual_seed(8)
    return {task: classifier(weights, classes, **kwargs) for task, (classes, kwargs) in TASKS.items()}


@pytest.fixture(scope='module')
def packs(models):
    """Task -> pack."""
    return {task: pack_of(model, task) for task, model in models.items()}


@pytest.fixture
def vit(weights):
    """The frozen network, as somebody built it."""
    vit = PromptedViT(num_prompts=0, **copy.deepcopy(NETWORK))
    vit.load_state_dict(weights)
    return vit


@pytest.fixture
def predictor(vit, packs):
    return MultiTaskPredictor(vit, packs)


def assert_close(actual, expected):
    """1e-5, relative to the largest logit."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize('order', [
    list(TASKS), ['dogs', 'birds', 'dogs', 'birds'], ['probe of cls', 'shallow cls', 'probe of cls']], ids='-'.join)
def test_a_mixed_batch_gives_what_each_task_gives_alone(predictor, models, weights, order):
    """Whichever way its classifier computes prompts; one name stands for all images."""
    images = torch.randn(len(order), 3, 32, 32)
    for image, task, logits in zip(images, order, predictor.logits(images, order), strict=True):
        classes, kwargs = TASKS[task]
        concatenated = classifier(weights, classes, concatenate=True, **kwargs)
        concatenated.load_state_dict(models[task].state_dict())
        with torch.no_grad():
            assert_close(logits, models[task](image[None])[0])
            assert_close(logits, concatenated(image[None])[0])
    with torch.no_grad():
        assert_close(torch.stack(predictor.logits(images, order[0])), models[order[0]](images))


@pytest.mark.parametrize('case', ['mae_deep', 'mocov3_shallow'])
def test_the_authors_logits_from_files(case, tmp_path):
    arrays = {key: torch.from_numpy(value) for key, value in np.load(DATA / f'{case}.npz').items()}
    vit = MODELS.build(tiny_backbone(case))
    vit.init_weights()
    Pack('task', tuple('abcdefg'), arrays['prompt'], arrays['head_weight'], arrays['head_bias'],
         Architecture.from_model(vit), vit.fingerprint(), RESIZED).save(tmp_path / 'pack.safetensors')
    predictor = MultiTaskPredictor(golden_checkpoint(case), device='cpu')
    assert predictor.tasks == {}
    predictor.add(tmp_path / 'pack.safetensors', 'named here')
    assert_close(torch.stack(predictor.logits(arrays['x'], 'named here')), arrays['logits'])
    assert list(predictor.tasks) == ['named here'] and predictor.tasks['named here'].task == 'task'


def seen_by(predictor, images, tasks):
    """How many (images, tokens) enter each block's MLP, pass by pass."""
    seen = []
    hooks = [layer.ffn.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[:2])))
             for layer in predictor._vit.layers]
    predictor.logits(images, tasks)
    for hook in hooks:
        hook.remove()
    return seen


def test_tasks_of_one_structure_share_a_pass_and_its_short_end(predictor):
    images = torch.randn(4, 3, 32, 32)
    assert seen_by(predictor, images, ['cls', 'other cls', 'cls', 'cls']) == [(4, 19), (4, 19), (4, 1)]
    assert seen_by(predictor, images, 'cls') == [(4, 19), (4, 19), (4, 1)]
    assert seen_by(predictor, images[:3], ['cls', 'shallow cls', 'cls']) == [
        (2, 19), (2, 19), (2, 1), (1, 24), (1, 24), (1, 1)]

    names = [*TASKS, *TASKS]
    images = torch.randn(len(names), 3, 32, 32)
    calls = []
    hook = predictor._vit.patch_embed.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    predictor.logits(images, names)
    hook.remove()
    assert len(calls) == PASSES and sum(calls) == len(names)


def test_packs_come_and_go_while_the_backbone_stays(vit, packs, models, monkeypatch):
    calls = []
    prepare = PromptedViT.prepare
    monkeypatch.setattr(PromptedViT, 'prepare', lambda self, *args: calls.append(1) or prepare(self, *args))
    before = {name: (weight.data_ptr(), weight._version, weight.clone()) for name, weight in vit.state_dict().items()}
    predictor = MultiTaskPredictor(vit.train(), [packs['birds']])
    images = torch.randn(2, 3, 32, 32)
    for expected in (1, 1):
        predictor.logits(images, 'birds')
        assert len(calls) == expected
    predictor.add(packs['cls'])
    predictor.add(replace(packs['dogs'], task='birds'), replace=True)
    predictor.logits(images, ['birds', 'cls'])
    assert len(calls) == 3
    with torch.no_grad():
        assert_close(predictor.logits(images, 'birds')[0], models['dogs'](images)[0])
    predictor.remove('birds')
    with pytest.raises(ValueError, match="one of 'cls', got 'birds'"):
        predictor.logits(images, 'birds')
    assert vit.prompts is None and vit.out_type == 'cls_token' and vit.training
    for name, weight in vit.state_dict().items():
        pointer, version, values = before[name]
        assert (weight.data_ptr(), weight._version) == (pointer, version) and torch.equal(weight, values)
    shared = {weight.data_ptr() for weight in predictor._vit.state_dict().values()}
    assert shared == {pointer for pointer, _, _ in before.values()}


def storages(*tensors):
    """Address -> bytes of every storage."""
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}


@pytest.mark.parametrize('task', ['birds', 'gated cls', 'probe of cls'])
def test_a_task_takes_at_most_twice_its_pack(predictor, packs, task):
    served = predictor.tasks[task]
    held = storages(served.weight, served.bias, *(part for block in served.prompts for part in block
                                                  if part is not None))
    assert sum(held.values()) == predictor.tasks[task].nbytes <= 2 * packs[task].nbytes
    assert held.keys().isdisjoint(storages(*packs[task].tensors().values()))  # a view would keep all of it


def test_half_precision_packs_become_single_precision(vit, packs, models):
    """Also if autocast was on when they were added."""
    half = replace(packs['birds'], **{name: getattr(packs['birds'], name).detach().half()
                                      for name in ('prompts', 'weight', 'bias')})
    with torch.autocast('cpu', torch.bfloat16):
        predictor = MultiTaskPredictor(vit, [half])
    rounded = copy.deepcopy(models['birds'])
    for parameter in (rounded.backbone.prompts.tokens, rounded.head.fc.weight, rounded.head.fc.bias):
        parameter.data = parameter.data.half().float()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_close(torch.stack(predictor.logits(images, 'birds')), rounded(images))


def test_a_classifier_brings_its_backbone(models, packs, task='gated cls'):
    """Not what was tuned on it."""
    images = torch.randn(2, 3, 32, 32)
    before = models[task](images)
    predictor = MultiTaskPredictor(models[task], [packs[name] for name in ('birds', 'other gated cls', 'shallow mean')])
    with torch.no_grad():
        for name in predictor.tasks:
            assert_close(torch.stack(predictor.logits(images, name)), models[name](images))
        assert torch.equal(models[task](images), before)


@pytest.fixture
def files(tmp_path):
    """Images, of which the third is damaged and the fifth is missing."""
    generator = np.random.default_rng(0)
    paths = [tmp_path / f'{i}.png' for i in range(6)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (40, 44, 3), dtype=np.uint8)).save(path)
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    paths[4].unlink()
    return paths


def test_images_that_cannot_be_read_do_not_stop_the_others(vit, models, files):
    predictor = MultiTaskPredictor(vit, [pack_of(models['birds'], 'birds', RESIZED),
                                         pack_of(models['cls'], 'cls', CROPPED)])
    names = ['birds', 'cls', 'birds', 'cls', 'cls', 'birds']
    found = predictor.predict(files, names, batch_size=2, topk=4)
    assert [answer.task for answer in found] == names
    for i in (2, 4):
        assert str(files[i]) in found[i].error and found[i].top == ()
        assert found[i].label is found[i].class_name is found[i].score is None
    for i in (0, 1, 3, 5):
        path, name, answer = files[i], names[i], found[i]
        with torch.no_grad():
            scores = models[name]((RESIZED if name == 'birds' else CROPPED)(path)[None])[0].softmax(0)
        assert answer.error is None and len(answer.top) == 4
        assert [choice.label for choice in answer.top] == scores.argsort(descending=True)[:4].tolist()
        assert (answer.label, answer.class_name) == (int(scores.argmax()), f'{name} {int(scores.argmax())}')
        assert [choice.score for choice in answer.top] == pytest.approx(scores.topk(4).values.tolist(), abs=1e-5)
        assert answer.score == answer.top[0].score


def test_arrays_and_files_are_the_same(predictor, files):
    good = [files[i] for i in (0, 1, 3)]
    arrays = [np.asarray(Image.open(path))[..., ::-1] for path in good]
    assert predictor.predict(arrays, 'dogs', topk=9) == predictor.predict([str(path) for path in good], 'dogs', topk=9)
    assert len(predictor.predict(np.stack(arrays), 'dogs')) == 3
    assert 'uint8' in predictor.predict([arrays[0].astype(float)], 'dogs')[0].error


def test_an_image_for_several_tasks_is_read_once(predictor, files, monkeypatch):
    calls = []
    read = Preprocessing.__call__
    monkeypatch.setattr(Preprocessing, '__call__', lambda self, image: calls.append(image) or read(self, image))
    predictor.predict([files[0], files[0], files[1], files[0]], ['birds', 'cls', 'birds', 'dogs'])
    assert sorted(calls) == files[:2]


def test_a_stream_reads_two_batches_ahead_at_most(predictor):
    drawn = []

    def requests():
        for _ in range(40):
            drawn.append(1)
            yield np.zeros((32, 32, 3), np.uint8), 'birds'

    answers = predictor.stream(requests(), batch_size=4)
    next(answers)
    assert 4 <= len(drawn) <= 8
    assert len(list(answers)) == 39
    with pytest.raises(ValueError, match="got 'cats'"):
        list(predictor.stream(iter([(np.zeros((32, 32, 3), np.uint8), 'cats')])))


def test_a_batch_keeps_the_packs_it_started_with(predictor, packs, models):
    def swap(module, args):
        hook.remove()
        predictor.add(replace(packs['dogs'], task='birds'), replace=True)
        predictor.remove('cls')

    images = torch.randn(2, 3, 32, 32)
    hook = predictor._vit.layers[1].register_forward_pre_hook(swap)
    found = predictor.logits(images, ['birds', 'cls'])
    assert 'cls' not in predictor.tasks
    with torch.no_grad():
        assert_close(found[0], models['birds'](images[:1])[0])
        assert_close(found[1], models['cls'](images[1:])[0])


def test_import_mmspt_imports_neither_the_predictor_nor_onnx():
    command(sys.executable, '-c', 'import sys, mmspt; '
            'assert not {"mmspt.serving.predictor", "onnx", "onnxruntime", "onnxscript"} & set(sys.modules)')
    assert mmspt.MultiTaskPredictor is MultiTaskPredictor


IMAGES = torch.zeros(2, 3, 32, 32)
ARRAY = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda predictor: predictor.logits(IMAGES, ['birds', 'cats']), "one of 'birds', 'dogs', .*got 'cats': add"),
    (lambda predictor: predictor.predict([], []), 'at least one image'),
    (lambda predictor: predictor.logits(IMAGES, ['birds']), 'got 1 for 2 images'),
    (lambda predictor: predictor.logits(IMAGES[..., :24], 'birds'), r'= \(2, 3, 32, 32\), got \(2, 3, 32, 24\)'),
    (lambda predictor: predictor.predict(ARRAY, 'birds'), 'put it into a list'),
    (lambda predictor: predictor.predict([ARRAY], 'birds', batch_size=0), 'batch_size must be .* got 0'),
])
def test_bad_calls_are_refused_before_anything_runs(predictor, call, message):
    ran = []
    predictor._vit.patch_embed.register_forward_pre_hook(lambda module, args: ran.append(1))
    with pytest.raises(ValueError, match=message):
        call(predictor)
    assert not ran and list(predictor.tasks) == list(TASKS)


def test_names_must_differ(vit, packs):
    """And packs come in a list or a dict."""
    with pytest.raises(ValueError, match=r"'birds' is served already.*dict of names"):
        MultiTaskPredictor(vit, [packs['birds'], packs['birds']])
    predictor = MultiTaskPredictor(vit, {'one': packs['birds'], 'other': packs['birds']})
    assert list(predictor.tasks) == ['one', 'other']
    with pytest.raises(ValueError, match='replace=True'):
        predictor.add(packs['dogs'], 'one')
    assert predictor.tasks['one'].classes[0] == 'birds 0'
    with pytest.raises(ValueError, match='put it into a list'):
        MultiTaskPredictor(vit, packs['birds'])


def test_a_pack_of_another_backbone_is_refused(predictor, packs, weights, vit):
    other = classifier({**weights, 'cls_token': weights['cls_token'] + 1e-3}, 3, num_prompts=4, **MEAN)
    with pytest.raises(ValueError) as caught:
        predictor.add(pack_of(other, 'foreign'))
    for part in ("'foreign'", to_hex(other.backbone.fingerprint()), to_hex(vit.fingerprint()), 'their_vit.pth'):
        assert part in str(caught.value)
    wide = replace(packs['birds'], preprocessing=replace(RESIZED, size=(16, 64)),
                   backbone=replace(packs['birds'].backbone, img_size=(16, 64)))
    with pytest.raises(ValueError, match=r"'wide' has .*\(16, 64\).* the backbone .*\(32, 32\)"):
        predictor.add(wide, 'wide')
    assert predictor.tasks.keys() == TASKS.keys()


def test_what_is_no_backbone_or_device(vit):
    with pytest.raises(ValueError, match="checkpoint's path, a PromptedViT or a classifier"):
        MultiTaskPredictor(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="'warp' is not"):
        MultiTaskPredictor(vit, device='warp')
