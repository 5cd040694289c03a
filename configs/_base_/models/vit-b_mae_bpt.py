# BPT-Deep on MAE: 50 prompts a block, each a product of two factors of rank 50
_base_ = './vit-b_mae.py'

model = dict(backbone=dict(prompts=dict(type='mmspt.DeepBilinearPrompts', rank=50), num_prompts=50))
