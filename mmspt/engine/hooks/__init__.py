from .bad_images_hook import BadImagesHook
from .checkpoint_hook import CheckpointHook
from .finite_loss_hook import FiniteLossHook
from .global_batch_hook import GlobalBatchHook
from .preemption_hook import PreemptionHook
from .prompt_init_hook import PromptInitHook
from .prompt_nmi_hook import PromptNMIHook
from .result_hook import ResultHook
from .resume_hook import ResumeHook

__all__ = ['BadImagesHook', 'CheckpointHook', 'FiniteLossHook', 'GlobalBatchHook', 'PreemptionHook', 'PromptInitHook',
           'PromptNMIHook', 'ResultHook', 'ResumeHook']
