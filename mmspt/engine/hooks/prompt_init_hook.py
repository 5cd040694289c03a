"""Fill the prompts before the first training step."""
import os.path as osp
import resource
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any, cast

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import track
from safetensors.torch import save
from torch import Tensor, nn

from mmspt.files import write_bytes
from mmspt.models import PromptedViT
from mmspt.prompts import PromptInitializer, VIPAMINInit
from mmspt.prompts.tokens import collect_tokens, derive_seed, plan_sample
from mmspt.registry import HOOKS, TASK_UTILS

from ..autocast import autocast_as_trained
from ..block_means import BlockSums
from ..checks import check_labels
from ..global_batch import batch_of
from ..processes import raise_in_all_processes
from ..token_loader import SeededImages, choose_images, iterate_images, share
from ..unwrap import find_prompted_vit, unwrap

FILE_NAME = 'initial_prompts.safetensors'


@HOOKS.register_module()
class PromptInitHook(Hook):
    """Start the prompts as prototypes of the training images' patch tokens (SPT, https://arxiv.org/abs/2402.02382).

    Before the first step it streams training images through the frozen backbone, without prompts and in eval mode,
    gives each layer's tokens to the initializer and writes the result into the prompts, in place and the same on
    every process, and to ``initial_prompts.safetensors`` in the work directory. VIPAMIN's initializer gets means over
    the images of what blocks read and attend to instead (:class:`mmspt.prompts.vipamin.BlockMeans`). A resumed run is
    left alone. The generators of Python, NumPy and torch are left as they were, so that runs with another initializer
    see the same batches. It also checks that the frozen weights are filled and that the labels fit the head.

    Args:
        initializer (dict): Config of a :class:`mmspt.prompts.PromptInitializer`.
            Defaults to ``dict(type='mmspt.RandomSampleInit')``.
        num_images (int | str | None): Training images to stream: a number, 'batch' (one global batch), 'all', or
            None for what the initializer wants. Defaults to None.
        pipeline (list[dict] | None): Transforms instead of the training set's own. Defaults to None.
        batch_size (int | None): Images a step; None takes the training loader's. Defaults to None.
        seed (int | None): Seed of images, augmentation, positions and initializer; None takes the run's.
            Defaults to None.
        max_memory (float | None): Bound on the tokens that make the prompts, GiB of fp32 for all layers together;
            beyond it, a seeded sample of positions from every image, and where that is less than one position each, of
            images (with a warning). None keeps all tokens, if the memory at hand holds them. Where means are read, no
            tokens are kept, and it does not matter. Defaults to 0.75.
        amp (bool | None): Whether the tokens are computed under autocast, with the dtype of the run's AmpOptimWrapper,
            or torch's own (float16 on a GPU, bfloat16 on a CPU) if it has none; None is as the run trains. Tokens and
            prompts are fp32 either way. Defaults to None.

    Raises:
        ValueError: An option out of its range, tokens that cannot make the prompts, or that do not fit into memory.
    """
    priority = 'NORMAL'

    def __init__(self,
                 initializer: dict | None = None,
                 num_images: int | str | None = None,
                 pipeline: list[dict] | None = None,
                 batch_size: int | None = None,
                 seed: int | None = None,
                 max_memory: float | None = 0.75,
                 amp: bool | None = None) -> None:
        if num_images not in (None, 'batch', 'all') and not _is_count(num_images):
            raise ValueError("num_images must be a whole number of at least 1, 'batch', 'all' or None, got "
                             f'{num_images!r}')
        if batch_size is not None and not _is_count(batch_size):
            raise ValueError(f'batch_size must be a whole number of at least 1 or None, got {batch_size!r}')
        if seed is not None and not _is_count(seed, least=0):
            raise ValueError(f'seed must be a whole number of at least 0 or None, got {seed!r}')
        if max_memory is not None and not 0 < max_memory < float('inf'):
            raise ValueError(f'max_memory must be positive and finite (GiB), or None for no bound, got {max_memory!r}')
        if amp is not None and not isinstance(amp, bool):
            raise ValueError(f'amp must be True, False or None, got {amp!r}: the dtype is that of optim_wrapper')
        self.initializer: PromptInitializer = TASK_UTILS.build(initializer or dict(type='mmspt.RandomSampleInit'))
        self.num_images = num_images
        self.pipeline = pipeline
        self.batch_size = batch_size
        self.seed = seed
        self.max_bytes = None if max_memory is None else max_memory * 2**30
        self.amp = amp
        self._reached = True
        self._watch: Any = None

    def before_train(self, runner: Runner) -> None:
        """Check the model and the labels; fill the prompts unless the run was resumed."""
        model = unwrap(runner.model)
        backbone = find_prompted_vit(model)
        if backbone is None:
            raise ValueError(f"PromptInitHook needs a mmspt.PromptedViT, {type(model).__name__} has none: set "
                             "model.backbone.type='mmspt.PromptedViT'")
        backbone.check_weights()
        check_labels(runner.train_dataloader.dataset, model)
        if runner.val_loop is not None:
            check_labels(runner.val_loop.dataloader.dataset, model)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        runner.logger.info(f'Model: {trained:,} of {total:,} parameters train ({trained / total:.4%})')
        if runner.iter > 0:
            runner.logger.info('Resumed: prompts come from the checkpoint, no initialization.')
        elif backbone.prompts is None:
            runner.logger.info('num_prompts=0: no prompts to initialize.')
        else:
            brought = [name for name in backbone.learnable if name not in backbone.not_loaded]
            if 'prompts' in brought:
                others = f', its {" and ".join(brought[1:])} stay' if brought[1:] else ''
                runner.logger.warning(f'The prompts that load_from or init_cfg brought are replaced{others}: to start '
                                      "from them, set initializer=dict(type='mmspt.FileInit', path=<that checkpoint>).")
            self.fill(runner, model, backbone)
        if backbone.prompts is not None and backbone.prompts.requires_grad:
            self._reached = False
            self._watch = backbone.prompts.register_hook(self._gradient_came)

    def before_test(self, runner: Runner) -> None:
        """Check the labels of the test set."""
        check_labels(runner.test_loop.dataloader.dataset, unwrap(runner.model))

    def _gradient_came(self, gradient: Tensor) -> None:
        self._reached = True

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Once, after the first step: make sure that the loss reaches the prompts."""
        if not self._reached:
            raise RuntimeError(
                "the loss must reach the prompts, but no gradient came: activation_checkpointing=['backbone'] cuts "
                "them off, name the blocks instead (['backbone.layers.0', ...]); otherwise look for no_grad or detach "
                'in the model')
        if self._watch is not None:
            self._watch.remove()
            self._watch = None

    def fill(self, runner: Runner, model: nn.Module, backbone: PromptedViT) -> None:
        """Compute the prompts on rank 0, write them in place on every rank and to the work directory."""
        assert backbone.prompts is not None
        start, device, name = time.time(), backbone.prompts.device, type(self.initializer).__name__
        seed = torch.tensor(runner.seed if self.seed is None else self.seed, dtype=torch.int64)
        dist.broadcast(seed)  # with diff_rank_seed each rank has its own
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(device)

        error, read, prompts = None, None, torch.zeros_like(backbone.prompts)
        try:
            read, num_images = self._read_share(runner, model, backbone, int(seed))
        except Exception as e:  # told to the other ranks, which would wait for ever, and raised on this one
            error = e
        raise_in_all_processes(error, 'prompt initialization')
        layers: list = [torch.empty(0, backbone.embed_dims)] * len(backbone.prompts)
        if read is not None:
            layers = read.means(num_images) if self.initializer.reads == 'blocks' else _gather(read, num_images)
        del read
        if dist.is_main_process():
            try:
                shape = (len(backbone.prompts), backbone.num_prompts, backbone.embed_dims)
                generator = torch.Generator().manual_seed(derive_seed(int(seed), 'initializer'))
                with _progress(layers, f'{name}: layers', len(layers)) as progress:
                    prompts.copy_(self.initializer.fill(progress, shape, backbone.patch_size, generator, device=device))
                path = osp.join(runner.work_dir, FILE_NAME)
                save_prompts(prompts, path, initializer=name, seed=int(seed), images=num_images)
            except Exception as e:
                error = e
        raise_in_all_processes(error, 'prompt initialization')
        dist.broadcast(prompts)
        with torch.no_grad():
            backbone.prompts.copy_(prompts)

        if dist.is_main_process():
            kept = 'means' if self.initializer.reads == 'blocks' else f'{len(layers[0]):,} tokens'
            runner.logger.info(
                f'Prompts from {name}: {num_images:,} images, {kept} kept for each of {len(layers)} layers, '
                f'{time.time() - start:.1f} s, peak memory {_peak_memory(device):.2f} GiB, written to {path}')

    def _read_share(self, runner: Runner, model: nn.Module, backbone: PromptedViT, seed: int) -> tuple[Any, int]:
        """Stream this rank's share of the images: tokens (L, B, kept, D), BlockSums or None; images of all ranks."""
        assert backbone.prompts is not None
        wanted = self.num_images or self.initializer.images
        if wanted == 'none':
            return None, 0
        loader = runner.train_dataloader
        batch_size = self.batch_size or batch_of(loader)
        if batch_size is None:
            raise ValueError(f'PromptInitHook needs a batch size, {type(loader.batch_sampler).__name__} has none: set '
                             'PromptInitHook(batch_size=...)')
        at_hand = len(loader.dataset)
        named: dict[int | str, int] = {'all': at_hand, 'batch': batch_size * dist.get_world_size()}
        count = named[wanted] if isinstance(wanted, str) else wanted
        num_layers, reads = len(backbone.prompts), self.initializer.reads
        wanted_count = min(count, at_hand)
        count, keep = plan_sample(wanted_count, num_layers, backbone.embed_dims,
                                  self.max_bytes if reads == 'tokens' else None)
        if count < wanted_count:
            runner.logger.warning(f'max_memory holds one token for each of {count:,} images of {wanted_count:,}: the '
                                  'others are left out; raise max_memory to take them in')
        chosen = choose_images(count, at_hand, seed)
        mine = share(chosen)
        indices = mine or chosen[:1]  # a rank without a share looks at one image, to know the tokens' shape
        images = SeededImages(loader.dataset, indices, seed, self.pipeline)
        batches = iterate_images(images, model.data_preprocessor, batch_size, loader.num_workers)
        steps, name = -(-len(indices) // batch_size), type(self.initializer).__name__
        # the processes' shares, taken for those of one machine, and all of them again where rank 0 gathers
        copies = 1 if dist.get_world_size() == 1 else 2 * dist.get_world_size()
        training = backbone.training
        backbone.eval()
        try:
            with autocast_as_trained(runner, self.amp), _progress(batches, f'{name}: {reads}', steps) as progress:
                if reads == 'blocks':
                    sums = BlockSums(backbone, cast(VIPAMINInit, self.initializer), seed)
                    sums.add(progress)
                    if not mine:
                        sums.forget()
                    return sums, count
                tokens = collect_tokens(progress, backbone.patch_tokens, len(indices), num_layers, keep, seed, copies)
        finally:
            backbone.train(training)
        return tokens[:, :len(mine)], count


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def save_prompts(prompts: Tensor, path: str, **metadata: Any) -> None:
    """Write prompts (L, N_p, D) as safetensors, atomically."""
    write_bytes(path, save({'prompts': prompts.detach().cpu().contiguous()},
                           {key: str(value) for key, value in metadata.items()}))


def _gather(tokens: Tensor, num_images: int) -> list[Tensor]:
    """Bring every rank's tokens (L, B_rank, kept, D) to rank 0, a layer at a time: L times (N, D); [] elsewhere."""
    if dist.get_world_size() == 1:
        return [layer.flatten(0, 1) for layer in tokens]
    most = -(-num_images // dist.get_world_size())
    layers = []
    for layer in tokens:
        padded = torch.zeros(most, *layer.shape[1:])
        padded[:len(layer)] = layer
        parts = dist.all_gather(padded)
        if dist.is_main_process():
            sizes = [(r + 1) * num_images // len(parts) - r * num_images // len(parts) for r in range(len(parts))]
            images = torch.cat([part[:size].cpu() for part, size in zip(parts, sizes, strict=True)])
            layers.append(images.flatten(0, 1))
    return layers


def _progress(items: Iterable, description: str, total: int) -> closing[Generator]:
    """A progress bar on rank 0, that is gone at the end of ``with`` even if not all items were taken."""
    return closing(_generator(track(items, description, total, transient=True, disable=not dist.is_main_process())))


def _generator(items: Iterable) -> Generator:
    yield from items


def _peak_memory(device: torch.device) -> float:
    """GiB: of the GPU while the prompts were made; on the CPU, of the process since its start."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
