# tools/dist_train.sh configs/spt/vit-b_mae_nabirds_shallow.py 1
# SPT-Shallow, 100 prompts that travel through all blocks
# published: 61.87 % (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: default (SPT-Deep's), not searched; not yet run here
_base_ = './vit-b_mae_nabirds.py'

model = dict(backbone=dict(prompt_type='shallow', num_prompts=100))
