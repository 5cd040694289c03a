"""The recipes as models of MMPretrain's zoo and as bases of other configs, added by ``import mmspt``.

``mmpretrain.list_models``, ``get_model`` and the inferencers know the entries of ``model-index.yml``, and
``_base_ = 'mmspt::spt/vit-b_mae_cub.py'`` names a recipe. Both read ``mmspt/.mim/``, which holds copies of the
repository's ``configs/``, ``tools/`` and ``model-index.yml`` in a normal installation and links to them in an editable
one (``setup.py``).
"""
import os.path as osp

from mmengine.config.utils import MODULE2PACKAGE
from mmpretrain.apis.model import ModelHub

PACKAGE = osp.dirname(osp.abspath(__file__))
ONE_OF_OURS = 'spt_vit-b_mae_cub'


def find_index() -> str | None:
    """Path of the model index: the installed one, else that of the repository that the package lies in."""
    paths = [osp.join(folder, 'model-index.yml') for folder in (osp.join(PACKAGE, '.mim'), osp.dirname(PACKAGE))]
    return next((path for path in paths if osp.isfile(path)), None)


def register() -> None:
    """Make the recipes known to MMEngine and to MMPretrain's zoo."""
    # For an installed package MMEngine looks beside its metadata, where an editable installation (PEP 660) has no code;
    # for another module it asks Python for its folder, which is right in every installation: so name this module.
    MODULE2PACKAGE['mmspt'] = __name__
    index = find_index()
    if index is not None and not ModelHub.has(ONE_OF_OURS):
        ModelHub.register_model_index(index, config_prefix=osp.dirname(index))
