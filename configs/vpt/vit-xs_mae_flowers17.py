# python tools/train.py configs/vpt/vit-xs_mae_flowers17.py
# the same but for the prompts' start, U(-v, v)
_base_ = '../spt/vit-xs_mae_flowers17.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.UniformInit'))]
