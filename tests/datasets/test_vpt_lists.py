"""VPT's own lists of the five fine-grained data sets, where someone has put them into the folder."""
import pytest

from layouts import add_vpt_lists, make_cars, make_task

# where VPT's paths start (its src/data/datasets/json_dataset.py): birds' and dogs' image folder, the others' root
FOLDERS = dict(cub='images', nabirds='images', flowers102='jpg', dogs='Images', cars='car_ims')
CASES = [(key, base, 'names') for key, base in zip(FOLDERS, ('images', 'root') * 3, strict=False)]
CASES += [('cub', 'root', 'numbers')]
SPLITS = dict(train=8, val=4, test=6)
IDS = dict(numbers=[512, 7, 30], names=['b', 'c', 'a'])
LABELS = dict(numbers=[2, 0, 1], names=[1, 2, 0])  # places of the ids above in ascending order


def make(key, data, base, ids, colour):
    """A data set with VPT's lists, written from what is on the disk."""
    root = make_task(key, data) if key != 'cars' else data / 'cars'
    if key == 'cars':
        make_cars(root, 'annos')
    folder = root / FOLDERS[key]
    images = [(str(path.relative_to(folder if base == 'images' else root)), ids[colour(path)])
              for path in sorted(folder.rglob('*.jpg'))]
    mixed = [images[i * 7 % 18] for i in range(18)]
    add_vpt_lists(root, dict(train=dict(mixed[:8]), val=dict(mixed[8:12]), test=dict(mixed[12:])))
    return root


@pytest.mark.parametrize(('key', 'base', 'kind'), CASES)
def test_lists(key, base, kind, tmp_path, tasks):
    root = make(key, tmp_path, base, IDS[kind], tasks.colour)
    found = {split: tasks.items(tasks.build(key, root, split)) for split in (*SPLITS, 'trainval')}
    assert {split: len(found[split]) for split in SPLITS} == SPLITS
    assert found['trainval'] == found['train'] + found['val']
    for path, label in [item for split in SPLITS for item in found[split]]:
        assert label == LABELS[kind][tasks.colour(path)]


def test_official_lists_beside_them(tmp_path, tasks):
    root = make('cub', tmp_path, 'images', IDS['names'], tasks.colour)
    assert len(tasks.build('cub', root, 'val', lists='official')) == 2
    assert len(tasks.build('cub', root, 'val', lists='vpt')) == len(tasks.build('cub', root, 'val')) == 4


def test_incomplete(tmp_path, tasks):
    root = make('cub', tmp_path, 'images', IDS['names'], tasks.colour)
    (root / 'val.json').unlink()
    with pytest.raises(FileNotFoundError, match=r"must be there together.*without val.json.*set lists='official'"):
        tasks.build('cub', root, 'test')
    assert len(tasks.build('cub', root, 'test', lists='official')) == 6


@pytest.mark.parametrize(('split', 'content', 'message'), [
    ('val', '{"a.jpg": "unknown"}', r"class must occur in train.json, but 'a.jpg' in val.json.*has 'unknown'"),
    ('train', '{"a.jpg": 1, "b.jpg": "x"}', 'all whole numbers or all names'),
    ('test', '{"a.jpg": 1', 'must be valid JSON, but .*test.json'),
    ('test', '["a.jpg"]', 'must be a JSON object .*test.json'),
])
def test_bad_content(split, content, message, tmp_path, tasks):
    root = make('cub', tmp_path, 'images', IDS['names'], tasks.colour)
    (root / f'{split}.json').write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tasks.build('cub', root, split)


def test_first_image_missing_elsewhere_found(tmp_path, tasks):
    """Where the paths start is told by any image that exists, not by the first one alone."""
    root = make('flowers102', tmp_path, 'images', IDS['names'], tasks.colour)
    first = next(iter(tasks.items(tasks.build('flowers102', root))))[0]
    (root / first).unlink()
    with pytest.raises(FileNotFoundError, match='1 of 8 do not'):
        tasks.build('flowers102', root)
