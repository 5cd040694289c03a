"""The study on a CPU without bf16 instructions: products are those of rounded operands, rounded again."""
import json
import subprocess
import sys

import pytest

from helpers import ROOT, environment

CODE = """
import json
import torch
torch.manual_seed(0)
a, weight = torch.randn(8, 64), torch.randn(5, 64, requires_grad=True)
with torch.autocast('cpu', dtype=torch.bfloat16):
    out = torch.nn.functional.linear(a, weight)
out.backward(torch.ones_like(out))
exact = (a.bfloat16().double() @ weight.detach().bfloat16().double().T).float().bfloat16()
gradient = a.bfloat16().double().sum(0).float().bfloat16().expand(5, -1)
print(json.dumps([str(out.dtype), torch.equal(out, exact), torch.equal(weight.grad.bfloat16(), gradient),
                  torch.utils._python_dispatch._len_torch_dispatch_stack()]))
"""


@pytest.mark.parametrize(('arguments', 'modes'), [(['--amp=bfloat16'], 1), ([], 0)], ids=str)
def test_products(arguments, modes):
    """In double precision nothing but the roundings counts; a CPU's own instructions may differ in a last bit."""
    run = subprocess.run([sys.executable, '-c', CODE, *arguments], capture_output=True, text=True, check=True,
                         env=environment() | dict(PYTHONPATH=str(ROOT / 'benchmarks' / 'bf16_products')))
    dtype, forward, backward, entered = json.loads(run.stdout)
    assert (dtype, entered) == ('torch.bfloat16', modes) and ((forward and backward) or not modes)
