"""What ``import mmspt`` still replaces."""
from mmengine.runner import checkpoint

from mmspt.packs.fit import load_state_dict


def apply() -> None:
    """Let MMEngine refuse a prompt pack that does not fit the model; all else is loaded as ever."""
    checkpoint.load_state_dict = load_state_dict
