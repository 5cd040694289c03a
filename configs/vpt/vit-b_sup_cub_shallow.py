# tools/dist_train.sh configs/vpt/vit-b_sup_cub_shallow.py 1
# the baseline: VPT-Shallow, the same but for the prompts' start, U(-v, v)
# published accuracy of this recipe: not found
# rate and decays: default (SPT's), not searched; not yet run here
_base_ = '../spt/vit-b_sup_cub_shallow.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.UniformInit'))]
