"""The recipes as models of MMPretrain's zoo and as bases of other configs, installed by ``import mmspt``.

``mmpretrain.list_models``, ``get_model`` and the inferencers know the entries of ``model-index.yml``, and
``_base_ = 'mmspt::spt/vit-b_mae_cub.py'`` names a recipe. Both read ``mmspt/.mim/``, which holds copies of the
repository's ``configs/``, ``tools/`` and ``model-index.yml`` in a normal installation and links to them in an editable
one (``setup.py``). Nothing is read, and MMPretrain is not imported, before it is asked for its models.
"""
import os.path as osp
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE

PACKAGE = osp.dirname(osp.abspath(__file__))
ONE_OF_OURS = 'spt_vit-b_mae_cub'
_HUB = 'mmpretrain.apis.model'


def find_index() -> str | None:
    """Path of the model index: the installed one, else that of the repository that the package lies in."""
    paths = [osp.join(folder, 'model-index.yml') for folder in (osp.join(PACKAGE, '.mim'), osp.dirname(PACKAGE))]
    return next((path for path in paths if osp.isfile(path)), None)


def extend_hub(module: ModuleType) -> None:
    """Let MMPretrain's ``ModelHub`` read our model index right after its own, which it does when first asked."""
    hub: Any = module.ModelHub
    stock = hub._register_mmpretrain_models.__func__

    @wraps(stock)
    def register(cls: Any) -> None:
        stock(cls)
        path = find_index()
        if path is not None and not cls.has(ONE_OF_OURS):
            cls.register_model_index(path, config_prefix=osp.dirname(path))

    hub._register_mmpretrain_models = classmethod(register)


class HubFinder(MetaPathFinder):
    """Call :func:`extend_hub` on MMPretrain's module of models once it was imported, whoever does it and whenever."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != _HUB:
            return None
        after = sys.meta_path[sys.meta_path.index(self) + 1:]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in after)), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                extend_hub(module)

            loader.exec_module = exec_module
        return spec


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
    """Make the recipes known to MMEngine at once and to MMPretrain when it is imported."""
    MODULE2PACKAGE['mmspt'] = 'mmspt'
    for name in ('mmengine.utils', 'mmengine.config.config', 'mmengine.hub.hub'):  # hub, if it is there already
        module: Any = sys.modules.get(name)
        if module is not None:
            module.get_installed_path = follow_editable(module.get_installed_path)
    if _HUB in sys.modules:
        extend_hub(sys.modules[_HUB])
    else:
        sys.meta_path.insert(0, HubFinder())
