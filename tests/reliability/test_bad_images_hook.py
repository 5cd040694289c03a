"""BadImagesHook: its warning and its file."""
import logging
from types import SimpleNamespace

import pytest
from mmengine.runner import BaseLoop

from mmspt.engine.hooks import BadImagesHook


class Loop(BaseLoop):
    def run(self):
        raise AssertionError('a hook at the end starts nothing')


def skipping(count, name='x'):
    """A data set that left ``count`` images out."""
    return SimpleNamespace(bad_images=[(f'data/{name}_{i}.jpg', 'OSError: cut') for i in range(count)])


def repeated(dataset):
    return SimpleNamespace(datasets=[SimpleNamespace(dataset=dataset), SimpleNamespace(dataset=dataset)])


@pytest.fixture
def end(tmp_path, caplog):
    """Let a run end whose data sets are given by split; text of its warnings. Splits that are not given are unbuilt."""
    def end(**datasets):
        loops = {f'_{split}_loop': Loop(None, SimpleNamespace(dataset=datasets[split])) if split in datasets else {}
                 for split in ('train', 'val', 'test')}
        caplog.clear()
        BadImagesHook().after_run(SimpleNamespace(work_dir=str(tmp_path), logger=logging.getLogger('run'), **loops))
        assert len(caplog.records) <= 1
        return caplog.text
    return end


def lines(folder):
    return (folder / 'bad_images.txt').read_text().splitlines()


def test_silent_without_bad_images(tmp_path, end):
    assert end(train=skipping(0), test=SimpleNamespace()) == '' and not list(tmp_path.iterdir())


def test_every_split_is_listed(tmp_path, end):
    said = end(train=repeated(skipping(2, 'a')), val=skipping(0), test=skipping(1, 'b'))
    expected = ['train data/a_0.jpg (OSError: cut)', 'train data/a_1.jpg (OSError: cut)',
                'test data/b_0.jpg (OSError: cut)']
    assert lines(tmp_path) == expected
    assert 'could not be loaded: 3 (' in said and all(said.count(line) == 1 for line in expected)
    assert [path.name for path in tmp_path.iterdir()] == ['bad_images.txt']


def test_the_log_names_twenty_and_the_file_all(tmp_path, end):
    said = end(train=skipping(1500))
    assert 'could not be loaded: 1,500 (' in said and '... and 1,480 more' in said.splitlines()[-1]
    assert said.count('data/x_') == 20 and len(lines(tmp_path)) == 1500


def test_a_test_keeps_what_its_training_left(tmp_path, end):
    end(train=skipping(1, 'a'), test=skipping(2, 'b'))
    said = end(test=skipping(1, 'c'))
    assert lines(tmp_path) == ['train data/a_0.jpg (OSError: cut)', 'test data/c_0.jpg (OSError: cut)']
    assert 'c_0' in said and 'a_0' not in said


def test_repaired_images_are_forgotten(tmp_path, end):
    end(train=skipping(1), test=skipping(2))
    assert end(test=skipping(0)) == '' and len(lines(tmp_path)) == 1
    assert end(train=skipping(0)) == '' and not list(tmp_path.iterdir())
