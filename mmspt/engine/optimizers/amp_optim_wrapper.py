"""MMEngine's mixed precision, on a CPU too, with loss scaling where the format needs it."""
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim import OptimWrapper
from torch import nn

from mmspt.registry import OPTIM_WRAPPERS

BFLOAT16 = ('bfloat16', torch.bfloat16)
FLOAT16 = ('float16', torch.float16, None)  # None is autocast's own choice on a GPU


def warn_of_slow_bfloat16() -> None:
    """Log a warning where the device is a CPU without the instructions that torch's products in bfloat16 use.

    Every CPU with AVX-512 passes, as in torch, though of these some convert each number first.
    """
    mkldnn = torch.backends.mkldnn.is_available()
    if get_device() == 'cpu' and not (mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        MMLogger.get_current_instance().warning(
            'Mixed precision on a CPU should have instructions for bfloat16, but '
            f'{torch.backends.cpu.get_cpu_capability()} has none that torch uses, and a step may take many times as '
            "long as in fp32: leave out --amp and fp16=True, or set optim_wrapper.type='OptimWrapper'")


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(MMEngineAmpOptimWrapper):
    """Run the forward pass under autocast; parameters, their gradients and the optimizer's state stay fp32.

    Unlike MMEngine's class of the same name, it works without an accelerator, in bfloat16; scales the loss of float16
    alone, since bfloat16 has the range of fp32; and resumes from a run in another precision.

    Args:
        loss_scale (float | str | dict): As in MMEngine; read for float16 alone. Defaults to 'dynamic'.
        dtype (str | torch.dtype | None): Of autocast; None is float16 on a GPU, bfloat16 on a CPU. Defaults to None.
        **kwargs: Those of :class:`mmengine.optim.OptimWrapper`.

    Attributes:
        cast_dtype (torch.dtype | None): Of autocast; None on a GPU is float16.

    Raises:
        ValueError: A dtype that the device does not compute.
    """

    def __init__(self,
                 loss_scale: float | str | dict = 'dynamic',
                 dtype: str | torch.dtype | None = None,
                 **kwargs: Any) -> None:
        device = get_device()
        if device == 'cpu' and dtype not in (None, *BFLOAT16):
            raise ValueError(f'mixed precision on a CPU must be bfloat16, got {dtype}: set '
                             "optim_wrapper.dtype='bfloat16' (--amp bfloat16), or train on a GPU")
        if device == 'cuda' and dtype in BFLOAT16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ValueError(f'bfloat16 needs a GPU that computes it, {torch.cuda.get_device_name()} does not: set '
                             "optim_wrapper.dtype='float16' (--amp float16)")
        if device == 'cpu':
            OptimWrapper.__init__(self, **kwargs)  # MMEngine's own demands an accelerator
            self._scale_update_param = None
            self.loss_scaler = torch.amp.GradScaler(enabled=False)
            self.cast_dtype = torch.bfloat16
            warn_of_slow_bfloat16()
            return
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.*GradScaler', FutureWarning)  # MMEngine uses the scaler's old name
            super().__init__(loss_scale if dtype in FLOAT16 else dict(enabled=False), dtype, **kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and no synchronization of gradients where they accumulate.

        torch.compile cannot trace MMEngine's own context, which wraps autocast in a generator.
        """
        device = get_device()
        dtype = self.cast_dtype or (torch.bfloat16 if device == 'cpu' else torch.float16)
        with OptimWrapper.optim_context(self, model), torch.autocast(device, dtype=dtype):
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the optimizer's state, and the scaler's if the saved run scaled its loss; else the scaler starts anew.
        """
        super().load_state_dict({key: value for key, value in state_dict.items() if key != 'loss_scaler' or value})
