"""The study on a CPU without bf16 instructions: fp32 products of rounded operands, rounded again."""
import json
import subprocess
import sys

from helpers import ROOT, environment

CODE = """
import json
import runpy
import sys
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Recorder(TorchDispatchMode):
    seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if any(product in name for product in ('mm', 'convolution')):
            self.seen.update((name, str(x.dtype)) for x in args if torch.is_tensor(x))
        return func(*args, **(kwargs or {}))


torch.manual_seed(0)
a, weight, bias = torch.randn(8, 64), torch.randn(5, 64, requires_grad=True), torch.randn(5)
images, filters = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 2, 2, requires_grad=True)
Recorder().__enter__()
runpy.run_path(sys.argv[1])
with torch.autocast('cpu', dtype=torch.bfloat16):
    out = torch.nn.functional.linear(a, weight)
    torch.nn.functional.linear(a, weight, bias)
    torch.bmm(images[0], images[1])
    convolved = torch.nn.functional.conv2d(images, filters)
(out.sum() + convolved.sum()).backward()
rounded = a.bfloat16().double()
exact = (rounded @ weight.detach().bfloat16().double().T).float().bfloat16()
gradient = rounded.sum(0).float().bfloat16().expand(5, -1)
print(json.dumps(dict(dtypes=[str(out.dtype), str(convolved.dtype)], seen=sorted(Recorder.seen), equal=[
    torch.equal(out, exact), torch.equal(weight.grad.bfloat16(), gradient)])))
"""


def products(*arguments):
    run = subprocess.run([sys.executable, '-c', CODE, ROOT / 'benchmarks' / 'bf16_products' / 'sitecustomize.py',
                          *arguments], capture_output=True, text=True, check=True, env=environment())
    found = json.loads(run.stdout)
    assert found['dtypes'] == ['torch.bfloat16'] * 2
    return found


def test_products():
    """In double precision nothing but the roundings counts. Kernels see fp32 (double: the oracle's own)."""
    found = products('--amp=bfloat16')
    assert found['equal'] == [True, True]
    assert {name for name, _ in found['seen']} == {
        f'aten.{name}.default' for name in ('mm', 'addmm', 'bmm', 'convolution', 'convolution_backward')}
    assert {dtype for _, dtype in found['seen']} == {'torch.float32', 'torch.float64'}


def test_without_amp():
    assert 'torch.bfloat16' in {dtype for _, dtype in products()['seen']}
