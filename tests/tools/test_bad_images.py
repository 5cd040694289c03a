"""A run on damaged images: an error that names the file, or with skip_bad_images=True a run without them."""
import io
import json
import re

import pytest
from mmengine.config import Config
from PIL import Image
from test_bad_input import train

from helpers import tool
from mmspt.evaluation import describe_run
from mmspt.visualization.run_folder import RunFolder


def cut_off(path):
    buffer = io.BytesIO()
    Image.open(path).convert('RGB').save(buffer, 'JPEG')
    path.write_bytes(buffer.getvalue()[:-300])


def test_one_among_good_ones_is_named(job):
    job.write(workers=1)
    path = job.data / 'images/class_1/002.png'
    cut_off(path)
    with pytest.raises(ValueError, match=re.escape(f"'{path}' is not (OSError: image file is truncated")):
        train(job, **{'custom_hooks.0.initializer.type': 'mmspt.UniformInit'})  # reads no image before the first step


WRAPPED = """
test_dataloader['dataset'] = dict(_delete_=True, type='mmspt.SkipBadImages', dataset=dict(
    type='CustomDataset', data_root={data!r}, data_prefix='images', ann_file='test.txt', pipeline=deterministic))
"""


def test_the_run_goes_on_without_them(job):
    """The commands that a user types."""
    cut, empty, garbage = (job.data / 'images' / name for name in (
        'class_1/002.png', 'class_0/004.png', 'class_2/006.png'))
    cut_off(cut)
    empty.write_bytes(b'')
    garbage.write_bytes(b'<html>404 Not Found</html>')
    expected = [f'train {cut} (OSError: image file is truncated', f'val {empty} (ValueError: the file is empty',
                f'test {garbage} (UnidentifiedImageError: cannot identify']
    run = job.root / 'run'
    output = tool('train.py', job.config, '--work-dir', run, '--cfg-options', 'skip_bad_images=True',
                  'train_cfg.max_epochs=1', 'param_scheduler.end=1', 'custom_hooks.0.num_images=all')

    end = output[output.index('Result of epoch 1'):]
    assert 'could not be loaded: 3 (' in end and all(line in end for line in expected)
    listed = (run / 'bad_images.txt').read_text().splitlines()
    assert len(listed) == 3 and all(line.startswith(start) for line, start in zip(listed, expected, strict=True))
    result = json.loads((run / 'result.json').read_text())
    assert result['num_images'] == 5 and result['split'] == 'test.txt'
    cfg = Config.fromfile(job.config)
    assert (result['trained_on'], result['task']) == tuple(describe_run(cfg)[key] for key in ('trained_on', 'task'))
    assert {key for key in result['recipe'] if key.startswith('train.')} == {
        key for key in describe_run(cfg)['recipe'] if key.startswith('train.')}

    images = RunFolder(str(run)).images('train')  # what tools/analyze.py draws
    assert len(images) == 11 and str(cut) not in {images[i]['data_samples'].img_path for i in range(11)}

    job.write(extra=WRAPPED.format(data=str(job.data)))  # by hand, as for MMPretrain's tools
    output = tool('test.py', job.config, run / 'epoch_1.pth', '--work-dir', run, '--tta')
    assert f"could not be loaded: 1 (all are in '{run}/bad_images.txt')" in output
    assert (run / 'bad_images.txt').read_text().splitlines() == listed
