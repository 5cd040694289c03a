# python tools/train.py configs/vpt/vit-s_dinov2_digits.py
# the same but for the prompts' start, U(-v, v), and the rate, which the same search gave
_base_ = '../spt/vit-s_dinov2_digits.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.UniformInit'))]
optim_wrapper = dict(optimizer=dict(lr=3e-3))
