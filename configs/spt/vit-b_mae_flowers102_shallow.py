# tools/dist_train.sh configs/spt/vit-b_mae_flowers102_shallow.py 1
# SPT-Shallow, 100 prompts that travel through all blocks
# published: 89.47 % (the BPT paper's poster, arXiv 2506.22908)
# rate and decays: SPT-Deep's, searched by the same author for a neighbouring method (BPT-Shallow on this task), not for
# SPT; not yet run here
_base_ = './vit-b_mae_flowers102.py'

model = dict(backbone=dict(prompt_type='shallow', num_prompts=100))
