"""How much prompts and patches know of each other: the measure by which SPT explains why prototypes are good starts."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

NORMALIZERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'geometric': lambda p, e: (p * e).sqrt(),
    'arithmetic': lambda p, e: (p + e) / 2,
    'min': torch.minimum,
    'max': torch.maximum,
}
"""Name -> what the mutual information is divided by, from the entropies H(p) and H(e)."""


def normalized_mutual_information(prompts: Tensor, patches: Tensor, normalizer: str = 'geometric') -> Tensor:
    r"""NMI of prompts and each image's patches (SPT, https://arxiv.org/abs/2402.02382, section 3).

    .. math::
        \pi = \sigma(P E^T / \sqrt{D}) / \sum_{p,e} \sigma(P E^T / \sqrt{D}), \quad
        I = \sum_{p,e} \pi(p, e) \log \frac{\pi(p, e)}{\pi(p) \pi(e)}, \quad
        NMI = I / f(H(p), H(e))

    The paper cites Estevez et al. 2009, whose f is the minimum; the work on attention collapse that it follows (Park et
    al. 2023, https://arxiv.org/abs/2305.00729) takes the geometric mean. The authors' code holds neither.

    Args:
        prompts (Tensor): P, (N_p, D) for all images, or (B, N_p, D) where each image has its own.
        patches (Tensor): E, (B, N_e, D).
        normalizer (str): f: 'geometric', 'arithmetic', 'min' or 'max' of the two entropies. Defaults to 'geometric'.

    Returns:
        Tensor: (B,), fp32, one value an image, in [0, 1] but for rounding; 0 where there is one prompt or one patch, or
        where f is 0; NaN where a prompt or a patch is not finite. It is computed in fp64, by logarithms: rounding in
        fp32 exceeds the NMI at which VPT starts.

    Raises:
        ValueError: Shapes that do not fit each other, or an unknown normalizer.
    """
    check_normalizer(normalizer)
    if patches.ndim != 3 or prompts.ndim not in (2, 3) or prompts.shape[-1] != patches.shape[-1] or (
            prompts.ndim == 3 and len(prompts) != len(patches)) or 0 in (*prompts.shape, *patches.shape):
        raise ValueError('prompts must have shape (N_p, D) or (B, N_p, D) and patches (B, N_e, D), none of them empty, '
                         f'got {tuple(prompts.shape)} and {tuple(patches.shape)}')
    if prompts.shape[-2] == 1 or patches.shape[1] == 1:
        return torch.zeros(len(patches), device=patches.device)
    with torch.autocast(patches.device.type, enabled=False):
        prompts, patches = prompts.double(), patches.double()
        log_joint = F.logsigmoid(prompts @ patches.transpose(1, 2) / patches.shape[-1]**0.5)  # (B, N_p, N_e)
        log_joint = log_joint - log_joint.logsumexp(dim=(1, 2), keepdim=True)
        log_p, log_e = log_joint.logsumexp(dim=2, keepdim=True), log_joint.logsumexp(dim=1, keepdim=True)
        information = (log_joint.exp() * (log_joint - log_p - log_e)).sum(dim=(1, 2))
        scale = NORMALIZERS[normalizer](_entropy(log_p), _entropy(log_e))
        return torch.where(scale == 0, 0., information / scale).float()


def check_normalizer(normalizer: str) -> None:
    """Raise ValueError for an unknown one."""
    if normalizer not in NORMALIZERS:
        raise ValueError(f'normalizer must be one of {tuple(NORMALIZERS)}, got {normalizer!r}')


def _entropy(log_probabilities: Tensor) -> Tensor:
    """Entropy in nats of (B, n, 1) or (B, 1, n): (B,)."""
    return -(log_probabilities.exp() * log_probabilities).sum(dim=(1, 2))
