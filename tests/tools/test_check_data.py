"""tools/check_data.py: one run over a data set says everything that is wrong with it."""
import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers import load_tool, make_images, tool
from layouts import add_vpt_lists, make_task
from mmspt.datasets import tasks

LOADER = "{role}_dataloader = dict(dataset=dict(type='CustomDataset', data_root={root!r}, data_prefix='images', " \
         "ann_file='{role}.txt', pipeline=[]))"


def run(monkeypatch, capsys, *args, status):
    """Run the tool in this process; return its output and what it writes with --json."""
    monkeypatch.setattr(sys, 'argv', ['check_data.py', *map(str, args)])
    monkeypatch.setenv('COLUMNS', '200')
    with pytest.raises(SystemExit) as exit_:
        load_tool('check_data').main()
    captured = capsys.readouterr()
    assert exit_.value.code == status, captured
    return captured.out + captured.err


@pytest.fixture
def check(monkeypatch, capsys, tmp_path):
    def call(*args, status=1):
        output = run(monkeypatch, capsys, *args, '--json', tmp_path / 'report.json', status=status)
        return output, json.loads((tmp_path / 'report.json').read_text())
    return call


@pytest.fixture
def toy_sizes(monkeypatch):
    """Let the tasks be as big as the toy versions of tests/layouts.py."""
    for key, task in tasks.TASKS.items():
        fine = key in tasks.FGVC
        train, val = (6, 6) if key == 'flowers102' else (10, 2) if fine else (9, 3)
        toy = task._replace(num_classes=2 if key == 'vtab_patch_camelyon' else 3,
                            sizes=dict(train=train, val=val, trainval=12, test=6))
        monkeypatch.setitem(tasks.TASKS, key, toy)


@pytest.fixture
def own(tmp_path):
    """Data of one's own: list files of three classes, and a config."""
    root = tmp_path / 'own'
    items = make_images(root / 'images', per_class=6)
    for i, role in enumerate(('train', 'val', 'test')):
        lines = [f'{path} {label}' for j, (path, label) in enumerate(items) if j % 3 == i]
        (root / f'{role}.txt').write_text('\n'.join(lines) + '\n')

    loaders = [LOADER.format(role=role, root=str(root)) for role in ('train', 'val', 'test')]
    (root / 'config.py').write_text('\n'.join(['model = dict(head=dict(num_classes=3))', *loaders]))
    return root


def texts(report, split):
    return [finding['text'] for finding in report['findings'] if finding['split'] == split and not finding['note']]


