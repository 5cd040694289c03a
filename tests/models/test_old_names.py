"""Checkpoints of earlier versions, which had a method's parameters beside the network's."""
import torch
from mmpretrain.registry import MODELS

from helpers import tiny_backbone


def test_old_names_of_prompts_gates_and_temperatures():
    """Under GateVPT's old name of the backbone, too."""
    old = dict(prompts=torch.randn(1, 5, 64), gate_logits=torch.randn(3), temperatures=torch.rand(4) + 0.5)
    for config in (dict(type='mmspt.GatedPromptedViT'), dict(prompts=dict(type='mmspt.GatedPrompts'))):
        net = MODELS.build(tiny_backbone('mae_shallow', **config))
        net.init_weights()
        net.load_state_dict(old, strict=False)
        for name, value in (('tokens', old['prompts']), ('gate_logits', old['gate_logits']),
                            ('temperatures', old['temperatures'])):
            assert torch.equal(net.prompts.get_parameter(name), value)
        assert net.not_loaded == []


def test_optimizers_count_the_prompts_where_they_did():
    """Without paramwise_cfg an optimizer's state names parameters by their places."""
    net = MODELS.build(tiny_backbone('mae_shallow', prompts=dict(type='mmspt.GatedPrompts')))
    names = [name for name, _ in net.named_parameters()]
    assert names[:5] == ['cls_token', 'pos_embed', 'prompts.tokens', 'prompts.gate_logits', 'prompts.temperatures']
