# tools/dist_train.sh configs/bpt/vit-b_mocov3_cars_shallow.py 1
# BPT-Shallow, 100 prompts of rank 75 that travel through all blocks, both factors drawn and trained
# published: 83.84 % (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (MoCo-v3's on CUB), not searched; not yet run here
_base_ = './vit-b_mocov3_cars.py'

model = dict(backbone=dict(
    prompts=dict(type='mmspt.ShallowBilinearPrompts', rank=75), prompt_type='shallow', num_prompts=100))

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.DrawnInit'))]
