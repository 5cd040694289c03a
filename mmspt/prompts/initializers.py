"""From patch tokens to prompts: the prototypes of SPT (https://arxiv.org/abs/2402.02382) and VPT's random starts.

Each strategy is a pure function ``(tokens (N, D), num_prompts, generator) -> (num_prompts, D)`` and a thin class
registered in TASK_UTILS that holds its options.
"""
import math
import os.path as osp
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, ClassVar, cast

import torch
from mmengine.logging import MMLogger
from rich.progress import track
from torch import Tensor, nn

from mmspt.checkpoint_loaders import load_file
from mmspt.models.methods.prompt_method import uniform_bound
from mmspt.registry import TASK_UTILS

from .clustering import Clusters, check_backend, kmeans
from .tokens import ImageStream, all_finite, gather_tokens


def check_tokens(tokens: Tensor, num_prompts: int) -> None:
    """Refuse tokens from which no prototypes can be made.

    Args:
        tokens (Tensor): (N, D).
        num_prompts (int): N_p.

    Raises:
        ValueError: Another shape, fewer tokens than prompts, or values that are not finite.
    """
    if tokens.ndim != 2:
        raise ValueError(f'tokens must have shape (N, D), got {tuple(tokens.shape)}: flatten images and positions')
    if len(tokens) < num_prompts:
        raise ValueError(f'there must be at least as many tokens as prompts, got {len(tokens)} tokens for '
                         f'{num_prompts} prompts: take more images (num_images, max_memory) or fewer prompts')
    if not all_finite(tokens):
        broken = len(tokens) - int(tokens.isfinite().all(dim=1).sum())
        raise ValueError(f'tokens must be finite, but {broken} of {len(tokens)} hold NaN or infinity: check the '
                         'checkpoint, and the mean and std of the data preprocessor')


def random_sample(tokens: Tensor, num_prompts: int, generator: torch.Generator) -> Tensor:
    """Draw tokens uniformly, without replacement: the paper's practical default."""
    return tokens[torch.randperm(len(tokens), generator=generator)[:num_prompts]]


def mean_pool(tokens: Tensor, num_prompts: int, generator: torch.Generator) -> Tensor:
    """Average non-overlapping windows of floor(N / N_p) tokens; up to N_p - 1 tokens at the end are left over.

    As the SPT paper has it (https://arxiv.org/abs/2402.02382). Its authors' code pools windows of N_e // (N_p - 1)
    tokens of single images and draws N_p of the results, which makes prompts of fewer tokens each.
    """
    return _windows(tokens, num_prompts).mean(dim=1)


def max_pool(tokens: Tensor, num_prompts: int, generator: torch.Generator) -> Tensor:
    """As :func:`mean_pool`, with the maximum of each feature."""
    return _windows(tokens, num_prompts).amax(dim=1)


def _windows(tokens: Tensor, num_prompts: int) -> Tensor:
    width = len(tokens) // num_prompts
    return tokens[:num_prompts * width].reshape(num_prompts, width, -1)  # (N_p, width, D)


class PromptInitializer(metaclass=ABCMeta):
    """What every initializer is: the frozen network and a stream of training images go in, prompts come out.

    Attributes:
        images (int | str): How many training images it wants unless told otherwise: a number, 'none', 'batch' (one
            random batch of the global batch size) or 'all'.
        method (str): Name of the method that starts so, in results.
    """
    images: int | str = 'batch'
    method: ClassVar[str] = 'SPT'

    @abstractmethod
    def start(self, network: Any, images: ImageStream,
              generator: torch.Generator) -> Tensor | Mapping[str, Tensor] | None:
        """Compute the prompts; every process calls it, with the network in eval mode.

        Args:
            network (PromptedViT): ``network.prompts.shape`` is the prompts' (L, N_p, D).
            images (ImageStream): Empty if ``images`` is 'none'.
            generator (torch.Generator): Source of randomness, on the CPU.

        Returns:
            Tensor | Mapping[str, Tensor] | None: Prompt tokens, (L, N_p, D), fp32, finite, from which any method
            starts; or the state dict of the one method that it is for; None where this is not the main process.

        Raises:
            ValueError: Images, tokens or prompts that are not as they must be.
        """


