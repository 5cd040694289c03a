# the study's VPT-Deep: the same but for the prompts' start, U(-v, v)
_base_ = './spt.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.UniformInit'))]
