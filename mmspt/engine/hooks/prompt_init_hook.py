"""Fill the prompts before the first training step."""
import os.path as osp
import time
from collections.abc import Mapping
from itertools import chain
from typing import Any, cast

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from safetensors.torch import save
from torch import Tensor, nn

from mmspt.fail_together import fail_together
from mmspt.files import write_bytes
from mmspt.models import PromptedViT
from mmspt.models.backbones.reading import KEY as READING
from mmspt.models.methods import PromptMethod
from mmspt.prompts import PromptInitializer
from mmspt.prompts.initializers import check_prompts
from mmspt.prompts.tokens import derive_seed
from mmspt.registry import HOOKS, TASK_UTILS

from ..checks import check_labels
from ..global_batch import batch_of
from ..model import autocast_as_trained, eval_mode, find_prompted_vit, unwrap
from ..training_images import TrainingImages, seeded
from .class_names_hook import checks_labels

INITIAL_PROMPTS = 'initial_prompts.safetensors'


@HOOKS.register_module()
class PromptInitHook(Hook):
    """Start the prompts as prototypes of the training images' patch tokens (SPT, https://arxiv.org/abs/2402.02382).

    Before the first step the initializer is given the frozen backbone, in eval mode, and a stream of training images;
    the prompt method starts from the result, in place and the same on every process. It is also written to
    ``initial_prompts.safetensors`` in the work directory. A resumed run is left alone. The generators of Python, NumPy
    and torch stay as they were: runs with another initializer see the same batches. The hook also checks that the
    frozen weights are filled and that the labels fit the head.

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
            images (with a warning). None keeps all tokens, if the memory at hand holds them. VIPAMIN keeps none.
            Defaults to 0.75.
        amp (bool | None): Whether the tokens are computed under autocast; None is as the run trains. Tokens and
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
        for option, value, least in (('num_images', num_images, 1), ('batch_size', batch_size, 1), ('seed', seed, 0)):
            named = value is None or (option == 'num_images' and value in ('batch', 'all'))
            if not named and (type(value) is not int or value < least):
                raise ValueError(f'{option} must be a whole number of at least {least}, got {value!r}')
        if max_memory is not None and not 0 < max_memory < float('inf'):
            raise ValueError(f'max_memory must be positive and finite (GiB), or None for no bound, got {max_memory!r}')
        self.initializer: PromptInitializer = TASK_UTILS.build(initializer or dict(type='mmspt.RandomSampleInit'))
        self.num_images = num_images
        self.pipeline = pipeline
        self.batch_size = batch_size
        self.seed = seed
        self.max_bytes = None if max_memory is None else max_memory * 2**30
        self.amp = amp
        self._reached = True
        self._watches: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Check the model and the labels; fill the prompts unless the run was resumed."""
        model = unwrap(runner.model)
        backbone = find_prompted_vit(model)
        if backbone is None and not hasattr(model, 'backbone'):  # the stand-in of MMPretrain's vis_scheduler.py
            runner.logger.warning(f'PromptInitHook does nothing: {type(model).__name__} has no backbone')
            return
        if backbone is None:
            raise ValueError(f"PromptInitHook needs a mmspt.PromptedViT, {type(model).__name__} has none: set "
                             "model.backbone.type='mmspt.PromptedViT'")
        backbone.check_weights()
        if not checks_labels(runner):
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
            if len(backbone.not_loaded) < len(list(backbone.prompts.parameters())):
                runner.logger.warning('The prompts that load_from or init_cfg brought are replaced: to start from '
                                      "them, set initializer=dict(type='mmspt.FileInit', path=<that checkpoint>).")
            self.fill(runner, model, backbone)
        tuned = [] if backbone.prompts is None else [p for p in backbone.prompts.parameters() if p.requires_grad]
        self._reached = not tuned
        self._watches = [parameter.register_hook(self._gradient_came) for parameter in tuned]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse a prompt pack for another head: MMEngine would log that, and leave a random head."""
        state, own = checkpoint.get('state_dict', {}), unwrap(runner.model).state_dict()
        if f'backbone.{READING}' not in state:
            return
        for name, value in state.items():
            if name.startswith('head.') and (name not in own or own[name].shape != value.shape):
                found = tuple(own[name].shape) if name in own else 'none'
                raise ValueError(f"a pack must fit the model's head, but its {name} is {tuple(value.shape)}, and the "
                                 f"model's is {found}: set model.head.num_classes={len(value)}, or start other prompts "
                                 "from the pack with dict(type='mmspt.FileInit', path=...)")

    def before_test(self, runner: Runner) -> None:
        """Check the labels of the test set."""
        if not checks_labels(runner):
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
        while self._watches:
            self._watches.pop().remove()

    def fill(self, runner: Runner, model: nn.Module, backbone: PromptedViT) -> None:
        """Compute the prompts on the main process, start the method from them, share it; write them to a file."""
        method = cast(PromptMethod, backbone.prompts)
        start, device, name = time.time(), next(method.parameters()).device, type(self.initializer).__name__
        seed = torch.tensor(runner.seed if self.seed is None else self.seed, dtype=torch.int64)
        dist.broadcast(seed)  # with diff_rank_seed each rank has its own
        path = osp.join(runner.work_dir, INITIAL_PROMPTS)
        with fail_together('prompt initialization'), eval_mode(backbone):
            images = self._images(runner, model, int(seed), device)
            generator = torch.Generator().manual_seed(derive_seed(int(seed), 'initializer'))
            computed = self.initializer.start(backbone, images, generator)
            if dist.is_main_process():
                if isinstance(computed, Mapping):
                    method.load_state_dict(dict(computed))
                else:
                    prompts = check_prompts(cast(Tensor, computed), method.shape, name).to(device)
                    with seeded(derive_seed(int(seed), 'initializer', 1)):  # a method may draw
                        method.start_from(prompts)
                with torch.no_grad():
                    folded = check_prompts(method().tokens, method.shape, name)
                save_prompts(folded if isinstance(computed, Mapping) else prompts, folded, path, initializer=name,
                             seed=int(seed), images=images.wanted)
        for tensor in chain(method.parameters(), method.buffers()):
            dist.broadcast(tensor.data)
        runner.logger.info(f'Prompts from {name}: {images.wanted:,} images, {time.time() - start:.1f} s, written to '
                           f'{path}')

    def _images(self, runner: Runner, model: nn.Module, seed: int, device: torch.device) -> TrainingImages:
        """The images that the initializer wants; none are read if it wants none."""
        loader = runner.train_dataloader
        wanted = self.num_images or self.initializer.images
        batch_size = self.batch_size or batch_of(loader)
        if batch_size is None and wanted != 'none':
            raise ValueError(f'PromptInitHook needs a batch size, {type(loader.batch_sampler).__name__} has none: set '
                             'PromptInitHook(batch_size=...)')
        named = {'none': 0, 'all': len(loader.dataset), 'batch': (batch_size or 0) * dist.get_world_size()}
        return TrainingImages(
            loader.dataset, model.data_preprocessor, named[wanted] if isinstance(wanted, str) else wanted,
            batch_size or 1, loader.num_workers, seed, self.pipeline, self.max_bytes, device,
            lambda: autocast_as_trained(runner, self.amp), type(self.initializer).__name__)


def save_prompts(prompts: Tensor, folded: Tensor, path: str, **metadata: Any) -> None:
    """Write prompts (L, N_p, D) as safetensors, atomically, and what the method folds them to if that is another."""
    tensors = dict(prompts=prompts) if torch.equal(folded, prompts) else dict(prompts=prompts, folded=folded)
    write_bytes(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                           {key: str(value) for key, value in metadata.items()}))
