# the study's VIPAMIN, deep: prompts from tokens and the directions that tokens lack. k (of 64 patches) and lam: from
# the middle of what the authors search
_base_ = './spt.py'

custom_hooks = [
    dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.VIPAMINInit', k=8, lam=0.5)),
]
