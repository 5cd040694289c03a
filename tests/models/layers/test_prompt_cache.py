"""Kept values are recomputed when, and only when, what they were computed from has changed; copies, other dtypes and
writes through .data: ../test_keys_and_values.py."""
import pytest
import torch

from mmspt.models.layers import PromptCache


class Counted:
    """A cache with prompts and a weight, and how often their product was computed."""

    def __init__(self):
        self.cache, self.calls = PromptCache(), 0
        self.prompts = torch.nn.Parameter(torch.randn(2, 3))
        self.weight = torch.nn.Parameter(torch.randn(3))

    def get(self):
        return self.cache.get(self.prompts, [self.weight], self.compute)[0]

    def compute(self):
        self.calls += 1
        return [self.prompts * self.weight]


def optimizer_step(case):
    case.prompts.grad = torch.ones_like(case.prompts)
    torch.optim.SGD([case.prompts], 0.1).step()


@pytest.mark.parametrize('change', [
    optimizer_step,
    lambda case: setattr(case, 'prompts', torch.nn.Parameter(torch.randn(2, 3))),
    lambda case: torch.nn.init.normal_(case.weight),
    lambda case: setattr(case, 'weight', torch.nn.Parameter(torch.randn(3))),
], ids=['optimizer', 'other prompts', 'weight in place', 'other weight'])
def test_a_change_is_seen(change):
    torch.manual_seed(0)
    case = Counted()
    for _ in range(3):
        assert torch.equal(case.get(), case.prompts * case.weight) and not case.get().requires_grad
    assert case.calls == 1
    change(case)
    for _ in range(3):
        assert torch.equal(case.get(), case.prompts * case.weight)
    assert case.calls == 2


def test_autocast_has_values_of_its_own():
    case = Counted()
    case.compute = lambda: [torch.nn.functional.linear(case.prompts, case.weight[None])]
    assert case.get().dtype == torch.float32
    with torch.autocast('cpu', torch.bfloat16):
        assert case.get().dtype == torch.bfloat16
    assert case.get().dtype == torch.float32


def test_tensors_of_inference_mode_have_no_version_and_do():
    with torch.inference_mode():
        case = Counted()
        assert torch.equal(case.get(), case.get())
    assert case.calls == 1
