# tools/dist_train.sh configs/spt/vit-b_mae_cub_kmeans.py 1
# prompts start as K-means centres of tokens of all training images (under max_memory=0.75 GiB, 3 of each image's 196),
# the paper's best start; published accuracy of this recipe: not found; not yet run here
_base_ = './vit-b_mae_cub.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.KMeansInit'))]
