# GateVPT: prompts start as VPT's; SGD with momentum, 100 epochs, 10 of warm-up, cosine. Rate 0.1 for batches of 64 and
# no decay are those of the authors' command for MAE on CUB (README of github.com/ryongithub/GatedPromptTuning at
# 038d462). The base config that it names is not in the released tree: optimizer, warm-up and cosine are those of VPT,
# which their code is built on (github.com/KMnP/vpt at 7f3942e). VPT sets the rate once an epoch; here, as in all
# recipes, every iteration. A recipe sets train_dataloader.batch_size=64, since the data set's file has 32; the tools
# divide it among the processes
_base_ = './spt_100e.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.UniformInit'))]

# head_decay=None: a search of the decay varies that of prompts and head together, as VPT does
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.), paramwise_cfg=dict(head_decay=None))

auto_scale_lr = dict(base_batch_size=64)

# what tools/sweep.py varies: the decays are VPT's list; rates and gates are this repository's choice
search_space = [
    'lr=0.01:10:log',
    'prompt_decay=0,1e-4,1e-3,1e-2',
    'model.backbone.prompts.gate_start=-10,-5,-1',
]
