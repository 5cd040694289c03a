# tools/dist_train.sh configs/vpt/vit-b_mae_nabirds_shallow.py 1
# the baseline: VPT-Shallow, the same but for the prompts' start, U(-v, v)
# published: 57.43 % with VPT's own recipe, SGD (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (SPT's), not searched; not yet run here
_base_ = '../spt/vit-b_mae_nabirds_shallow.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.UniformInit'))]
