"""A training's work directory, opened: config, prompts before and after, model, images."""
import copy
import os
import os.path as osp
import re
from functools import cached_property
from shlex import quote
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mmspt.config import find_hook, read_config
from mmspt.engine.build import build_dataset, load_model
from mmspt.engine.checks import check_data_folder
from mmspt.engine.hooks.prompt_init_hook import INITIAL_PROMPTS
from mmspt.engine.model import check_device, find_prompted_vit
from mmspt.engine.training_images import SeededImages, choose_images
from mmspt.evaluation import RESULT_FILE, describe_run, read_result, unusual
from mmspt.evaluation.environment import read_environment
from mmspt.evaluation.work_dirs import LOGS, find_config, is_run
from mmspt.models import PromptedViT
from mmspt.prompts.initializers import check_prompts

SPLITS = ('train', 'val', 'test')


class RunFolder:
    """The work directory of a training; what is missing there is a ValueError with the command that makes it.

    Args:
        folder (str): Its path.
        checkpoint (str | None): File of the tuned weights; None is the last of ``epoch_*.pth`` or ``iter_*.pth``.
        device (str | None): Where the model computes; None is the GPU if there is one.
        backbone (str | None): The frozen backbone's checkpoint; None is the one in the config.
    """

    def __init__(self, folder: str, checkpoint: str | None = None, device: str | None = None,
                 backbone: str | None = None) -> None:
        names = os.listdir(folder) if osp.isdir(folder) else None
        if names is None or not is_run(names, filter(LOGS.fullmatch, names)):
            raise ValueError(f"a run must be the work directory of a training, but '{folder}' "
                             f'{"is no folder" if names is None else "holds none"}: name the --work-dir of python '
                             'tools/train.py CONFIG --work-dir FOLDER')
        self.folder = osp.normpath(folder)
        self.config_path = find_config(folder, names)
        if not osp.isfile(self.config_path):
            raise ValueError(f"a run must hold the config that MMEngine wrote there, but '{folder}' has none: copy it "
                             f'back, or train again with python tools/train.py CONFIG --work-dir {quote(folder)}')
        self.config = read_config(self.config_path)
        self._checkpoint, self._backbone = checkpoint, backbone
        self.device = check_device(device)

    @cached_property
    def description(self) -> dict[str, Any]:
        """See :func:`mmspt.evaluation.describe_run`. The config has the batch of one process; the number of processes
        is in the result or, before the run is tested, in its log."""
        description = describe_run(self.config, world_size=int(read_environment(self.folder).get('GPU number', 1)))
        try:
            result = read_result(osp.join(self.folder, RESULT_FILE))
        except (OSError, ValueError):  # not tested, or a broken file, which the tables report
            return description
        recorded = result.recipe or {}
        if description['method'] == 'Full':
            description['method'] = result.method  # which the model said, not the config
        if 'global_batch' in recorded:
            description['recipe']['global_batch'] = recorded['global_batch']
        return description

    @property
    def label(self) -> str:
        """The run's method, and unusual settings of its prompts."""
        d = self.description
        return ', '.join([d['method'], *unusual(d['method'], d['initializer'], d['num_prompts'])])

    def command_to_retrain(self, ending: str) -> str:
        """Return the command that trains the run's config in another folder."""
        return f'python tools/train.py {quote(self.config_path)} --work-dir {quote(f"{self.folder}_{ending}")}'

    @property
    def checkpoint(self) -> str:
        """Path of the tuned weights."""
        if self._checkpoint is not None:
            return self._checkpoint
        names = [name for name in os.listdir(self.folder) if re.fullmatch(r'(epoch|iter)_\d+\.pth', name)]
        if not names:
            raise ValueError(f"a run must have a checkpoint (epoch_*.pth or iter_*.pth), but '{self.folder}' has none: "
                             f'name another with --checkpoint, or train again: {self.command_to_retrain("again")}')
        return osp.join(self.folder, max(names, key=lambda name: int(re.sub(r'\D', '', name))))

    @cached_property
    def model(self) -> nn.Module:
        """The classifier with the tuned weights, in eval mode; ``init_cfg``'s are read if the checkpoint lacks them."""
        path, cfg = self.checkpoint, copy.deepcopy(self.config)
        if self._backbone is not None:
            cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=self._backbone)
        try:
            return load_model(cfg, path)[0].to(self.device)
        except OSError as error:
            raise ValueError(f"a run needs its checkpoint '{path}' and the frozen backbone that it was saved without, "
                             f'but {error}; or name the backbone with --backbone PATH') from error

    @property
    def backbone(self) -> PromptedViT:
        """The model's backbone, with its tuned prompts."""
        self.check_has_prompts()
        backbone = find_prompted_vit(self.model)
        assert backbone is not None
        return backbone

    @property
    def tuned_prompts(self) -> Tensor:
        """The folded prompts, (L, N_p, D), (1, N_p, D) for a shallow model; fp32, on the CPU."""
        method = self.backbone.prompts
        assert method is not None
        with torch.no_grad():
            return method().tokens.detach().float().cpu()

    @property
    def initial_prompts(self) -> Tensor:
        """The prompts before training, of the same shape."""
        return self._initial[0]

    @property
    def seed(self) -> int:
        """Seed of the prompts' images and augmentation."""
        return int(self._initial[1].get('seed', 0))

    @cached_property
    def _initial(self) -> tuple[Tensor, dict[str, str]]:
        """The initial prompts, and the metadata of their file."""
        path, shape = osp.join(self.folder, INITIAL_PROMPTS), tuple(self.tuned_prompts.shape)
        try:
            with safe_open(path, 'pt') as file:
                name = 'folded' if 'folded' in file.keys() else 'prompts'  # noqa: SIM118
                prompts, metadata = file.get_tensor(name).float(), file.metadata() or {}
            return check_prompts(prompts, shape, f"'{path}'"), metadata
        except (OSError, SafetensorError, ValueError) as error:
            raise ValueError(f"a run must have its initial prompts, but '{path}' does not hold them ({error}): python "
                             f'tools/init_prompts.py {quote(self.config_path)} --work-dir {quote(self.folder)}'
                             ) from error

    def check_has_prompts(self) -> None:
        """Raise ValueError if the config has no prompts."""
        if not self.description['num_prompts']:
            raise ValueError(f"this needs a run with prompts, but '{self.folder}' ({self.label}) has none: "
                             'python tools/train.py with a config of configs/spt/ or configs/vpt/')

    def images(self, split: str = 'train', indices: list[int] | None = None) -> SeededImages:
        """Return images of the run's data as its prompts saw them first: same training pipeline, same seed.

        'val' and 'test' have pipelines of their own. ``indices`` of None are all images; OSError or ValueError if the
        data are missing.
        """
        field = f'{split}_dataloader'
        cfg = (self.config.get(field) or {}).get('dataset')
        if cfg is None:
            raise ValueError(f"images of '{split}' need a {field}, but the config of '{self.folder}' has none: choose "
                             f'another of {", ".join(SPLITS)}')
        check_data_folder(cfg, field)
        dataset = build_dataset(self.config, field)
        outside = [index for index in indices or [] if not 0 <= index < len(dataset)]
        if outside:
            raise ValueError(f"images of '{split}' are numbered from 0 to {len(dataset) - 1}, got {outside[0]}")
        return SeededImages(dataset, range(len(dataset)) if indices is None else indices, self.seed,
                            find_hook(self.config, 'PromptInitHook').get('pipeline') if split == 'train' else None)

    def sample_images(self, num_images: int | None) -> SeededImages:
        """Draw :meth:`images` of training by the run's seed; None is all."""
        images = self.images('train')
        images.indices = choose_images(num_images or len(images), len(images), self.seed)
        return images