def test_nothing_wrong(check, tmp_path, toy_sizes, monkeypatch):
    """The fine-grained tasks where the recipes look for them."""
    for key in tasks.FGVC:
        make_task(key, tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    output, reports = check('fgvc', '--workers', 2, status=0)
    assert len(reports) == 5 and 'nothing wrong' in output
    rows = [row for report in reports for row in report['splits']]
    assert all(row['status'] == 'ok' and row['unreadable'] == 0 and row['images'] == row['expected'] for row in rows)


def test_as_a_user_runs_it(tmp_path):
    """The command itself, on real sizes: a toy is not the published data set."""
    output = tool('check_data.py', 'cub', make_task('cub', tmp_path), fails=True)
    assert '10 images are listed, the published split has 5,394' in output and '10 / 5,394' in output


def test_one_fault_hides_no_other(check, tmp_path, toy_sizes):
    """A missing list, a broken, a missing and a repeated image, and a label, all in one run."""
    root = make_task('vtab_svhn', tmp_path)
    folder = root / 'svhn'
    (folder / 'val200.txt').unlink()
    (folder / 'images/test/0_4.jpg').write_bytes(b'<html>')
    (folder / 'images/train800/1_0.jpg').unlink()
    Image.open(folder / 'images/train800/2_1.jpg').save(folder / 'images/test/2_5.png')
    lines = (folder / 'test.txt').read_text().replace('2_5.jpg 2', '2_5.png 2').replace('1_4.jpg 1', '1_4.jpg 3')
    (folder / 'test.txt').write_text(lines)
    output, (report, ) = check('vtab_svhn', root)
    assert texts(report, 'val') == ["a data set must come with all its lists, but "
                                    f"'{folder}/val200.txt' does not exist"]
    assert texts(report, 'train') == ['1 of 9 listed images are missing']
    assert texts(report, 'test') == ['labels run 0..3, but must lie in 0..2: 1 of 6 do not',
                                     '1 of 6 images cannot be read']
    assert texts(report, 'train/test') == ["1 of 6 images of 'test' are in 'train' too"]
    assert f'{folder}/images/test/2_5.png = {folder}/images/train800/2_1.jpg' in output
    assert f'{folder}/images/test/0_4.jpg (UnidentifiedImageError: cannot identify image file' in output
    assert '-> unpack SVHN as docs/data.md says' in output and 'tools/check_data.py' not in output


def test_quick(check, tmp_path, toy_sizes):
    """Decodes nothing, and still knows missing images and paths that two lists share."""
    root = make_task('vtab_svhn', tmp_path)
    folder = root / 'svhn'
    (folder / 'images/test/0_4.jpg').write_bytes(b'<html>')
    output, _ = check('vtab_svhn', root, '--quick', status=0)
    assert 'not looked' in output
    line = (folder / 'train800.txt').read_text().splitlines()[0]
    (folder / 'test.txt').write_text((folder / 'test.txt').read_text().replace('images/test/1_4.jpg 1', line))
    _, (report, ) = check('vtab_svhn', root, '--quick')
    assert texts(report, 'train/test') == ["1 of 6 images of 'test' are in 'train' too"]


@pytest.mark.parametrize('key', ['vtab_dsprites_loc', 'vtab_svhn'])
def test_data_sets_that_repeat_images(key, check, tmp_path, toy_sizes):
    """dSprites' own images repeat, which is worth a note alone."""
    folder = make_task(key, tmp_path) / key.removeprefix('vtab_')
    (folder / 'images/test/0_4.jpg').write_bytes((folder / 'images/train800/0_0.jpg').read_bytes())
    _, (report, ) = check(key, folder.parent, status=int(key == 'vtab_svhn'))
    finding, = (finding for finding in report['findings'] if finding['split'] == 'train/test')
    assert finding['note'] == (key != 'vtab_svhn')


def test_vpt_lists(check, tmp_path, toy_sizes):
    """They are read and named; incomplete ones are a fault."""
    root = make_task('cub', tmp_path)
    files = sorted(str(path.relative_to(root / 'images')) for path in root.rglob('*.jpg'))
    ids = {path: path.split('/')[0] for path in files}
    parts = dict(train=[f for i, f in enumerate(files) if i % 6 in (0, 1, 2)], val=files[3::6],
                 test=[f for i, f in enumerate(files) if i % 6 > 3])
    add_vpt_lists(root, {split: {f: ids[f] for f in names} for split, names in parts.items()})
    _, (report, ) = check('cub', root)
    assert report['name'].endswith("VPT's lists") and [row['images'] for row in report['splits']] == [9, 3, 6]
    (root / 'val.json').unlink()
    output, _ = check('cub', root)
    assert 'train.json, test.json without val.json' in output


def test_no_folder(check, tmp_path):
    """One finding for each task, not one for each list."""
    _, reports = check('vtab', tmp_path / 'nowhere')
    assert len(reports) == 19 and all(len(report['findings']) == 1 for report in reports)
    assert reports[5]['findings'][0]['text'] == f"the folder '{tmp_path}/nowhere/svhn' does not exist"


@pytest.mark.parametrize(('argument', 'message'), [
    ('vtab_svnh', "did you mean 'vtab_svhn'"),
    ('birds', 'TASK must be one of cub, nabirds, flowers102'), ('no/config.py', "'no/config.py' is not")])
def test_what_there_is_not(argument, message, monkeypatch, capsys):
    assert message in run(monkeypatch, capsys, argument, status=2)


def test_config(own, check):
    output, (report, ) = check(own / 'config.py', status=0)
    assert [row['images'] for row in report['splits']] == [6, 6, 6] and 'nothing wrong' in output
    with open(own / 'val.txt', 'a') as file:
        file.write('a.png\n')
    _, (report, ) = check(own / 'config.py', '--cfg-options', 'model.head.num_classes=4')
    assert texts(report, 'train') == ['1 of 4 classes have no image: 3']
    assert texts(report, 'val') == [f"{own}/val.txt:7: a line must be '<path> <label>' with a whole number as label, "
                                    "but is 'a.png': number the classes from 0, in the order of metainfo.classes"]
    assert [row['split'] for row in report['splits']] == ['train', 'test']


def test_config_of_folders_wrapped_and_shared(own, check):
    """Sub-folders as classes, inside a wrapper; validation and test on one data set."""
    (own / 'config.py').write_text(f"""
data = dict(type='CustomDataset', data_root={str(own)!r}, data_prefix='images', pipeline=[])
train_dataloader = dict(dataset=dict(type='RepeatDataset', times=2, dataset=data))
val_dataloader = dict(dataset=dict(data, test_mode=True))
test_dataloader = val_dataloader
""")
    _, (report, ) = check(own / 'config.py')
    assert [row['images'] for row in report['splits']] == [18, 18]
    assert texts(report, 'train/val') == ["18 of 18 images of 'val' are in 'train' too"]
    fault, = (finding for finding in report['findings'] if finding['split'] == 'test')
    assert fault['text'].startswith('the test set must not be the validation set too') and not fault['note']


FOLDERS = "{role}_dataloader = dict(dataset=dict(type={kind!r}, data_root={root!r}, data_prefix={role!r}))"


@pytest.mark.parametrize(('kind', 'change', 'train', 'val'), [
    ('CustomDataset', lambda root: shutil.rmtree(root / 'val/class_1'), [],
     ["class names must agree, since a label means the class at its place, but val lacks 'class_1', compared with "
      "train: set type='mmspt.CustomDataset' in its data set, whose labels follow the names of the folders"]),
    ('mmspt.CustomDataset', lambda root: shutil.rmtree(root / 'val/class_1'), [], []),
    ('mmspt.CustomDataset', lambda root: (root / 'train/.ipynb_checkpoints').mkdir(), [], []),
    ('mmspt.CustomDataset', lambda root: (root / 'val/class_1/000.png').rename(root / 'val/class_1/0.webp'), [], []),
    ('CustomDataset', lambda root: (root / 'val/class_1/000.png').rename(root / 'val/class_1/0.webp'), [],
     ["left out of '{root}/val': files: 1 .webp (extensions=[...] names the endings to read)"])])
def test_class_folders(kind, change, train, val, check, tmp_path):
    """Judged by the names, as a training judges them; the class that is absent is named, not another."""
    root = tmp_path / 'folders'
    for seed, role in enumerate(('train', 'val')):
        make_images(root / role, per_class=2, seed=seed)
    change(root)
    loaders = [FOLDERS.format(role=role, kind=kind, root=str(root)) for role in ('train', 'val')]
    (root / 'config.py').write_text('\n'.join(['model = dict(head=dict(num_classes=3))', *loaders]))
    _, (report, ) = check(root / 'config.py', status=int(bool(train + val)))
    assert (texts(report, 'train'), texts(report, 'val')) == (train, [text.format(root=root) for text in val])
    notes = [finding['text'] for finding in report['findings'] if finding['note']]
    if kind != 'CustomDataset' and not (root / 'val/class_1').exists():
        assert notes == ["val lacks 'class_1', compared with train, whose names its labels follow",
                         '1 of 3 classes have no image: class_1']
    assert ('hidden folders' in str(notes)) == (root / 'train/.ipynb_checkpoints').exists()


def test_several_labels_an_image(own, check):
    """MMPretrain's MultiLabelDataset; an image may have no label, and one that is out of range is named."""
    data = [dict(img_path=path, gt_label=labels) for path, labels in (
        ('class_0/000.png', [0, 2]), ('class_1/000.png', []), ('class_2/000.png', [1, 3]))]
    (own / 'train.json').write_text(json.dumps(dict(metainfo=dict(classes=['a', 'b', 'c']), data_list=data)))
    (own / 'config.py').write_text(f"""
model = dict(head=dict(num_classes=3))
train_dataloader = dict(dataset=dict(type='MultiLabelDataset', data_root={str(own)!r}, data_prefix='images',
                                     ann_file='train.json'))
""")
    _, (report, ) = check(own / 'config.py')
    assert texts(report, 'train') == ['labels run 0..3, but must lie in 0..2: 1 of 3 do not']
    (own / 'train.json').write_text((own / 'train.json').read_text().replace('[1, 3]', '[1]'))
    _, (report, ) = check(own / 'config.py', status=0)
    assert report['splits'][0]['images'] == 3 and not report['findings']


def test_half_of_the_classes_is_meant_if_the_config_says_so(check, tmp_path):
    """The toy has 3 of 200 species: a fault of the folder, until a config's head has 3 classes, too."""
    root = make_task('cub', tmp_path)
    (tmp_path / 'config.py').write_text(f"""
model = dict(head=dict(num_classes=3))
train_dataloader = dict(dataset=dict(type='mmspt.CUB', data_root={str(root)!r}, split='trainval', pipeline=[]))
test_dataloader = dict(dataset=dict(type='mmspt.CUB', data_root={str(root)!r}, split='test', pipeline=[]))
""")
    output, (report, ) = check('cub', root)
    assert '197 of 200 classes have no image: 3, 4, 5, 6, 7, ...' in texts(report, 'train')
    assert 'or check a config whose model.head.num_classes is the number that you mean' in output
    output, (report, ) = check(tmp_path / 'config.py', status=0)
    assert [(row['images'], row['expected'], row['classes'], row['expected_classes']) for row in report['splits']] == [
        (12, None, 3, 3), (6, None, 3, 3)]
    _, (report, ) = check(tmp_path / 'config.py', '--cfg-options', 'model.head.num_classes=200')
    assert [row['expected'] for row in report['splits']] == [5994, 5794]
    next((root / 'images').rglob('0000.jpg')).unlink()  # a finding, where building the data set would stop
    assert texts(check(tmp_path / 'config.py')[1][0], 'train') == ['1 of 12 listed images are missing']
    fewer = tmp_path / 'config.py', '--cfg-options', 'model.head.num_classes=2'
    assert texts(check(*fewer)[1][0], 'test') == ['labels run 0..2, but must lie in 0..1: 2 of 6 do not']


@pytest.mark.parametrize(('content', 'text'), [
    ('a = 1', "a config must name a data set, but '{path}' does not"),
    ("train_dataloader = dict(dataset=dict(type='CustomDataset', data_root='{folder}', with_label=False))",
     "must give 'gt_label' and 'img_path' or 'img' of each image, but CustomDataset gives img_path"),
    ("train_dataloader = dict(dataset=dict(type='NoSuchDataset'))", 'NoSuchDataset is not in the')])
def test_config_without_images(content, text, check, tmp_path):
    path = tmp_path / 'config.py'
    make_images(tmp_path / 'images', per_class=1)
    path.write_text(content.replace('{folder}', str(tmp_path)))
    _, (report, ) = check(path)
    assert text.format(path=path) in report['findings'][0]['text']


def test_images_in_memory(check):
    """scikit-learn's digits, in no file: counted, labels checked, compared with each other."""
    config = Path(__file__).parents[2] / 'configs/spt/vit-xs_mae_digits.py'
    _, (report, ) = check(config, status=0)
    assert [row['images'] for row in report['splits']] == [200, 300, 500] and not report['findings']
    _, (report, ) = check(config, '--cfg-options', 'test_dataloader.dataset.split=train')
    assert texts(report, 'train/test') == ["200 of 997 images of 'test' are in 'train' too"]


def test_skipping_hides_nothing(own, check):
    """A config that leaves bad images out is checked as if it did not."""
    bad = own / 'images' / (own / 'train.txt').read_text().splitlines()[1].split()[0]
    bad.write_bytes(b'')
    (own / 'config.py').write_text(f"""
data = dict(type='CustomDataset', data_root={str(own)!r}, data_prefix='images', ann_file='train.txt',
            pipeline=[dict(type='mmspt.LoadImageFromFile')])
train_dataloader = dict(dataset=dict(type='mmspt.SkipBadImages', dataset=data))
""")
    output, (report, ) = check(own / 'config.py')
    assert texts(report, 'train') == ['1 of 6 images cannot be read'] and str(bad) in output


def test_report_that_cannot_be_written(monkeypatch, capsys, tmp_path):
    """Said before hours of decoding, not after."""
    monkeypatch.chdir(tmp_path)
    output = run(monkeypatch, capsys, 'cub', '--json', 'no/report.json', status=2)
    assert "file in a folder that exists, got 'no/report.json'" in output
