# tools/dist_train.sh configs/spt/vit-b_mocov3_cars_shallow.py 1
# SPT-Shallow, 100 prompts that travel through all blocks
# published: 81.93 % (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (SPT-Deep's), not searched; not yet run here
_base_ = './vit-b_mocov3_cars.py'

model = dict(backbone=dict(prompt_type='shallow', num_prompts=100))
