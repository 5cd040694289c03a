# GateVPT on MoCo-v3: 100 shallow prompts behind gates, a tenth of their features dropped while they train
_base_ = './vit-b_mocov3.py'

model = dict(
    backbone=dict(prompts=dict(type='mmspt.GatedPrompts'), num_prompts=100, prompt_drop_rate=0.1))
