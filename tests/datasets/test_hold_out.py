"""The held-out tenth: sizes, shares, and that it can never change unnoticed."""
import hashlib
import math

import numpy as np
import pytest

from mmspt.datasets.hold_out import hold_out


def names_and_labels(size, classes, seed=0):
    """Images of classes that differ in size, at least one each."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, size - classes)])
    return [f'class_{label}/{i:06d}.jpg' for i, label in enumerate(labels)], labels.tolist()


@pytest.mark.parametrize(('size', 'classes', 'held_out'), [
    (5994, 200, 600), (23929, 555, 2393), (12000, 120, 1200), (8144, 196, 815)])
def test_published_sizes(size, classes, held_out):
    """CUB, NABirds, Dogs and Cars: VPT's table 8; and no class gives more or less than a tenth, rounded."""
    names, labels = names_and_labels(size, classes)
    chosen = hold_out(names, labels)
    assert len(chosen) == size and sum(chosen) == held_out
    sizes = np.bincount(labels)
    counts = np.bincount([label for label, held in zip(labels, chosen, strict=True) if held], minlength=classes)
    assert all(math.floor(n / 10) <= count <= math.ceil(n / 10) for n, count in zip(sizes, counts, strict=True))


def test_largest_remainders_first():
    """Tenths of 19, 15 and 11 are 1.9, 1.5 and 1.1: five in all, so two classes give one more."""
    labels = [0] * 11 + [1] * 19 + [2] * 15
    chosen = hold_out([f'{i}.jpg' for i in range(45)], labels)
    assert [sum(chosen[:11]), sum(chosen[11:30]), sum(chosen[30:])] == [1, 2, 2]


def test_the_split_is_pinned():
    """If this fails, 'val' of CUB, NABirds, Dogs and Cars has changed, and no result compares with earlier ones."""
    names = [f'{i % 7:03d}.Class/image_{i:04d}.jpg' for i in range(300)]
    chosen = hold_out(names, [i % 7 for i in range(300)])
    held = '\n'.join(sorted(name for name, h in zip(names, chosen, strict=True) if h))
    assert hashlib.sha256(held.encode()).hexdigest() == (
        '448f7cd4661103a6d1959b26ff4668a3b962a609e57f2fae36a75b8c3350a4eb')
