"""What prompts do to the mean that the head reads."""
import json
import sys

import pytest
import torch

import pooled


@torch.no_grad()
def test_parts_by_hand():
    """The mean of two prompts and three patches apart again; variances and squares from the tokens themselves."""
    tokens = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0))
    prompts, patches = tokens[:, :2].mean(1), tokens[:, 2:].mean(1)
    norm = torch.nn.LayerNorm(4)
    found = pooled.describe(tokens.mean(1), patches, 2, 3, norm)
    var = lambda x: ((x - x.mean(0)) ** 2).sum().item() / 6  # noqa: E731
    assert found == pytest.approx(dict(
        prompts_variance=var(prompts), prompts_square=(prompts ** 2).sum().item() / 7,
        patches_variance=var(patches), patches_square=(patches ** 2).sum().item() / 7,
        head_variance=var(norm(tokens.mean(1)).detach()), unpooled_head_variance=var(norm(patches).detach())), rel=1e-5)


@pytest.mark.slow
def test_end_to_end(tmp_path, monkeypatch, capfd):
    """On a few digits: outputs in the places of tokens as prompts hardly depend on the image, those of uniform ones do;
    what the head reads follows."""
    out = tmp_path / 'pooled.json'
    monkeypatch.setattr(sys, 'argv', ['pooled.py', '--tasks', 'digits_32', '--prompts', '20', '--images', '30',
                                      '--out', str(out)])
    pooled.record(pooled.parse_args(), pooled.measure, pooled.show)
    uniform, *tokens = json.loads(out.read_text())['rows']
    assert uniform['method'] == 'VPT-Deep' and len(tokens) == 2
    for row in tokens:
        assert row['prompts_variance'] < uniform['prompts_variance'] / 5
        assert row['prompts_square'] > 5 * uniform['prompts_square']
        assert row['head_variance'] < row['unpooled_head_variance']
    assert 'K-means' in capfd.readouterr().out
