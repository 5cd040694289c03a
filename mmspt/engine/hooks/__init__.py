from ..reliability.bad_images_hook import BadImagesHook
from ..reliability.checkpoint_hook import CheckpointHook
from ..reliability.finite_loss_hook import FiniteLossHook
from ..reliability.preemption_hook import PreemptionHook
from ..reliability.resume_hook import ResumeHook
from .class_names_hook import ClassNamesHook
from .data_time_hook import DataTimeHook
from .global_batch_hook import GlobalBatchHook
from .metrics_hook import MetricsHook
from .prompt_init_hook import PromptInitHook
from .prompt_nmi_hook import PromptNMIHook
from .result_hook import ResultHook

__all__ = ['BadImagesHook', 'CheckpointHook', 'ClassNamesHook', 'DataTimeHook', 'FiniteLossHook', 'GlobalBatchHook',
           'MetricsHook', 'PreemptionHook', 'PromptInitHook', 'PromptNMIHook', 'ResultHook', 'ResumeHook']
