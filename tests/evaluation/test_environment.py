"""The environment as a real log of MMEngine begins."""
import pytest

from mmspt.evaluation.environment import read_environment

LOG = """2026/01/01 00:00:00 - mmengine - INFO - 
------------------------------------------------------------
System environment:
    sys.platform: linux
    Python: 3.11.7 (main) [GCC 12.2.0]
    GPU 0: A: card
    GCC: gcc 12
    PyTorch: {torch}
    PyTorch compiling details: PyTorch built with:
  - GCC 13.3
  - Build settings: A: b

    MMEngine: 0.10.7

Runtime environment:
    seed: 0
    Distributed launcher: none
------------------------------------------------------------

2026/01/01 00:00:00 - mmengine - INFO - Config:
    lr: 5
"""  # noqa: W291


@pytest.fixture
def run(tmp_path):
    for name, torch in (('20260101_000000', '2.1'), ('20260102_000000', '2.12')):
        (tmp_path / name).mkdir()
        (tmp_path / name / f'{name}.log').write_text(LOG.format(torch=torch))
    return tmp_path


def test_the_last_part_of_a_run_counts(run):
    assert read_environment(str(run)) == {
        'sys.platform': 'linux', 'Python': '3.11.7 (main) [GCC 12.2.0]', 'GPU 0': 'A: card', 'PyTorch': '2.12',
        'MMEngine': '0.10.7', 'seed': '0', 'Distributed launcher': 'none'}


def test_a_part_that_was_cut_off_is_skipped(run, tmp_path):
    path = run / '20260102_000000' / '20260102_000000.log'
    path.write_text(path.read_text()[:200])
    assert read_environment(str(run))['PyTorch'] == '2.1'
    assert read_environment(str(tmp_path / 'no_log')) == {}
