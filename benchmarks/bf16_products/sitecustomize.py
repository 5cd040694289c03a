"""Trains prompts with ``--amp`` at about fp32's speed on a CPU without bf16 instructions: put the folder in PYTHONPATH.

A product's operands are rounded to bf16, as autocast does; it is summed in fp32 and rounded to bf16, as such
instructions do. Attention in bf16 (in validation, and from 200 keys on in training) stays slow.

    PYTHONPATH=benchmarks/bf16_products:$PYTHONPATH python tools/benchmark.py configs/plans/study.yaml
"""
import sys

if any(argument.startswith('--amp') for argument in sys.orig_argv):
    from typing import Any

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    aten = torch.ops.aten
    PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.convolution.default,
                aten.convolution_backward.default}

    class Float32Products(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func not in PRODUCTS or not any(torch.is_tensor(a) and a.dtype == torch.bfloat16 for a in args):
                return func(*args, **(kwargs or {}))
            out = func(*tree_map_only(torch.Tensor, torch.Tensor.float, args), **(kwargs or {}))
            return tree_map_only(torch.Tensor, torch.Tensor.bfloat16, out)

    Float32Products().__enter__()
