"""K-means of patch tokens, layer by layer on the CPU or all layers at once on a GPU."""
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from .lloyd import flash, import_flash, lloyd
from .threads import in_threads, num_cores, num_threads
from .tokens import all_finite

BACKENDS = ('auto', 'sklearn', 'flash', 'torch')
# k-means++ on all tokens takes longer than Lloyd's iterations and gains about 1 % of inertia
SEEDING_POINTS_PER_CENTRE = 256
# copies of tokens on the CPU beside the tokens themselves
WORKING_BYTES = 384 * 2**20


class Clusters(NamedTuple):
    """What K-means found.

    Attributes:
        centres (Tensor): (L, K, D), fp32, on the CPU.
        iterations (list[int]): Of each layer; max_iter where the stopping rule may not have been met.
        inertia (list[float]): Of each layer, the sum of squared distances of its tokens to their centres.
        backend (str): 'sklearn', 'flash' or 'torch'.
    """
    centres: Tensor
    iterations: list[int]
    inertia: list[float]
    backend: str


class _Layer(NamedTuple):
    tokens: Tensor  # (N, D)
    sample: Tensor  # indices of the tokens that k-means++ looks at
    seed: int  # of k-means++


_Fit = tuple[Tensor, int, float]  # centres (K, D), iterations, inertia
_Method = Callable[[Tensor, Tensor, int, float], tuple[Tensor, Tensor, Tensor]]  # as lloyd


def kmeans(layers: Iterable[Tensor],
           num_centres: int,
           generator: torch.Generator,
           max_iter: int = 100,
           tol: float = 1e-4,
           backend: str = 'auto',
           device: torch.device | str = 'cpu') -> Clusters:
    """Find each layer's centres that minimize the inertia: k-means++ on a subsample, Lloyd's iterations on all tokens.

    A layer is done when no token changes its centre, or when the squared shifts of all centres add up to at most
    ``tol`` times the mean variance of the features (scikit-learn's rule). An empty cluster moves to the token
    farthest from its centre. The starts are the same for every backend.

    Args:
        layers (Iterable[Tensor]): L times the layer's tokens (N, D), finite, all of one shape. Taken as they are
            worked on: by 'sklearn' one for each thread at most, on a GPU as many as fit its memory.
        num_centres (int): K, at most N.
        generator (torch.Generator): Source of the starts, on the CPU.
        max_iter (int): The most iterations of Lloyd. Defaults to 100.
        tol (float): Tolerance of the stopping rule. Defaults to 1e-4.
        backend (str): 'sklearn' works on the CPU, layers in parallel; 'torch' on any device; 'flash' (the package
            flash-kmeans) on a CUDA device, its last iterations by 'torch'; 'auto' takes 'sklearn' on a CPU, else
            'flash' if it is installed and the device CUDA, else 'torch'. Defaults to 'auto'.
        device (torch.device | str): Where the work may be done; 'sklearn' stays on the CPU. Defaults to 'cpu'.

    Returns:
        Clusters: The same for the same seed; up to rounding with 'flash', and where one layer has several threads.

    Raises:
        ValueError: Tokens or options that are not as they must be, or centres that are not finite.
        ImportError: 'flash' is not installed.
    """
    device = torch.device(device)
    name = choose_backend(backend, device)
    drawn = _draw(layers, num_centres, generator)
    if name == 'sklearn':
        fits = _fit_sklearn(drawn, num_centres, max_iter, tol)
    else:
        fits = _fit_on_device(drawn, num_centres, max_iter, tol, device, flash if name == 'flash' else lloyd)
    if not fits:
        raise ValueError('K-means needs the tokens of at least one layer, got none')
    for index, (centres, _, inertia) in enumerate(fits):
        if not (centres.isfinite().all() and math.isfinite(inertia)):
            raise ValueError(f'centres must be finite, those of layer {index} are not: their tokens have squares '
                             'beyond fp32; check the checkpoint, and the mean and std of the data preprocessor')
    return Clusters(torch.stack([fit[0] for fit in fits]), [fit[1] for fit in fits], [fit[2] for fit in fits], name)


def choose_backend(backend: str, device: torch.device) -> str:
    """Say which backend works on a device: 'sklearn', 'flash' or 'torch'.

    Raises:
        ValueError: An unknown backend, or 'flash' without a CUDA device.
        ImportError: 'flash' is not installed.
    """
    check_backend(backend)
    if backend == 'auto':
        if device.type == 'cpu':
            return 'sklearn'
        return 'flash' if device.type == 'cuda' and import_flash() else 'torch'
    if backend == 'flash':
        if device.type != 'cuda':
            raise ValueError(f"backend='flash' needs a CUDA device, got '{device}': set backend='auto' or 'sklearn'")
        if import_flash() is None:
            raise ImportError("backend='flash' needs the package flash-kmeans: pip install 'mmspt[gpu]', or set "
                              "backend='torch'")
    return backend


def check_backend(backend: str) -> None:
    """Raise ValueError unless backend is one of BACKENDS."""
    if backend not in BACKENDS:
        raise ValueError(f'backend must be one of {BACKENDS}, got {backend!r}')


