"""The recipes as models of MMPretrain's zoo and as bases of other configs, installed by ``import mmspt``.

``mmpretrain.list_models``, ``get_model`` and the inferencers know the entries of ``model-index.yml``, and
``_base_ = 'mmspt::spt/vit-b_mae_cub.py'`` names a recipe. Both read ``mmspt/.mim/``, which holds copies of the
repository's ``configs/``, ``tools/`` and ``model-index.yml`` in a normal installation and links to them in an editable
one (``setup.py``).
"""
import os.path as osp
import sys
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE
from mmpretrain.apis.model import ModelHub

PACKAGE = osp.dirname(osp.abspath(__file__))
ONE_OF_OURS = 'spt_vit-b_mae_cub'


def find_index() -> str | None:
    """Path of the model index: the installed one, else that of the repository that the package lies in."""
    paths = [osp.join(folder, 'model-index.yml') for folder in (osp.join(PACKAGE, '.mim'), osp.dirname(PACKAGE))]
    return next((path for path in paths if osp.isfile(path)), None)


def follow_editable(stock: Callable[[str], str]) -> Callable[[str], str]:
    """Let MMEngine's ``get_installed_path`` find packages that were installed editable (PEP 660).

    MMEngine 0.10 looks beside a package's metadata, where an editable installation has no code. Where the stock answer
    is a folder, it stays.
    """
    @wraps(stock)
    def get_installed_path(package: str) -> str:
        try:
            path = stock(package)
        except ValueError:  # no top_level.txt
            path = ''
        if osp.isdir(path):
            return path
        spec = find_spec(package)
        return path if spec is None or spec.origin is None else osp.dirname(spec.origin)

    return get_installed_path


def register() -> None:
    """Make the recipes known to MMEngine and to MMPretrain's zoo."""
    MODULE2PACKAGE['mmspt'] = 'mmspt'
    for name in ('mmengine.utils', 'mmengine.config.config', 'mmengine.hub.hub'):  # hub, if it is there already
        module: Any = sys.modules.get(name)
        if module is not None:
            module.get_installed_path = follow_editable(module.get_installed_path)
    index = find_index()
    if index is not None and not ModelHub.has(ONE_OF_OURS):
        ModelHub.register_model_index(index, config_prefix=osp.dirname(index))
