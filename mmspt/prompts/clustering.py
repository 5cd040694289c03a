"""K-means of patch tokens, on the CPU by scikit-learn."""
import warnings

import torch
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

# k-means++ on all tokens takes longer than Lloyd's iterations and gains about 1 % of inertia
SEEDING_POINTS_PER_CENTRE = 256


def kmeans(tokens: Tensor, num_centres: int, generator: torch.Generator, max_iter: int = 100) -> Tensor:
    """Find the centres that minimize the inertia, by k-means++ on a subsample and Lloyd's iterations on all tokens.

    Args:
        tokens (Tensor): (N, D), finite.
        num_centres (int): K, at most N.
        generator (torch.Generator): Source of the seeding.
        max_iter (int): The most iterations of Lloyd. Defaults to 100.

    Returns:
        Tensor: (K, D), fp32.
    """
    points = tokens.detach().to('cpu', torch.float32)
    seed = int(torch.randint(2**31, (), generator=generator))
    sample = points[torch.randperm(len(points), generator=generator)[:SEEDING_POINTS_PER_CENTRE * num_centres]]
    start, _ = kmeans_plusplus(sample.numpy(), num_centres, random_state=seed)
    with warnings.catch_warnings():
        # fewer distinct tokens than centres: duplicates are then all there is
        warnings.simplefilter('ignore', ConvergenceWarning)
        model = KMeans(num_centres, init=start, n_init=1, max_iter=max_iter).fit(points.numpy())
    return torch.from_numpy(model.cluster_centers_).to(torch.float32)
