"""What every prompt method is: a map from tuned parameters to what the blocks read."""
import math
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class FoldedPrompts(NamedTuple):
    """What the blocks read: all that is left of a method once it is tuned."""
    tokens: Tensor
    """Prompt tokens: (L, N_p, D) where every block has its own, (1, N_p, D) where those of the first travel."""
    logit_scale: Tensor | None = None
    """Factor of each block's attention logits, (L, ); None is 1."""
    gate: Tensor | None = None
    """Share of what a block makes of travelling prompts that goes on to the next one, (L - 1, ); None is 1."""


def uniform_bound(patch_size: Sequence[int], embed_dims: int, in_channels: int = 3) -> float:
    """Bound v of VPT's prompts U(-v, v), the Xavier bound of the patch embedding: sqrt(6 / (3 p^2 + D)).

    Args:
        patch_size (Sequence[int]): Height and width of a patch, pixels.
        embed_dims (int): Width D.
        in_channels (int): Channels of an image. Defaults to 3.
    """
    return math.sqrt(6. / (in_channels * math.prod(patch_size) + embed_dims))


class PromptMethod(nn.Module, metaclass=ABCMeta):
    """Base of all methods. A subclass holds its parameters, registered in MODELS, and :class:`.PromptedViT` builds it.

    A method of your own needs ``__init__`` with its parameters, :meth:`reset_parameters`, :meth:`forward`, and
    :meth:`start_from` if prototypes are to start it. Training, packs, export, serving, NMI and pictures know no more.

    Args:
        num_prompts (int): N_p.
        num_layers (int): Blocks L of the network.
        embed_dims (int): Width D of the network.
        patch_size (tuple[int, int]): Height and width of the network's patches, pixels.
        in_channels (int): Channels of an image. Defaults to 3.

    Attributes:
        name (str | None): The method's name in results; None is named by how it starts (SPT, VPT, VIPAMIN).
        deep (bool): Whether every block has prompts of its own, or those of the first block travel through all.
        usual_num_prompts (int): The paper's number, which results do not mention.
        usual_start (str): The paper's initializer, which results of a method with a name do not mention.

    Raises:
        ValueError: ``num_prompts`` is no whole number of at least 1.
    """
    name: ClassVar[str | None] = None
    deep: ClassVar[bool] = True
    usual_num_prompts: ClassVar[int] = 20
    usual_start: ClassVar[str] = 'UniformInit'

    def __init__(self, num_prompts: int, num_layers: int, embed_dims: int, patch_size: Sequence[int],
                 in_channels: int = 3) -> None:
        super().__init__()
        if not isinstance(num_prompts, int) or num_prompts < 1:
            raise ValueError(f'num_prompts of {type(self).__name__} must be a whole number of at least 1, got '
                             f'{num_prompts!r}: a network without prompts is mmspt.PromptedViT(num_prompts=0)')
        self.num_prompts = num_prompts
        self.num_layers = num_layers
        self.embed_dims = embed_dims
        self.bound = uniform_bound(patch_size, embed_dims, in_channels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the prompt tokens: (L, N_p, D) if deep, else (1, N_p, D)."""
        return self.num_layers if self.deep else 1, self.num_prompts, self.embed_dims

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw the parameters: how the method starts unless prototypes start it."""

    @abstractmethod
    def forward(self) -> FoldedPrompts:
        """Compute what the blocks read."""

    @abstractmethod
    def start_from(self, prototypes: Tensor) -> None:
        """Start from given prompt tokens, in place, as near to them as the method can.

        Args:
            prototypes (Tensor): Of :attr:`shape`.
        """

    def unfold(self, folded: FoldedPrompts) -> dict[str, Tensor]:
        """Invert :meth:`forward`, to load a prompt pack. What does not override it can load none.

        Args:
            folded (FoldedPrompts): Of a pack.

        Returns:
            dict[str, Tensor]: The parameters, by name.

        Raises:
            ValueError: No parameters give this.
        """
        form = 'deep' if self.deep else 'shallow'
        raise ValueError(f'a pack holds prompt tokens, from which the parameters of {type(self).__name__} cannot be '
                         f"computed: set model.backbone.prompts=None and prompt_type='{form}' for the pack, or load a "
                         'checkpoint of the training')
