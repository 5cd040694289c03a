"""tools/predict.py as a user calls it."""
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from PIL import Image

import forked
from helpers import ROOT, environment, golden_checkpoint, load_tool, make_images, tiny_backbone, tool
from mmspt.packs.architecture import Architecture
from mmspt.packs.pack import Pack
from mmspt.packs.preprocessing import Preprocessing

CHECKPOINT = golden_checkpoint('mae_deep')
PREPROCESSING = Preprocessing((32, 32), (32, 32), mean=(120., 110., 100.), std=(60., 50., 55.), to_rgb=True)
CLASSES = {'birds': ('jay', 'rook', 'tern\u00e9', 'wren'), 'dogs': ('collie', 'pug')}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Two tasks' packs and classifiers, and a folder of six images and one that is damaged."""
    root = tmp_path_factory.mktemp('predict')
    torch.manual_seed(0)
    models, packs = {}, {}
    for task, classes in CLASSES.items():
        model = MODELS.build(dict(type='ImageClassifier', backbone=tiny_backbone('mae_deep'), head=dict(
            type='LinearClsHead', num_classes=len(classes), in_channels=64)))
        model.init_weights()
        torch.nn.init.normal_(model.backbone.prompts.tokens)
        torch.nn.init.normal_(model.head.fc.weight)
        models[task] = model.eval()
        packs[task] = root / f'{task}.safetensors'
        vit = model.backbone
        Pack(task, classes, vit.prompts.tokens, model.head.fc.weight, model.head.fc.bias, Architecture.from_model(vit),
             vit.fingerprint(), PREPROCESSING, checkpoint='mae_\x1b[31m.pth').save(packs[task])
    images = [str(root / 'images' / name) for name, _ in make_images(root / 'images', per_class=2)]
    broken = root / 'images' / 'class_1' / 'broken.jpg'
    broken.write_bytes(b'\xff\xd8 no picture')
    (root / 'images' / 'notes.txt').write_text('no image')
    return SimpleNamespace(root=root, models=models, packs=packs, images=images, broken=str(broken),
                           folder=root / 'images', args=['--packs', *packs.values(), '--backbone', CHECKPOINT])


