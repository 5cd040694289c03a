"""The tools on configs that are no text of names: classes, dumped import paths, YAML, JSON."""
import json
import os.path as osp
import sys

import pytest
from mmengine.config import Config

from dialects import DIALECTS, write_dialect
from helpers import load_tool, tool
from mmspt.config import read_config
from mmspt.engine.launch import use_amp
from mmspt.evaluation import describe_run, read_result
from mmspt.evaluation.work_dirs import find_config
from mmspt.search.splits import final_config, search_config

SHORT = ('--cfg-options', 'train_cfg.max_epochs=1', 'param_scheduler.end=1', 'param_scheduler.warmup=0')


def plain(cfg):
    """A config as JSON has it, which knows no tuples."""
    return json.loads(json.dumps(cfg.to_dict()))


@pytest.fixture(params=DIALECTS)
def dialect(job, request):
    return write_dialect(job.config, job.root / request.param)


def test_all_are_read_as_one(job, dialect):
    """And MMPretrain's tools, which do not read them so, give the same record."""
    expected = Config.fromfile(job.config)
    assert plain(read_config(dialect)) == plain(expected)
    described = describe_run(Config.fromfile(dialect))
    assert described | dict(config='job') == describe_run(expected)


def test_tools_change_them_as_they_change_a_config_of_names(job, dialect, monkeypatch, capsys):
    def changed(path):
        amp = read_config(path)
        use_amp(amp, 'bfloat16')
        cfg = read_config(path)
        return list(map(plain, (amp, search_config(cfg), final_config(cfg), load_tool('init_prompts').only_initialize(
            read_config(path)))))

    assert changed(dialect) == changed(job.config)
    monkeypatch.setattr(sys, 'argv', ['check_data.py', dialect, '--quick'])
    with pytest.raises(SystemExit, match='0'):
        load_tool('check_data').main()
    assert 'nothing wrong' in capsys.readouterr().out


@pytest.mark.parametrize('dialect', [kind if kind == 'pure.py' else pytest.param(kind, marks=pytest.mark.slow)
                                     for kind in DIALECTS], indirect=True)
def test_a_run(job, dialect):
    """Trained, tested, exported and drawn; MMEngine writes YAML or JSON into the work directory for such a config."""
    run = job.root / 'run'
    tool('train.py', '--amp', dialect, '--work-dir', run, *SHORT)
    assert read_result(str(run / 'result.json')).method == 'SPT-Deep'
    tool('test.py', dialect, run / 'epoch_1.pth', '--work-dir', run)
    tool('pack.py', 'export', run, '--out', run / 'x.safetensors')
    tool('init_prompts.py', dialect, '--work-dir', run)
    assert find_config(run, [path.name for path in run.iterdir()]) == str(run / osp.basename(dialect))
    tool('analyze.py', 'drift', run)
