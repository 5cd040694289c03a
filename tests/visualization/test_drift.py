"""How far prompts moved, against NumPy."""
import numpy as np
import pytest

from mmspt.visualization import RunFolder, draw_drift


def test_a_real_run(runs):
    run = RunFolder(runs.spt)
    picture = draw_drift(run)
    before, after = run.initial_prompts.numpy().astype(float), run.tuned_prompts.numpy().astype(float)
    depth, count, _ = before.shape
    assert [row[:2] for row in picture.rows] == [(i + 1, j + 1) for i in range(depth) for j in range(count)]
    for block, prompt, *values in picture.rows:
        a, b = before[block - 1, prompt - 1], after[block - 1, prompt - 1]
        norms = np.linalg.norm(a), np.linalg.norm(b)
        assert values == pytest.approx([a @ b / np.prod(norms), *norms, np.linalg.norm(b - a)], rel=1e-4)
    assert max(row[-1] for row in picture.rows) > 1e-4  # training moved them
    assert picture.render('png').startswith(b'\x89PNG')
