# BPT-Deep on MoCo-v3: 50 prompts a block, each a product of two factors of rank 50
_base_ = './vit-b_mocov3.py'

model = dict(backbone=dict(prompts=dict(type='mmspt.DeepBilinearPrompts', rank=50), num_prompts=50))
