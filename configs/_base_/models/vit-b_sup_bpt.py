# BPT-Deep on the supervised ViT: 50 prompts a block, each a product of two factors of rank 50
_base_ = './vit-b_sup.py'

model = dict(backbone=dict(prompts=dict(type='mmspt.DeepBilinearPrompts', rank=50), num_prompts=50))