def check(made, line):
    """A line says what MMPretrain's classifier says of the image."""
    with torch.no_grad():
        scores = made.models[line['task']](PREPROCESSING(line['image'])[None])[0].softmax(0)
    assert line['label'] == int(scores.argmax()) and line['class'] == CLASSES[line['task']][line['label']]
    assert line['score'] == pytest.approx(float(scores.max()), abs=1e-5)
    assert line['top'][0] == {key: line[key] for key in ('class', 'label', 'score')}
    labels = [choice['label'] for choice in line['top']]
    assert labels == scores.argsort(descending=True)[:len(labels)].tolist()


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_standard_output_is_json_lines_alone(made):
    done = subprocess.run([sys.executable, str(ROOT / 'tools' / 'predict.py'), *map(str, [made.folder, *made.args])],
                          env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    expected = sorted([*made.images, made.broken])
    assert [(line['image'], line['task']) for line in lines] == [
        (image, task) for image in expected for task in CLASSES]
    broken = [line for line in lines if line['image'] == made.broken]
    assert all(set(line) == {'image', 'task', 'error'} and made.broken in line['error'] for line in broken)
    answered = [line for line in lines if line['image'] != made.broken]
    assert len(answered) == 12
    for line in answered:
        assert set(line) == {'image', 'task', 'class', 'label', 'score', 'top'}
        assert len(line['top']) == len(CLASSES[line['task']])
        check(made, line)
    assert 'predict: 2 of 14 answers are errors' in done.stderr


def test_patterns_one_task_and_a_file(made, tmp_path):
    out = tmp_path / 'new' / 'answers.jsonl'
    output = tool('predict.py', f'{made.folder}/class_[02]/*.png', made.images[0], *made.args, '--tasks', 'dogs',
                  '--topk', 1, '--batch-size', 3, '--out', out)
    lines = read(out)
    assert [line['image'] for line in lines] == made.images[:2] + made.images[4:]
    for line in lines:
        assert line['task'] == 'dogs' and len(line['top']) == 1
        check(made, line)
    assert f'4 lines written to {out}' in output and os.listdir(out.parent) == ['answers.jsonl']


def test_requests_name_their_tasks(made, tmp_path):
    requests, out = tmp_path / 'requests.jsonl', tmp_path / 'out.jsonl'
    requests.write_text('\n'.join([
        json.dumps(dict(image=made.images[1], task='second')), '', json.dumps(dict(image=made.images[0])),
        json.dumps(dict(task='birds', image=str(tmp_path / 'absent.png')))]))
    tool('predict.py', '--requests', requests, '--backbone', CHECKPOINT, '--packs', made.packs['birds'],
         f'second={made.packs["dogs"]}', '--out', out, fails=True)
    lines = read(out)
    assert [(line['image'], line['task']) for line in lines] == [
        (made.images[1], 'second'), (made.images[0], 'birds'), (made.images[0], 'second'),
        (str(tmp_path / 'absent.png'), 'birds')]
    assert 'absent.png' in lines[3]['error']
    for line in lines[:3]:
        check(made, line | dict(task=line['task'].replace('second', 'dogs')))


@pytest.mark.parametrize(('args', 'message'), [
    (['--packs', '{birds}', '--backbone', CHECKPOINT], 'either IMAGES or --requests must be given, got neither'),
    (['{image}', '--packs', '{birds}'], r"they call it 'mae_\x1b[31m.pth'. No file is opened because a pack names it"),
    (['{image}', '--packs', '{birds}', '{birds}', '--backbone', CHECKPOINT], 'write --packs OTHER='),
    (['{image}', '--packs', '{birds}', '--backbone', CHECKPOINT, '--tasks', 'cats'], "among 'birds', got 'cats'"),
    (['{image}', '--packs', '{birds}', '--backbone', CHECKPOINT, '--topk', '0'], 'topk must be'),
    (['{root}/*.png', '--packs', '{birds}', '--backbone', CHECKPOINT], 'names none'),
    (['--requests', '{root}/blank', '--packs', '{birds}', '--backbone', CHECKPOINT], 'blank has none'),
    (['--requests', '{root}/text', '--packs', '{birds}', '--backbone', CHECKPOINT], 'line 2 of {root}/text is not'),
    (['--requests', '{root}/cats', '--packs', '{birds}', '--backbone', CHECKPOINT], "has 'cats'"),
    (['{image}', '--packs', '{birds}', '--backbone', CHECKPOINT, '--out', '{birds}/out'], "{birds}/out' is not ("),
])
def test_bad_input_is_one_clear_line(made, tmp_path, args, message):
    files = dict(blank='\n \n', text='{"image": "a.png"}\n{image\n', cats='{"image": "a.png", "task": "cats"}\n')
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    names = dict(image=made.images[0], birds=made.packs['birds'], root=tmp_path)
    output = tool('predict.py', *(arg.format(**names) for arg in args), fails=True)
    assert message.format(**names) in output
    assert 'Traceback' not in output and '\x1b' not in output and '"score"' not in output


def many(made, tmp_path, *args):
    """Arguments for so many requests that the tool does not end soon."""
    requests = tmp_path / 'many.jsonl'
    requests.write_text((json.dumps(dict(image=made.images[0])) + '\n') * 200_000)
    return [str(arg) for arg in ('--requests', requests, '--batch-size', 2, *made.args, *args)]


@pytest.mark.slow
def test_a_reader_that_has_had_enough(made, tmp_path):
    with subprocess.Popen([sys.executable, str(ROOT / 'tools' / 'predict.py'), *many(made, tmp_path)],
                          env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        first = process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 141
        check(made, json.loads(first))
        assert 'Traceback' not in process.stderr.read()


def test_an_interrupt_leaves_nothing_half_written(made, tmp_path):
    folder, log = tmp_path / 'out', tmp_path / 'log'
    process = forked.start('predict.py', many(made, tmp_path, '--out', folder / 'out.jsonl'), log,
                           partial(signal.signal, signal.SIGINT, signal.default_int_handler), environment=environment())
    end = time.monotonic() + 120
    while not folder.is_dir() and time.monotonic() < end:
        time.sleep(0.05)
    try:
        assert [name.endswith('.tmp') for name in os.listdir(folder)] == [True]
        os.kill(process.pid, signal.SIGINT)
        process.join(120)
        assert process.exitcode == 130
    finally:
        process.kill()
    assert 'out.jsonl was not written' in log.read_text() and 'Traceback' not in log.read_text()
    assert os.listdir(folder) == []


def test_names_of_any_kind(made, tmp_path):
    """NAME of a pack ends at the first equals sign, but an existing path is a path; an image's need not be UTF-8."""
    path, image = tmp_path / 'a=b.safetensors', tmp_path / os.fsdecode(b'caf\xe9 [1].png')
    path.write_bytes(Path(made.packs['birds']).read_bytes())
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(image)
    for given, name in ((path, 'birds'), (f'mine={path}', 'mine')):
        out = tmp_path / f'{name}.jsonl'
        tool('predict.py', image, '--packs', given, '--backbone', CHECKPOINT, '--out', out)
        line, = read(out)
        assert (line['task'], line['image']) == (name, str(image))
        check(made, line | dict(task='birds'))


def test_hidden_files_are_left_out(tmp_path):
    """What notebooks and macOS leave in folders; a hidden file that is named is taken."""
    for name in ('a.jpg', '._a.jpg', '.ipynb_checkpoints/a-checkpoint.jpg', 'b/c.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    find_images = load_tool('predict').find_images
    assert find_images([str(tmp_path)]) == [str(tmp_path / name) for name in ('a.jpg', 'b/c.png')]
    assert find_images([str(tmp_path / '._a.jpg')]) == [str(tmp_path / '._a.jpg')]