def _draw(layers: Iterable[Tensor], num_centres: int, generator: torch.Generator) -> Iterator[_Layer]:
    """Check each layer as it is taken and draw its start: in order, so that threads and backends draw the same."""
    shape = None
    for index, tokens in enumerate(layers):
        shape = tokens.shape if shape is None else shape
        if tokens.ndim != 2 or tokens.shape != shape:
            raise ValueError(f'all layers must have one shape (N, D), layer {index} has {tuple(tokens.shape)} and the '
                             f'first {tuple(shape)}: flatten images and positions, keep as many tokens of each layer')
        if not 1 <= num_centres <= len(tokens):
            raise ValueError(f'the number of centres must lie between 1 and that of the tokens, got {num_centres} '
                             f'centres for {len(tokens)} tokens: take more tokens or fewer centres')
        if not all_finite(tokens):
            raise ValueError(f'tokens must be finite, those of layer {index} hold NaN or infinity: check the '
                             'checkpoint, and the mean and std of the data preprocessor')
        seed = int(torch.randint(2**31, (), generator=generator))
        sample = torch.randperm(len(tokens), generator=generator)[:SEEDING_POINTS_PER_CENTRE * num_centres]
        yield _Layer(tokens.detach(), sample, seed)


def _plus_plus(sample: np.ndarray, num_centres: int, seed: int) -> np.ndarray:
    """k-means++ on a sample (n, D), in fp64: scikit-learn would cast fp32 anew for every centre."""
    return kmeans_plusplus(sample.astype(np.float64), num_centres, random_state=seed)[0].astype(np.float32)


def _fit_sklearn(layers: Iterator[_Layer], num_centres: int, max_iter: int, tol: float) -> list[_Fit]:
    """Cluster several layers at once, as many as there are threads and WORKING_BYTES for their copies."""
    def prepare(layer: _Layer) -> Callable[[], _Fit]:
        points = layer.tokens.to('cpu', torch.float32, copy=True, memory_format=torch.contiguous_format).numpy()
        return lambda: _fit_layer(points, layer, num_centres, max_iter, tol)

    first = next(layers, None)
    if first is None:
        return []
    copy = 4 * first.tokens.numel()
    sample = 12 * first.tokens.shape[1] * len(first.sample)  # in fp32 and in fp64
    at_once = max(1, min(num_threads(), WORKING_BYTES // (copy + max(copy, sample))))  # scikit-learn's variance copies
    layers = chain([first], layers)
    del first
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # of empty clusters, seen to in _fit_layer
        return in_threads(prepare, layers, at_once, num_threads() // at_once)


def _fit_layer(points: np.ndarray, layer: _Layer, num_centres: int, max_iter: int, tol: float) -> _Fit:
    start = _plus_plus(points[layer.sample.numpy()], num_centres, layer.seed)
    model = KMeans(num_centres, init=start, n_init=1, max_iter=max_iter, tol=tol, copy_x=False).fit(points)
    if len(np.unique(model.labels_)) < num_centres:
        # with more empty clusters than a cluster has points, scikit-learn's centres and inertia are wrong
        return _fit_batch(torch.from_numpy(points)[None], torch.from_numpy(start)[None], max_iter, tol, lloyd)[0]
    return torch.from_numpy(model.cluster_centers_).float(), int(model.n_iter_), float(model.inertia_)


def _fit_on_device(layers: Iterator[_Layer], num_centres: int, max_iter: int, tol: float, device: torch.device,
                   method: _Method) -> list[_Fit]:
    """Cluster as many layers at once as fit the device."""
    def load(layer: _Layer) -> Callable[[], tuple[Tensor, Tensor]]:
        points = layer.tokens.to(device, torch.float32)
        sample = layer.tokens[layer.sample.to(layer.tokens.device)].to('cpu', torch.float32).numpy()
        return lambda: (points, torch.from_numpy(_plus_plus(sample, num_centres, layer.seed)))

    device = torch.empty(0, device=device).device  # with its index: the current device is each thread's own
    fits: list[_Fit] = []
    for first in layers:
        batch = chain([first], islice(layers, _room(first.tokens.numel() * 4, device) - 1))
        # torchrun sets OMP_NUM_THREADS=1, which would leave a GPU waiting for k-means++ layer by layer
        loaded = in_threads(load, batch, num_cores())
        points = torch.stack([pair[0] for pair in loaded])  # (B, N, D)
        centres = torch.stack([pair[1] for pair in loaded]).to(device)  # (B, K, D)
        del first, batch, loaded
        fits += _fit_batch(points, centres, max_iter, tol, method)
    return fits


def _fit_batch(points: Tensor, centres: Tensor, max_iter: int, tol: float, method: _Method) -> list[_Fit]:
    """Cluster points (B, N, D), which are written over, in units of each layer's standard deviation about its mean.

    So written, one tolerance holds for all layers, and distances keep their digits in low-precision products.
    """
    mean = points.mean(dim=1, keepdim=True)  # (B, 1, D)
    points -= mean
    scale = torch.linalg.vector_norm(points, dim=(1, 2), keepdim=True) / math.sqrt(points[0].numel())
    scale = torch.where(scale > 0, scale, 1.)  # (B, 1, 1)
    points /= scale
    centres, iterations, inertia = method(points, (centres - mean) / scale, max_iter, tol)
    centres = (centres * scale + mean).cpu()
    inertia = inertia.cpu().double() * scale.flatten().cpu().double()**2
    return list(zip(centres, iterations.tolist(), inertia.tolist(), strict=True))


def _room(layer_bytes: int, device: torch.device) -> int:
    """How many layers to hold at once: tokens, their stack, and as much again for what works on them."""
    if device.type != 'cuda':
        return 1
    torch.cuda.empty_cache()  # what the forward pass left
    return max(1, torch.cuda.mem_get_info(device)[0] // (3 * layer_bytes))
