"""A prompt method of a user's own, as VFPT's (https://arxiv.org/abs/2411.01327): a share of the prompts is the real
part of their 2-d Fourier transform."""
import torch
from mmpretrain.registry import MODELS
from torch import nn

from mmspt.models.methods import FoldedPrompts, PromptMethod


@MODELS.register_module()
class FourierPrompts(PromptMethod):
    """Prompts for every block, of which the first are transformed.

    Args:
        num_prompts (int): N_p. Defaults to 5.
        share (float): Of the prompts that are transformed. Defaults to 0.4.
        **kwargs: Those of PromptMethod, given by the network.
    """
    name = 'VFPT'
    usual_num_prompts = 5

    def __init__(self, num_prompts=5, share=0.4, **kwargs):
        super().__init__(num_prompts, **kwargs)
        self.count = int(share * num_prompts)
        self.plain = nn.Parameter(torch.empty(self.shape))
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)  # never trained
        self.register_buffer('sign', torch.ones(self.count, 1), persistent=False)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.uniform_(self.plain, -self.bound, self.bound)

    def forward(self):
        transformed = self.scale * self.sign * torch.fft.fft2(self.plain[:, :self.count]).real
        return FoldedPrompts(torch.cat((transformed, self.plain[:, self.count:]), dim=1))

    @torch.no_grad()
    def start_from(self, prototypes):
        self.plain.copy_(prototypes + 1e-3 * torch.randn_like(prototypes))  # drawn: the same on every process
