# tools/dist_train.sh configs/spt/vit-b_mae_cub_kmeans.py 1
# prompts start as K-means centres of all training images' tokens, the paper's best start; not yet run here
_base_ = './vit-b_mae_cub.py'

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.KMeansInit'))]
