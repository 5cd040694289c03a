"""Where a test computes: on the CPU always, and on a GPU where there is one; ``pytest -m gpu`` takes the latter."""
import pytest
import torch

CUDA = 'cuda'
ON_GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'))
GPU = pytest.param(CUDA, marks=ON_GPU)
DEVICES = ['cpu', GPU]
