# BPT: prompts are products of two factors, whose bases start from whitening matrices of the data; AdamW, 100 epochs, 10
# of warm-up, cosine to 1e-8, batches of 32. Rate and decays are those published for MAE on CUB; a recipe sets those of
# its task (github.com/WangYZ1608/BPT at 2f1ca0c, script/)
_base_ = './spt_100e.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.WhitenedInit'))]

optim_wrapper = dict(optimizer=dict(lr=5e-2, weight_decay=5e-3), paramwise_cfg=dict(head_decay=0.5))

# what tools/sweep.py varies: ranges that hold what the authors' scripts name for all checkpoints, and the rates of the
# small recipes
search_space = ['lr=1e-3:0.2:log', 'prompt_decay=5e-4:0.1:log', 'head_decay=0.01:10:log']
