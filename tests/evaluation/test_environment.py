"""The environment as a real log of MMEngine begins."""
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


def test_the_last_part_of_a_run_counts_unless_it_was_cut_off(tmp_path):
    assert read_environment(str(tmp_path)) == {}
    for name, torch in (('20260101_000000', '2.1'), ('20260102_000000', '2.12')):
        (tmp_path / name).mkdir()
        path = tmp_path / name / f'{name}.log'
        path.write_text(LOG.format(torch=torch))
    assert read_environment(str(tmp_path)) == {
        'sys.platform': 'linux', 'Python': '3.11.7 (main) [GCC 12.2.0]', 'GPU 0': 'A: card', 'PyTorch': '2.12',
        'MMEngine': '0.10.7', 'seed': '0', 'Distributed launcher': 'none'}
    path.write_text(path.read_text()[:200])
    assert read_environment(str(tmp_path))['PyTorch'] == '2.1'
