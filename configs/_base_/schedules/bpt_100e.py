# BPT: prompts are products of two factors, whose bases start from whitening matrices of the data; AdamW, 100 epochs, 10
# of warm-up, cosine to 1e-8, batches of 32. Rate and decays are those published for MAE on CUB; a recipe sets those of
# its task (github.com/WangYZ1608/BPT at 2f1ca0c, script/)
_base_ = './spt_100e.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.WhitenedInit'))]

optim_wrapper = dict(optimizer=dict(lr=5e-2, weight_decay=5e-3), paramwise_cfg=dict(head_decay=0.5))

# what tools/sweep.py varies, 120 settings: the decays are those that the authors' scripts for MAE and MoCo-v3 name, and
# of the rates 0.05 and 0.1; the lower rates are this repository's choice
search_space = [
    'lr=0.005,0.01,0.02,0.05,0.1',
    'prompt_decay=1e-3,2e-3,5e-3',
    'head_decay=0.05,0.1,0.3,0.5,1',
]
