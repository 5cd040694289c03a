# tools/dist_train.sh configs/spt/vit-b_mae_hf_cub.py 1
# SPT-Deep, 20 prompts a block, on CUB-200-2011, with the MAE of the Hugging Face hub; the head reads the mean
# published accuracy: not found
# Its conversion script takes by default the authors' visualization checkpoint, trained on plain pixels: not the weights
# of vit-b_mae_cub.py, and so not the paper's
# rate and decays: default (published for the authors' checkpoint), not searched; not yet run here
_base_ = './vit-b_mae_cub.py'

pretraining = 'MAE of the hub'

model = dict(backbone=dict(init_cfg=dict(checkpoint='hf://facebook/vit-mae-base')))
