"""Lloyd's iterations for several layers at once, in torch, and with flash-kmeans on a GPU."""
import importlib
import math
from typing import Any

import torch
from torch import Tensor

# distances held at once: 16 MiB of fp32
CHUNK_ELEMENTS = 2**22


def lloyd(points: Tensor, centres: Tensor, max_iter: int, tol: float) -> tuple[Tensor, Tensor, Tensor]:
    """Lloyd's iterations for several layers at once, step by step those of scikit-learn 1.7.

    In fp32, and the same numbers every time; products are in TF32 if the run has switched that on.

    Args:
        points (Tensor): (B, N, D), of mean 0 and mean variance 1 (or 0).
        centres (Tensor): (B, K, D), the start.
        max_iter (int): The most iterations, at least 1.
        tol (float): Bound on the sum of squared shifts of a layer's centres.

    Returns:
        tuple: Centres (B, K, D), iterations (B,), inertia (B,).
    """
    labels = torch.full(points.shape[:2], -1, device=points.device)  # (B, N)
    active = torch.ones(len(points), dtype=torch.bool, device=points.device)
    iterations = torch.zeros(len(points), dtype=torch.long, device=points.device)
    for _ in range(max_iter):
        new_labels, sums, counts = _assign(points, centres)
        _fill_empty(points, centres, new_labels, sums, counts)
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        changed = (new_labels != labels).any(dim=1)
        shift = (moved - centres).square().sum(dim=(1, 2))
        centres = torch.where(active[:, None, None], moved, centres)
        iterations += active
        active = active & changed & (shift > tol)
        labels = new_labels
        if not active.any():
            break
    labels = _assign(points, centres)[0]
    return centres, iterations, _square_distances(points, centres, labels).sum(dim=1)


def _assign(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest centre of each point (B, N), the sums (B, K, D) and the numbers (B, K, 1) of each centre's points."""
    numbers = torch.arange(centres.shape[1], device=centres.device)
    half_squares = centres.square().sum(dim=2)[:, None] / 2  # (B, 1, K)
    sums, counts = torch.zeros_like(centres), centres.new_zeros(*centres.shape[:2], 1)
    labels = []
    for chunk in points.split(_rows(*centres.shape[:2]), dim=1):
        # |x - c|^2 / 2 less |x|^2 / 2, which all centres share
        labels.append(torch.baddbmm(half_squares, chunk, centres.transpose(1, 2), alpha=-1).argmin(dim=2))
        members = (labels[-1][..., None] == numbers).to(points.dtype).transpose(1, 2)  # (B, K, n)
        sums.baddbmm_(members, chunk)  # unlike index_add, the same sums every time on a GPU
        counts += members.sum(dim=2, keepdim=True)
    return torch.cat(labels, dim=1), sums, counts


def _fill_empty(points: Tensor, centres: Tensor, labels: Tensor, sums: Tensor, counts: Tensor) -> None:
    """Give each empty cluster, in place, one of the points farthest from their centres; not if all lie on theirs."""
    for layer in (counts == 0).any(dim=1).flatten().nonzero().flatten().tolist():
        empty = (counts[layer, :, 0] == 0).nonzero().flatten()
        distances = _square_distances(points[layer, None], centres[layer, None], labels[layer, None])[0]
        if distances.max() == 0:
            continue
        for new, point in zip(empty, distances.topk(len(empty)).indices, strict=True):
            old = labels[layer, point]
            sums[layer, old] -= points[layer, point]
            sums[layer, new] = points[layer, point]
            counts[layer, old] -= 1
            counts[layer, new] = 1


def _square_distances(points: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """(B, N), from differences: 0 for a point on its centre."""
    batch, rows = torch.arange(len(points), device=points.device)[:, None], _rows(len(points), points.shape[2])
    chunks = zip(points.split(rows, dim=1), labels.split(rows, dim=1), strict=True)
    return torch.cat([(chunk - centres[batch, owners]).square().sum(dim=2) for chunk, owners in chunks], dim=1)


def _rows(batch: int, width: int) -> int:
    return max(1, CHUNK_ELEMENTS // (batch * width))


def flash(points: Tensor, centres: Tensor, max_iter: int, tol: float) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`lloyd`, with flash-kmeans (https://arxiv.org/abs/2603.09229, release 0.3.1) before it.

    flash-kmeans stops all layers together, once no centre moves by more than a bound; it multiplies fp32 in TF32,
    leaves an empty cluster where it is and says nothing of the inertia. Its bound is therefore set so that the rule of
    :func:`lloyd` holds for each layer, and :func:`lloyd` does the rest: usually one iteration in full precision.
    """
    done = 0
    if max_iter > 1:
        # below 1e-6 standard deviations the order of its atomic sums would keep it going
        bound = max(math.sqrt(tol / centres.shape[1]), 1e-6)
        try:
            with torch.cuda.device_of(points):  # where Triton launches
                _, centres, done = import_flash().batch_kmeans_Euclid(
                    points, centres.shape[1], max_iters=max_iter - 1, tol=bound, init_centroids=centres.contiguous())
        except Exception as e:
            raise RuntimeError(f"flash-kmeans failed ({type(e).__name__}: {e}): set the initializer's "
                               "backend='torch'") from e
    centres, iterations, inertia = lloyd(points, centres, max_iter - done, tol)
    return centres, iterations + done, inertia


def import_flash() -> Any:
    """The package flash-kmeans, or None."""
    try:
        return importlib.import_module('flash_kmeans')
    except ImportError:
        return None
