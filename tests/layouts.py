"""The paper's 24 data sets in their real layouts, at toy size: 3 classes, 4 images each to train on, 2 to test on."""
import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

CLASSES, TRAIN, TEST = 3, 4, 2
FOLDERS = dict(cub='CUB_200_2011', nabirds='nabirds', flowers102='flowers102', dogs='stanford_dogs',
               cars='stanford_cars')


def write_image(path: Path, label: int, number: int) -> None:
    """Write a photograph-like JPEG of 40 x 36 pixels; its colour tells the class."""
    generator = np.random.default_rng((label, number))
    pixels = generator.integers(0, 120, (36, 40, 3), dtype=np.uint8)
    pixels[..., label % 3] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def images() -> list[tuple[int, int, bool]]:
    """(label, number, whether it is a training image), classes mixed."""
    return [(label, number, number < TRAIN) for number in range(TRAIN + TEST) for label in range(CLASSES)]


def make_birds(root: Path, class_ids: list[str], folder: str, image_id: str) -> None:
    """CUB's and NABirds' lists: `<image id> <value>` in three files."""
    lists = dict(images=[], image_class_labels=[], train_test_split=[])
    for i, (label, number, train) in enumerate(images(), 1):
        path, key = f'{folder.format(label=label, id=class_ids[label])}/{number:04d}.jpg', image_id.format(i)
        write_image(root / 'images' / path, label, number)
        for name, value in zip(lists, (path, class_ids[label], int(train)), strict=True):
            lists[name].append(f'{key} {value}')
    for name, lines in lists.items():
        (root / f'{name}.txt').write_text('\n'.join(lines) + '\n')


def make_cub(root: Path) -> None:
    make_birds(root, ['1', '2', '3'], '00{id}.Bird_{label}', '{}')


def make_nabirds(root: Path) -> None:
    make_birds(root, ['295', '817', '1010'], '0{id}', '0000139e-21dc-4d0c-bfe1-{:012d}')
    (root / 'classes.txt').write_text('0 Birds\n295 Common Eider (Male)\n817 Oak Titmouse\n1010 Dark-eyed Junco\n')


def make_flowers102(root: Path) -> None:
    ids = dict(trnid=[], valid=[], tstid=[])
    labels = []
    for i, (label, number, _) in enumerate(images(), 1):
        write_image(root / 'jpg' / f'image_{i:05d}.jpg', label, number)
        ids['trnid' if number < 2 else 'valid' if number < TRAIN else 'tstid'].append(i)
        labels.append(label + 1)
    savemat(root / 'imagelabels.mat', dict(labels=np.array([labels], dtype=np.uint8)))
    savemat(root / 'setid.mat', {name: np.array([value], dtype=np.uint16) for name, value in ids.items()})


def make_dogs(root: Path) -> None:
    breeds = ['n02085620-Chihuahua', 'n02085782-Japanese_spaniel', 'n02085936-Maltese_dog']
    for split in ('train', 'test'):
        chosen = [(f'{breeds[label]}/{breeds[label].split("-")[0]}_{number}.jpg', label, number)
                  for label, number, train in images() if train == (split == 'train')]
        for file, label, number in chosen:
            write_image(root / 'Images' / file, label, number)
        files = np.empty((len(chosen), 1), dtype=object)
        files[:, 0] = [file for file, _, _ in chosen]
        labels = np.array([[label + 1] for _, label, _ in chosen], dtype=np.uint8)
        savemat(root / f'{split}_list.mat', dict(file_list=files, labels=labels))


def make_cars(root: Path, layout: str = 'devkit') -> None:
    kinds = [('fname', object), ('class', object)] if layout == 'devkit' else [
        ('relative_im_path', object), ('class', object), ('test', object)]
    records = dict(train=[], test=[])
    for i, (label, number, train) in enumerate(images(), 1):
        split = 'train' if train else 'test'
        name = f'{len(records[split]) + 1:05d}.jpg' if layout == 'devkit' else f'car_ims/{i:06d}.jpg'
        write_image(root / (f'cars_{split}' if layout == 'devkit' else '') / name, label, number)
        records[split].append((name, label + 1) if layout == 'devkit' else (name, label + 1, int(not train)))
    if layout == 'devkit':
        (root / 'devkit').mkdir()
        for split, name in (('train', 'cars_train_annos'), ('test', 'cars_test_annos_withlabels')):
            savemat(root / 'devkit' / f'{name}.mat', dict(annotations=as_struct(records[split], kinds)))
    else:
        savemat(root / 'cars_annos.mat', dict(annotations=as_struct(records['train'] + records['test'], kinds)))


def as_struct(records: list[tuple], kinds: list[tuple]) -> np.ndarray:
    """A 1 x N struct array, as MATLAB has it."""
    array = np.empty((1, len(records)), dtype=kinds)
    for i, record in enumerate(records):
        array[0, i] = record
    return array


def make_vtab(root: Path, task: str) -> None:
    """One task in the list layout."""
    lists = dict(train800=[], val200=[], test=[])
    for label, number, _ in images():
        split = 'train800' if number < TRAIN - 1 else 'val200' if number < TRAIN else 'test'
        path = f'images/{split}/{label}_{number}.jpg'
        write_image(root / task / path, label % 2 if task == 'patch_camelyon' else label, number)
        lists[split].append(f'{path} {label % 2 if task == "patch_camelyon" else label}')
    lists['train800val200'] = lists['train800'] + lists['val200']
    for name, lines in lists.items():
        (root / task / f'{name}.txt').write_text('\n'.join(lines) + '\n')


def make_task(key: str, data: Path) -> Path:
    """Build a task (a key of mmspt's TASKS) below ``data`` where the recipes look for it; return its data_root."""
    root = data / ('vtab-1k' if key.startswith('vtab_') else FOLDERS[key])
    root.mkdir(parents=True, exist_ok=True)
    if key.startswith('vtab_'):
        make_vtab(root, key.removeprefix('vtab_'))
    else:
        globals()[f'make_{key}'](root)
    return root


def add_vpt_lists(root: Path, splits: dict[str, dict[str, int]]) -> None:
    """Write VPT's three lists, {image: class}."""
    for split, content in splits.items():
        (root / f'{split}.json').write_text(json.dumps(content))
