"""What a training left in its work directory, for pictures: config, prompts before and after, model, images."""
import copy
import os
import os.path as osp
import re
from functools import cached_property
from shlex import quote
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope, Registry
from mmengine.runner import load_checkpoint
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mmspt.engine.checks import check_data_folder
from mmspt.engine.token_loader import SeededImages
from mmspt.engine.unwrap import find_prompted_vit
from mmspt.evaluation import FILE_NAME, describe, read_result, unusual
from mmspt.evaluation.environment import read_environment
from mmspt.evaluation.work_dirs import LOGS, find_config, is_run
from mmspt.models import PromptedViT
from mmspt.prompts.initializers import check_prompts

PROMPTS = 'initial_prompts.safetensors'
SPLITS = ('train', 'val', 'test')


class RunFolder:
    """The work directory of a training.

    Args:
        folder (str): Its path.
        checkpoint (str | None): File of the tuned weights; None is the newest of the run's ``epoch_*.pth`` or
            ``iter_*.pth``. Defaults to None.
        device (str | None): Where the model computes; None is the GPU if there is one. Defaults to None.
        backbone (str | None): The frozen backbone's checkpoint; None is that of the config. Defaults to None.

    Raises:
        ValueError: It is no run, or its config is missing.
    """

    def __init__(self, folder: str, checkpoint: str | None = None, device: str | None = None,
                 backbone: str | None = None) -> None:
        remedy = 'name the --work-dir of python tools/train.py CONFIG --work-dir FOLDER'
        if not osp.isdir(folder):
            raise ValueError(f"a run must be the work directory of a training, but '{folder}' is no folder: {remedy}")
        names = os.listdir(folder)
        if not is_run(names, filter(LOGS.fullmatch, names)):
            raise ValueError(f"a run must be the work directory of a training, but '{folder}' holds none: {remedy}")
        self.folder = osp.normpath(folder)
        self.config_path = find_config(folder, names)
        if not osp.isfile(self.config_path):
            raise ValueError(f"a run must hold the config that MMEngine wrote there, but '{folder}' has none: copy it "
                             f'back, or train anew with python tools/train.py CONFIG --work-dir {folder}')
        self._checkpoint, self._backbone = checkpoint, backbone
        try:
            self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
            torch.empty(0, device=self.device)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"the device must be one of this machine, but '{device}' is not "
                             f'({str(error).splitlines()[0]}): leave --device out, or say cpu') from error

    @cached_property
    def config(self) -> Config:
        """The run's config; ValueError if it cannot be read."""
        try:
            return Config.fromfile(self.config_path)
        except Exception as error:  # a config is Python: whatever it raises
            raise ValueError(f"a run's config must be readable, but '{self.config_path}' is not "
                             f'({type(error).__name__}: {error}): copy back what MMEngine wrote there') from error

    @cached_property
    def description(self) -> dict[str, Any]:
        """See :func:`mmspt.evaluation.describe`. The config has the batch of one process; how many there were is in the
        result or, before the run is tested, in its log."""
        description = describe(self.config, world_size=int(read_environment(self.folder).get('GPU number', 1)))
        try:
            recorded = read_result(osp.join(self.folder, FILE_NAME)).recipe or {}
        except (OSError, ValueError):  # not tested, or a broken file, of which the tables tell
            recorded = {}
        if 'global_batch' in recorded:
            description['recipe']['global_batch'] = recorded['global_batch']
        return description

    @property
    def label(self) -> str:
        """The run's method, and what is unusual about its prompts."""
        d = self.description
        return ', '.join([d['method'], *unusual(d['method'], d['initializer'], d['num_prompts'])])

    def train_anew(self, ending: str) -> str:
        """The command that trains the run's config in another folder."""
        return f'python tools/train.py {quote(self.config_path)} --work-dir {quote(f"{self.folder}_{ending}")}'

    @property
    def checkpoint(self) -> str:
        """Path of the tuned weights.

        Raises:
            ValueError: There are none.
        """
        if self._checkpoint is not None:
            if not osp.isfile(self._checkpoint):
                raise ValueError(f"a checkpoint must be a file, but '{self._checkpoint}' is none: name one of "
                                 f'{self.folder}/epoch_*.pth')
            return self._checkpoint
        found = [(int(match[2]), match[0]) for match in map(re.compile(r'(epoch|iter)_(\d+)\.pth').fullmatch,
                                                            os.listdir(self.folder)) if match]
        if not found:
            best = sorted(name for name in os.listdir(self.folder) if re.fullmatch(r'best_.*\.pth', name))
            remedy = f'name --checkpoint {quote(osp.join(self.folder, best[-1]))}' if best else self.train_anew('again')
            raise ValueError(f"a run must have a checkpoint (epoch_*.pth or iter_*.pth), but '{self.folder}' has none: "
                             f'{remedy}')
        return osp.join(self.folder, max(found)[1])

    @cached_property
    def model(self) -> nn.Module:
        """The classifier with the tuned weights, in eval mode; ``init_cfg``'s are read if the checkpoint lacks them.

        Raises:
            ValueError: The checkpoint is missing, or does not fit the config, or that cannot be built.
        """
        path, cfg = self.checkpoint, copy.deepcopy(self.config.model)
        cfg.setdefault('data_preprocessor', self.config.get('data_preprocessor', {}))
        if self._backbone is not None:
            cfg.backbone.init_cfg = dict(type='Pretrained', checkpoint=self._backbone)
        model = self._build(MODELS, cfg, 'model')
        try:
            load_checkpoint(model, path, map_location='cpu', strict=True, logger='silent')
        except OSError as error:
            raise ValueError(f"a run's checkpoint '{path}' needs the frozen backbone that it was saved without, but "
                             f'{error}; or name it with --backbone PATH') from error
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"a checkpoint must fit the run's config, but '{path}' does not ({error}): name one of "
                             f'{self.folder}/epoch_*.pth') from error
        return model.to(self.device).eval()

    def _build(self, registry: Registry, cfg: Config, what: str) -> Any:
        """Build a part of the config; ValueError if it cannot be."""
        try:
            with DefaultScope.overwrite_default_scope(self.config.get('default_scope', 'mmpretrain')):
                return registry.build(cfg)
        except (AssertionError, ImportError, KeyError, TypeError) as error:
            raise ValueError(f"the config must say how to build its {what}, but '{self.config_path}' does not "
                             f'({type(error).__name__}: {error}): install what it needs, or copy back what MMEngine '
                             'wrote there') from error

    @property
    def backbone(self) -> PromptedViT:
        """The model's backbone, with its tuned prompts.

        Raises:
            ValueError: It has no prompts, or the checkpoint lacks them or their gates.
        """
        self.check_has_prompts()
        self.check_loaded()
        backbone = find_prompted_vit(self.model)
        assert backbone is not None
        return backbone

    def check_loaded(self) -> None:
        """Raise ValueError if the checkpoint lacks prompts or gates of the run's model."""
        backbone = find_prompted_vit(self.model)
        if backbone is not None and backbone.not_loaded:
            raise ValueError(f"a checkpoint must hold the run's tuned prompts, but '{self.checkpoint}' has no "
                             f'{", ".join(backbone.not_loaded)}: name one of {self.folder}/epoch_*.pth')

    @property
    def tuned_prompts(self) -> Tensor:
        """(L, N_p, D), (1, N_p, D) for a shallow model; fp32, on the CPU."""
        prompts = self.backbone.prompts
        assert prompts is not None
        return prompts.detach().float().cpu()

    @cached_property
    def initial_prompts(self) -> Tensor:
        """The prompts before training, of the same shape.

        Raises:
            ValueError: Their file is missing, is none, or does not fit the tuned prompts.
        """
        return self._initial[0]

    @cached_property
    def seed(self) -> int:
        """Seed of the prompts' images and augmentation."""
        return int(self._initial[1].get('seed', 0))

    @cached_property
    def _initial(self) -> tuple[Tensor, dict[str, str]]:
        self.check_has_prompts()
        path, shape = osp.join(self.folder, PROMPTS), tuple(self.tuned_prompts.shape)
        remedy = f'python tools/init_prompts.py {quote(self.config_path)} --work-dir {quote(self.folder)}'
        if not osp.isfile(path):
            raise ValueError(f"a run must have its initial prompts, but '{path}' is missing: {remedy}")
        try:
            with safe_open(path, 'pt') as file:
                prompts, metadata = file.get_tensor('prompts').float(), file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"'{path}' must hold initial prompts, but cannot be read ({error}): {remedy}") from error
        try:
            return check_prompts(prompts, shape, f"'{path}'"), metadata
        except ValueError as error:
            raise ValueError(f'{error}; or make them anew: {remedy}') from error

    def check_has_prompts(self) -> None:
        """Raise ValueError if the config has no prompts."""
        if not self.description['num_prompts']:
            raise ValueError(f"this needs a run with prompts, but '{self.folder}' ({self.label}) has none: "
                             'python tools/train.py with a config of configs/spt/ or configs/vpt/')

    def images(self, split: str = 'train', indices: list[int] | None = None) -> SeededImages:
        """Images of the run's data as its prompts saw them first: with the training pipeline and the run's seed.

        Args:
            split (str): 'train', 'val' or 'test'; the last two have pipelines of their own. Defaults to 'train'.
            indices (list[int] | None): Which; None is all. Defaults to None.

        Raises:
            OSError, ValueError: The data are missing, or have no such image.
        """
        field = f'{split}_dataloader'
        cfg = (self.config.get(field) or {}).get('dataset')
        if cfg is None:
            raise ValueError(f"images of '{split}' need a {field}, but the config of '{self.folder}' has none: choose "
                             f'another of {", ".join(SPLITS)}')
        check_data_folder(cfg, field)
        dataset = self._build(DATASETS, copy.deepcopy(cfg), field)
        outside = [index for index in indices or [] if not 0 <= index < len(dataset)]
        if outside:
            raise ValueError(f"images of '{split}' are numbered from 0 to {len(dataset) - 1}, got {outside[0]}")
        hook: dict = next((hook for hook in self.config.get('custom_hooks') or []
                     if str(hook.get('type')).endswith('PromptInitHook')), {})
        return SeededImages(dataset, range(len(dataset)) if indices is None else indices, self.seed,
                            hook.get('pipeline') if split == 'train' else None)
