# tools/dist_train.sh configs/vpt/vit-b_mae_cub.py 1
# the baseline: VPT-Deep, the same but for the prompts' start, U(-v, v)
# published: 68.33 % with VPT's own recipe, SGD (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (SPT's), not searched; not yet run here
_base_ = '../spt/vit-b_mae_cub.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.UniformInit'))]