class TokenInitializer(PromptInitializer):
    """An initializer that maps each layer's tokens to its prompts."""

    @abstractmethod
    def __call__(self, tokens: Tensor, num_prompts: int, generator: torch.Generator) -> Tensor:
        """Map tokens (N, D) to prompts (num_prompts, D)."""

    def start(self, network: Any, images: ImageStream, generator: torch.Generator) -> Tensor | None:
        shape = network.prompts.shape
        layers = gather_tokens(network, images, shape[0])
        if not layers:
            return None
        bar = track(layers, f'{type(self).__name__}: layers', transient=True)
        with closing(cast(Generator, bar)) as progress:  # the bar ends even if a layer fails
            return self.fill(progress, shape, generator, images.device)

    def fill(self, layers: Iterable[Tensor], shape: tuple[int, int, int], generator: torch.Generator,
             device: torch.device | str = 'cpu') -> Tensor:
        """Compute the prompts of all layers.

        Args:
            layers (Iterable[Tensor]): L times the layer's tokens, (N, D).
            shape (tuple): (L, N_p, D).
            generator (torch.Generator): Source of randomness, on the CPU.
            device (torch.device | str): Where the work may be done. Defaults to 'cpu'.

        Returns:
            Tensor: (L, N_p, D), fp32, finite.

        Raises:
            ValueError: Tokens or prompts that are not as they must be.
        """
        prompts = []
        for tokens in layers:
            check_tokens(tokens, shape[1])
            prompts.append(self(tokens, shape[1], generator).float())
        return check_prompts(torch.stack(prompts), shape, type(self).__name__)


def check_prompts(prompts: Tensor, shape: tuple[int, ...], source: str) -> Tensor:
    """Return prompts (L, N_p, D) if they have this shape and are finite, else raise ValueError."""
    if tuple(prompts.shape) != tuple(shape):
        raise ValueError(f'prompts must have shape (L, N_p, D) = {tuple(shape)}, {source} gives '
                         f'{tuple(prompts.shape)}: set num_prompts and prompt_type to what made them')
    if not prompts.isfinite().all():
        raise ValueError(f'prompts must be finite, {source} gives NaN or infinity: check the tokens it started from')
    return prompts


class _FunctionInit(TokenInitializer):
    function: ClassVar[Callable[[Tensor, int, torch.Generator], Tensor]]

    def __call__(self, tokens: Tensor, num_prompts: int, generator: torch.Generator) -> Tensor:
        return type(self).function(tokens, num_prompts, generator)


@TASK_UTILS.register_module()
class RandomSampleInit(_FunctionInit):
    """:func:`random_sample` of one batch's tokens; SPT's default.

    Args:
        norm (float | None): Length that each drawn token is scaled to, to tell a token's content from its length;
            None leaves them. Defaults to None.

    Raises:
        ValueError: ``norm`` is no positive number.
    """
    function = random_sample

    def __init__(self, norm: float | None = None) -> None:
        if norm is not None and not (isinstance(norm, (int, float)) and 0 < norm < math.inf):
            raise ValueError(f'norm must be a positive number or None, got {norm!r}')
        self.norm = norm

    def __call__(self, tokens: Tensor, num_prompts: int, generator: torch.Generator) -> Tensor:
        drawn = super().__call__(tokens, num_prompts, generator)
        return drawn if self.norm is None else self.norm * nn.functional.normalize(drawn.float(), dim=-1)


@TASK_UTILS.register_module()
class MeanPoolInit(_FunctionInit):
    """:func:`mean_pool` of one batch's tokens."""
    function = mean_pool


@TASK_UTILS.register_module()
class MaxPoolInit(_FunctionInit):
    """:func:`max_pool` of one batch's tokens."""
    function = max_pool


@TASK_UTILS.register_module()
class KMeansInit(TokenInitializer):
    """Centres of :func:`mmspt.prompts.clustering.kmeans` over the tokens of all training images.

    Args:
        max_iter (int): The most iterations of Lloyd. Defaults to 100.
        tol (float): A layer is done when the squared shifts of its centres add up to at most this share of the
            features' mean variance. Defaults to 1e-4.
        backend (str): 'auto', 'sklearn', 'flash' or 'torch'; 'auto' chooses by device. Defaults to 'auto'.

    Raises:
        ValueError: An option out of its range.
    """
    images = 'all'

    def __init__(self, max_iter: int = 100, tol: float = 1e-4, backend: str = 'auto') -> None:
        if not isinstance(max_iter, int) or isinstance(max_iter, bool) or max_iter < 1:
            raise ValueError(f'max_iter must be a whole number of at least 1, got {max_iter!r}')
        if not isinstance(tol, (int, float)) or not 0 <= tol < math.inf:
            raise ValueError(f'tol must be a finite number of at least 0, got {tol!r}')
        check_backend(backend)
        self.max_iter = max_iter
        self.tol = tol
        self.backend = backend

    def __call__(self, tokens: Tensor, num_prompts: int, generator: torch.Generator) -> Tensor:
        return self._cluster([tokens], num_prompts, generator, 'cpu').centres[0]

    def fill(self, layers: Iterable[Tensor], shape: tuple[int, int, int], generator: torch.Generator,
             device: torch.device | str = 'cpu') -> Tensor:
        clusters = self._cluster(layers, shape[1], generator, device)
        return check_prompts(clusters.centres, shape, type(self).__name__)

    def _cluster(self, layers: Iterable[Tensor], num_prompts: int, generator: torch.Generator,
                 device: torch.device | str) -> Clusters:
        def checked() -> Iterator[Tensor]:
            for tokens in layers:
                check_tokens(tokens, num_prompts)
                yield tokens

        clusters = kmeans(checked(), num_prompts, generator, self.max_iter, self.tol, self.backend, device)
        logger = MMLogger.get_current_instance()
        for layer, (iterations, inertia) in enumerate(zip(clusters.iterations, clusters.inertia, strict=True)):
            logger.info(f'K-means ({clusters.backend}), layer {layer}: {iterations} iterations, inertia {inertia:.3e}')
        stopped = [layer for layer, iterations in enumerate(clusters.iterations) if iterations >= self.max_iter]
        if stopped:
            logger.warning(f'K-means did not converge within max_iter={self.max_iter} iterations in layers {stopped}: '
                           'raise max_iter or tol, or leave it, as the inertia then falls little')
        return clusters


