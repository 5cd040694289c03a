"""A Vision Transformer with prompt tokens: VPT (https://arxiv.org/abs/2203.12119), SPT (https://arxiv.org/abs/2402.02382)."""
import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmspt.registry import MODELS

from ..layers import PromptCache, PromptedBlock, gate_prompts
from ..layers.prompted_block import prompt_keys_values
from ..methods import FoldedPrompts, PromptMethod
from .frozen_vit import FrozenViT
from .reading import KEY as READING
from .reading import PREPROCESSING, Reading, check_size, from_tensor

PROMPT_TYPES = dict(deep='mmspt.DeepPrompts', shallow='mmspt.ShallowPrompts')
"""The short form ``prompt_type`` -> the method that it names."""
OLD_NAMES = {'prompts': 'prompts.tokens', 'gate_logits': 'prompts.gate_logits', 'temperatures': 'prompts.temperatures'}
"""Names of parameters in checkpoints of earlier versions -> their present names."""
FOLDED = 'folded.'
"""Before the names of folded prompts in the weights that a pack gives."""


class BlockInput(NamedTuple):
    """What block i reads."""
    tokens: Tensor
    """All but prompts, (B, n + N_e, D), n the number of CLS and registers; for block 1 with the position embedding."""
    prompts: Tensor
    """P_{i-1}: (N_p, D) where the block has prompts of its own, (B, N_p, D) where they travelled through blocks."""
    patches: Tensor
    """E_{i-1}, (B, N_e, D); E_0 is the output of the patch embedding without the position embedding."""
    logit_scale: Tensor | None = None
    """Factor of the attention logits, ()."""


class BlockPrompts(NamedTuple):
    """Folded prompts as one block takes them in: as tokens, as keys and values, or none; (B, ...) where images
    differ."""
    tokens: Tensor | None = None
    """Where the block's outputs in their places are read: (N_p, D) or (B, N_p, D)."""
    keys_values: Tensor | None = None
    """Where they are not: (N_p, 2, H, d) or (B, N_p, 2, H, d), see :func:`.prompt_keys_values`."""
    logit_scale: Tensor | None = None
    """Factor of the attention logits, () or (B,); None is 1."""
    gate: Tensor | None = None
    """Share of the block's outputs in the prompts' places that goes on, () or (B,), see :func:`.gate_prompts`; None
    is all."""


def without(x: Tensor, first: int, count: int) -> Tensor:
    """Leave out ``count`` tokens from ``first`` on: (B, N, D) to (B, N - count, D)."""
    return torch.cat((x[:, :first], x[:, first + count:]), dim=1) if count else x


def pad(parts: Sequence[Tensor | None] | Tensor | None, length: int) -> list[Tensor | None]:
    """List a tensor's rows, or parts, and None for what is missing up to a length."""
    known = list(parts.unbind() if isinstance(parts, Tensor) else parts or ())
    return known + [None] * (length - len(known))


