# tools/dist_train.sh configs/bpt/vit-b_sup_cars_shallow.py 1
# BPT-Shallow, 100 prompts of rank 75 that travel through all blocks, both factors drawn and trained
# published accuracy: not found
# rate and decays: published (github.com/WangYZ1608/BPT at 2f1ca0c, script/Sup-IN21K); not yet run here
_base_ = './vit-b_sup_cars.py'

model = dict(backbone=dict(
    prompts=dict(type='mmspt.ShallowBilinearPrompts', rank=75), prompt_type='shallow', num_prompts=100))

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.DrawnInit'))]