@TASK_UTILS.register_module()
class UniformInit(PromptInitializer):
    """VPT's U(-v, v), v = sqrt(6 / (3 p^2 + D)) (https://arxiv.org/abs/2203.12119), p = patch size.

    As the network draws them itself, the 3 is its number of channels.

    Args:
        patch_size (int | None): p in pixels; None takes the network's. Defaults to None.
    """
    images = 'none'
    method = 'VPT'

    def __init__(self, patch_size: int | None = None) -> None:
        self.patch_size = patch_size

    def start(self, network: Any, images: ImageStream, generator: torch.Generator) -> Tensor:
        sides = network.patch_size if self.patch_size is None else (self.patch_size, self.patch_size)
        bound = uniform_bound(sides, network.embed_dims, network.patch_embed.projection.in_channels)
        return draw_uniform(network.prompts.shape, bound, generator)


def draw_uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """Draw U(-bound, bound)."""
    return (2 * torch.rand(shape, generator=generator) - 1) * bound


@TASK_UTILS.register_module()
class NormalInit(TokenInitializer):
    """Normal prompts with mean 0.

    Args:
        std (float | str): Standard deviation; 'tokens' takes in each layer the root mean square of one batch's tokens,
            so that prompts are as long as tokens and hold nothing else of them. Defaults to 0.02.

    Raises:
        ValueError: ``std`` is neither 'tokens' nor a positive number.
    """
    images = 'none'
    method = 'VPT'

    def __init__(self, std: float | str = 0.02) -> None:
        if std == 'tokens':
            self.images = 'batch'
        elif not isinstance(std, (int, float)) or not std > 0:
            raise ValueError(f"std must be positive, or 'tokens', got {std!r}")
        self.std = std

    def __call__(self, tokens: Tensor, num_prompts: int, generator: torch.Generator) -> Tensor:
        std = tokens.float().square().mean().sqrt() if isinstance(self.std, str) else self.std
        return std * torch.randn(num_prompts, tokens.shape[-1], generator=generator)

    def start(self, network: Any, images: ImageStream, generator: torch.Generator) -> Tensor | None:
        if isinstance(self.std, str):
            return super().start(network, images, generator)
        layers, num_prompts, dims = network.prompts.shape
        return torch.stack([self.std * torch.randn(num_prompts, dims, generator=generator) for _ in range(layers)])


@TASK_UTILS.register_module()
class FileInit(PromptInitializer):
    """Prompts computed earlier.

    Args:
        path (str): ``initial_prompts.safetensors`` of a run or of ``tools/init_prompts.py``, a pack, or a checkpoint
            of a tuned model; tensor 'prompts', 'backbone.prompts.tokens' or 'backbone.prompts', (L, N_p, D).
    """
    images = 'none'

    def __init__(self, path: str) -> None:
        self.path = path

    def start(self, network: Any, images: ImageStream, generator: torch.Generator) -> Tensor:
        shape = network.prompts.shape
        content = load_file(self.path)
        content = content.get('state_dict', content) if isinstance(content, dict) else {}
        for key in ('prompts', 'backbone.folded.tokens', 'backbone.prompts.tokens', 'backbone.prompts'):
            if key in content:
                prompts = content[key]
                if not isinstance(prompts, Tensor) or not prompts.is_floating_point():
                    raise ValueError('prompts must be a tensor of floating-point numbers, '
                                     f"'{self.path}' has {getattr(prompts, 'dtype', type(prompts).__name__)}: make one "
                                     'with tools/init_prompts.py')
                fits = tuple(prompts.shape) == tuple(shape)  # others are refused before a copy is made
                return check_prompts(prompts.float() if fits else prompts, shape, f"'{self.path}'")
        raise ValueError("a prompts file must hold 'prompts' or 'backbone.prompts.tokens', "
                         f"'{osp.basename(self.path)}' has {list(content)[:6]}: make one with tools/init_prompts.py")
