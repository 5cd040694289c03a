# tools/dist_train.sh configs/linear/vit-b_mocov3_dogs.py 1
# the same without prompts: a linear probe; published accuracy of this recipe: not found
# rate and decay: default (SPT's), not searched; not yet run here
_base_ = '../spt/vit-b_mocov3_dogs.py'

model = dict(backbone=dict(num_prompts=0))