def can_keep(tensor: Tensor) -> bool:
    """Whether a forward pass may keep what it computes from a tensor: it has values, and no graph is being recorded."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing() or tensor.is_meta or
                torch._C._functorch.is_functorch_wrapped_tensor(tensor) or
                (tensor.is_cuda and torch.cuda.is_current_stream_capturing()))


@MODELS.register_module()
class PromptedViT(FrozenViT):
    r"""MMPretrain's ViT, frozen, with learnable prompt tokens between CLS (and registers) and the patches.

    With L blocks, width D, N_e patch tokens and N_p prompts, block i = 1..L of a deep model computes

    .. math:: [c_i; \_; E_i] = B_i([c_{i-1}; P_{i-1}; E_{i-1}])

    and drops what stands in the prompts' places; a shallow model inserts P_0 once and lets it travel. It takes every
    argument of :class:`mmpretrain.models.VisionTransformer` (and those that MoCoV3ViT adds, so that its configs can
    be inherited) and returns the same output types with the same shapes, and FrozenViT's own; prompts are never part
    of 'raw', 'featmap' and 'cls_avg_featmap'.

    Args:
        num_prompts (int): N_p; 0 gives the stock network. Defaults to the method's (20).
        prompt_type (str): 'deep' (prompts of its own for every block) or 'shallow' (for the first); the short form of
            ``prompts=dict(type='mmspt.DeepPrompts')`` and ``'mmspt.ShallowPrompts'``. Defaults to 'deep'.
        prompts (dict | None): Config of a :class:`mmspt.models.methods.PromptMethod`. Its ``type`` counts before
            ``prompt_type``, its ``num_prompts`` before the argument of that name. Defaults to None.
        prompt_drop_rate (float): Dropout of prompts while training. Defaults to 0.
        pool_prompts (bool): Under ``out_type='avg_featmap'``, whether the mean takes the prompts' outputs in, as SPT
            does for MAE, or patches only. Defaults to True.
        concatenate (bool): Let prompts be tokens of every block, as VPT does, instead of keys and values wherever
            their outputs are not read: the same numbers, slower; for comparison. Defaults to False.
        frozen (bool): Train prompts alone: nothing else has a gradient, and all else stays in eval mode inside a
            training step. Defaults to True.
        allow_random_backbone (bool): Train although no checkpoint filled some frozen weights. Defaults to False.
        stop_grad_conv1 (bool): MoCoV3ViT's: no gradient for the patch embedding. Defaults to False.
        norm_eval (bool): MoCoV3ViT's: BatchNorm, if any, in eval mode. Defaults to False.
        **kwargs: Those of :class:`mmpretrain.models.VisionTransformer`.

    Attributes:
        prompts (PromptMethod | None): The method and its parameters, such as ``prompts.tokens``; None without prompts.
        preprocessing (dict | None): How the pack that was loaded makes inputs of images; None without a pack, and once
            training goes on.

    Raises:
        ValueError: An argument out of its range; while loading, weights that do not fit.
        RuntimeError: At the first training step, frozen weights that no checkpoint filled; outside training, weights
            of the classifier that its checkpoint left random.
    """
    learnable_modules: ClassVar[tuple[str, ...]] = ('prompts', 'prompt_drop')

    def __init__(self,
                 *args: Any,
                 num_prompts: int | None = None,
                 prompt_type: str = 'deep',
                 prompts: dict | None = None,
                 prompt_drop_rate: float = 0.,
                 pool_prompts: bool = True,
                 concatenate: bool = False,
                 **kwargs: Any) -> None:
        if num_prompts is not None and (not isinstance(num_prompts, int) or num_prompts < 0):
            raise ValueError(f'num_prompts must be a whole number of at least 0, got {num_prompts!r}: '
                             'SPT uses 20 (deep) or 100 (shallow), 0 means no prompts')
        if prompt_type not in PROMPT_TYPES:
            raise ValueError(f"prompt_type must be one of {tuple(PROMPT_TYPES)}, got {prompt_type!r}: name other "
                             "methods in prompts=dict(type=...)")
        if not 0. <= prompt_drop_rate < 1.:
            raise ValueError(f'prompt_drop_rate must lie in [0, 1), got {prompt_drop_rate!r}')
        super().__init__(*args, **kwargs)
        self.preprocessing: dict | None = None
        self._cache = PromptCache()
        for layer in self.layers:
            PromptedBlock.adopt(layer)
        self.pool_prompts = pool_prompts
        self.concatenate = concatenate
        self.prompt_drop = nn.Dropout(prompt_drop_rate)
        method = dict(type=PROMPT_TYPES[prompt_type], **{} if num_prompts is None else dict(num_prompts=num_prompts))
        method.update(prompts or {})
        self.prompts: PromptMethod | None = None
        if method.get('num_prompts') != 0:
            self.prompts = MODELS.build(dict(
                method, num_layers=self.num_layers, embed_dims=self.embed_dims, patch_size=self.patch_size,
                in_channels=self.patch_embed.projection.in_channels))
            # the first child: optimizers of earlier versions counted the prompts before all blocks
            modules = self.__dict__['_modules']
            self.__dict__['_modules'] = {'prompts': modules.pop('prompts'), **modules}
        self.prompt_type = prompt_type if self.prompts is None else 'deep' if self.prompts.deep else 'shallow'
        self.num_prompts = 0 if self.prompts is None else self.prompts.num_prompts
        self.shortened = self.num_prompts > 0 and not concatenate  # the last block computes no more than is read
        self.reset_learnable()

    def reset_learnable(self) -> None:
        """Draw the method's parameters, such as VPT's uniform prompts."""
        if self.prompts is not None:
            self.prompts.reset_parameters()

    def _rename_learnable(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        weights = {OLD_NAMES.get(name, name): value for name, value in weights.items()}
        if self.provenance.from_init_cfg is None:  # a pack, or another checkpoint in its place
            packed = weights.pop(PREPROCESSING, None)
            self.preprocessing = None
            if packed is not None:
                self.preprocessing = own = from_tensor(packed)
                listed = ', '.join(f'{name}={value}' for name, value in own.items())
                MMLogger.get_current_instance().info(f'This pack was tuned on images of {listed}: the test pipeline '
                                                     'and data_preprocessor must do the same')
        if READING in weights:  # of a pack, whose prompts are folded
            Reading.from_tensor(weights.pop(READING)).check(Reading.of(self))
            folded = {name.removeprefix(FOLDED): weights.pop(name) for name in list(weights) if name.startswith(FOLDED)}
            if self.prompts is not None:
                parameters = self.prompts.unfold(FoldedPrompts(**folded))
                weights.update({f'prompts.{name}': value for name, value in parameters.items()})
        return weights

    @property
    def not_loaded(self) -> list[str]:
        """Names of the learnable parameters that came with no checkpoint."""
        return [name for name, _ in self.named_parameters()
                if self.is_learnable(name) and name not in self.provenance.filled]

    def train(self, mode: bool = True) -> 'PromptedViT':
        """Set the mode, see FrozenViT; forget the kept keys and values."""
        self._cache.clear()
        super().train(mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> 'PromptedViT':
        self._cache.clear()
        return super()._apply(*args, **kwargs)

    def _reads_prompts(self, block: int) -> bool:
        """Whether a block's outputs in the prompts' places are read."""
        return self.prompt_type != 'deep' or self.concatenate or (
            block in self.out_indices and self.out_type == 'avg_featmap' and self.pool_prompts)

    def prepare(self, prompts: FoldedPrompts, batch_size: int = 1) -> list[BlockPrompts]:
        """Turn folded prompts into what each block takes in, as far as it does not depend on images.

        Args:
            prompts (FoldedPrompts): Of this model, or others.
            batch_size (int): Images B, which drop different features while training. Defaults to 1.

        Returns:
            list[BlockPrompts]: For each block; :meth:`forward` takes it.
        """
        self._check_folded(prompts)
        tokens: list[Tensor | None] = []
        keys_values: list[Tensor | None] = []
        for i, own in enumerate(prompts.tokens.unbind()):
            if self.prompt_drop.training and self.prompt_drop.p:
                own = self.prompt_drop(own.expand(batch_size, -1, -1))
            read = self._reads_prompts(i)
            tokens.append(own if read else None)
            keys_values.append(None if read else prompt_keys_values(self.layers[i], own))
        return self._per_block(tokens, keys_values, prompts)

    def _check_folded(self, prompts: FoldedPrompts) -> None:
        layers = self.num_layers if self.prompt_type == 'deep' else 1
        shapes = (layers, self.num_prompts, self.embed_dims), (self.num_layers, ), (self.num_layers - 1, )
        for name, part, shape in zip(('tokens', 'logit_scale', 'gate'), prompts, shapes, strict=True):
            if part is not None and part.shape != shape:
                raise ValueError(f'folded prompts must have {name} of shape {shape} in this network, got '
                                 f'{tuple(part.shape)}: correct the forward pass of the prompt method')

    def _per_block(self, tokens: Sequence[Tensor | None], keys_values: Sequence[Tensor | None],
                   prompts: FoldedPrompts) -> list[BlockPrompts]:
        parts = (tokens, keys_values, prompts.logit_scale, prompts.gate)
        return [BlockPrompts(*own) for own in zip(*(pad(part, self.num_layers) for part in parts), strict=True)]

    def _own_prompts(self, batch_size: int) -> list[BlockPrompts]:
        """What :meth:`prepare` makes of the model's prompts; keys and values are kept while they stay the same."""
        if self.prompts is None:
            return [BlockPrompts()] * self.num_layers
        prompts = self.prompts()
        blocks = [i for i in range(self.prompts.shape[0]) if not self._reads_prompts(i)]
        if not blocks or self.prompt_drop.training or torch.is_grad_enabled() or not can_keep(prompts.tokens):
            return self.prepare(prompts, batch_size)
        weights = [weight for i in blocks for part in (self.layers[i].ln1, self.layers[i].attn.qkv)
                   for weight in part.parameters()]
        kept = self._cache.get(prompts.tokens, weights, lambda: self.prepare(prompts))
        return self._per_block([block.tokens for block in kept], [block.keys_values for block in kept], prompts)

    def forward(self, x: Tensor, prompts: Sequence[BlockPrompts] | None = None) -> tuple[Tensor, ...]:
        """Compute features.

        Args:
            x (Tensor): Images, (B, 3, H, W).
            prompts (Sequence[BlockPrompts] | None): Prompts for each block in place of the model's own, each image's
                own where they are (B, ...). Defaults to None.

        Returns:
            tuple[Tensor]: One for each of ``out_indices``: 'cls_token' and 'avg_featmap' (B, D), 'featmap'
            (B, D, h, w), 'cls_avg_featmap' (B, 2 D), 'raw' (B, n + N_e, D), n the number of CLS and registers.
        """
        if self.training:
            self.check_weights()
            self.provenance.reports.clear()
            self.preprocessing = None
        elif prompts is None:
            self.check_classifier()
            if self.preprocessing is not None:
                check_size(self.preprocessing['size'], x, self.img_size)
        x, _, resolution = self._embed(x)
        n, inside = self.num_extra_tokens, 0  # prompts among the tokens, behind CLS
        blocks = self._own_prompts(x.shape[0]) if prompts is None else prompts
        last = min(max(self.out_indices), self.num_layers - 1)
        shortened = self.shortened and last in self.out_indices
        outs = []
        for i, layer in enumerate(islice(self.layers, last + 1)):
            own = blocks[i]
            x, inside = self._exchange(x, inside, own)
            if i == last and shortened and self.out_type == 'cls_token':
                x, inside = layer(x, own.keys_values, own.logit_scale, 1), 0
            elif i == last and shortened and self.out_type == 'avg_featmap' and not self._normalizes(i) and \
                    own.gate is None:
                first = n if self.pool_prompts else n + inside
                outs.append(self.ln2(layer(x, own.keys_values, own.logit_scale, None, first)))
                break
            else:
                x = self._through(layer, x, own, inside)
            if self._normalizes(i):
                x = self.ln1(x)
            if i in self.out_indices:
                pooled = self.out_type == 'avg_featmap' and self.pool_prompts
                outs.append(self._format_output(x if pooled else without(x, n, inside), resolution))
        return tuple(outs)

    def _exchange(self, x: Tensor, inside: int, own: BlockPrompts) -> tuple[Tensor, int]:
        """Replace the prompts among the tokens, of which there are ``inside``, by a block's own, if it has any.

        Returns:
            tuple[Tensor, int]: Tokens, (B, n + inside + N_e, D), and the number of prompts among them: 0 where the
            block's own are keys and values.
        """
        n = self.num_extra_tokens
        if own.tokens is not None or own.keys_values is not None:
            x, inside = without(x, n, inside), 0
        if own.tokens is not None:
            x = torch.cat((x[:, :n], own.tokens.expand(x.shape[0], -1, -1).to(x.dtype), x[:, n:]), dim=1)
            inside = own.tokens.shape[-2]
        return x, inside

    def _through(self, layer: PromptedBlock, x: Tensor, own: BlockPrompts, inside: int) -> Tensor:
        """Compute a block on all tokens, and its gate if there is one."""
        out = layer(x, own.keys_values, own.logit_scale)
        return out if own.gate is None else gate_prompts(x, out, own.gate, self.num_extra_tokens, inside)

    def read_as(self, num_prompts: int, prompt_type: str, out_type: str, final_norm: bool,
                pool_prompts: bool) -> 'PromptedViT':
        """Return the same network, weights shared, without prompts of its own, for those that :meth:`forward` is given.

        Args:
            num_prompts, prompt_type, out_type, final_norm, pool_prompts: What the other prompts were tuned with. The
                final norm goes where they have it.

        Raises:
            ValueError: It has no final norm that they would need, or has one that they leave out.
        """
        vit = copy.copy(self)
        vit._parameters, vit._modules = dict(self._parameters), dict(self._modules)
        vit.prompts = None
        norms = [vit._modules.pop(name) for name in ('ln1', 'ln2') if name in vit._modules]
        places = ['ln1'] * final_norm + ['ln2'] * (out_type == 'avg_featmap')
        if len(norms) != len(places):
            raise ValueError(f'Final-norm mismatch: the prompts expect {len(places)}, the backbone has {len(norms)}: '
                             'use the backbone that they were tuned on')
        vit._modules.update(zip(places, norms, strict=True))
        vit.num_prompts, vit.prompt_type, vit.pool_prompts = num_prompts, prompt_type, pool_prompts
        vit.out_type, vit.final_norm = out_type, final_norm
        vit.concatenate, vit.shortened = False, num_prompts > 0
        return vit

    @torch.no_grad()
    def block_inputs(self, images: Tensor) -> Iterator[BlockInput]:
        """Stream what blocks 1, ..., L read of the network with its prompts, one block at a time.

        The caller sets eval mode.

        Args:
            images (Tensor): (B, 3, H, W).

        Yields:
            BlockInput: Of block i.

        Raises:
            ValueError: The model has no prompts.
        """
        if self.prompts is None:
            raise ValueError('block_inputs streams what prompts meet, which needs num_prompts of at least 1, got 0')
        x, patches, _ = self._embed(images)
        n, inside, folded = self.num_extra_tokens, 0, self.prompts()
        for i, (layer, own) in enumerate(zip(self.layers, self.prepare(folded), strict=True)):
            x, inside = self._exchange(x, inside, own)
            read = folded.tokens[i].detach() if i < len(folded.tokens) else x[:, n:n + inside]
            yield BlockInput(without(x, n, inside), read, patches if i == 0 else x[:, n + inside:], own.logit_scale)
            if i + 1 < self.num_layers:
                x = self._through(layer, x, own, inside)

    def _normalizes(self, block: int) -> bool:
        """Whether the final norm follows a block."""
        return self.final_norm and block == self.num_layers - 1

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer-wise learning rate decay: prompts are new and span all blocks, so they learn at the full rate;
        registers are part of the embedding."""
        depth, num_layers = super().get_layer_depth(param_name, prefix)
        name = param_name.removeprefix(prefix)
        return (num_layers - 1 if self.is_learnable(name) else 0 if name == 'register_tokens' else depth), num_layers
