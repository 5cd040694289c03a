# tools/dist_train.sh configs/bpt/vit-b_mae_cub_spt.py 1
# BPT-Deep whose factors start as the best fit of SPT's prototypes, a random sample of the images' tokens: nobody's
# published method; published accuracy of this recipe: not found
# rate and decays: default (the authors' of BPT-Deep for MAE on CUB), not searched; not yet run here
_base_ = './vit-b_mae_cub.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.RandomSampleInit'))]
