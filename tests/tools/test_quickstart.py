"""The quickstart with one short run: table, picture, and nothing done twice."""
import pytest
from PIL import Image

from helpers import ROOT, environment, load_tool

CONFIG = f"""
_base_ = {str(ROOT / 'configs/linear/vit-xs_mae_digits.py')!r}
train_cfg = dict(max_epochs=1)
train_dataloader = dict(dataset=dict(images_per_class=8))
"""


def test_quickstart(tmp_path, monkeypatch, capsys):
    config, work_dir = tmp_path / 'short.py', tmp_path / 'out'
    config.write_text(CONFIG)
    quickstart = load_tool('quickstart')
    monkeypatch.setattr(quickstart, 'RUNS', {'linear probe': str(config)})
    monkeypatch.setattr('sys.argv', ['quickstart.py', '--work-dir', str(work_dir)])
    monkeypatch.setenv('PYTHONPATH', environment()['PYTHONPATH'])

    quickstart.main()
    table = capsys.readouterr().out
    assert '1,290' in table and 'test' in table and 'train.py, seconds' in table
    assert Image.open(work_dir / 'curves.png').size[0] > 400
    trained = (work_dir / 'train.txt').stat().st_mtime_ns

    quickstart.main()
    assert (work_dir / 'train.txt').stat().st_mtime_ns == trained
    assert capsys.readouterr().out.splitlines()[-8:] == table.splitlines()[-8:]

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    config.write_text(CONFIG.replace('images_per_class=8', 'images_per_class=9'))
    monkeypatch.setattr(quickstart, 'run_tool', interrupted)
    with pytest.raises(KeyboardInterrupt):
        quickstart.main()
    assert not (work_dir / 'train.txt').exists()  # a run of another config is no result of this one
