# tools/dist_train.sh configs/spt/vit-b_mae_in1k_stock.py 8
# MMPretrain's own MAE fine-tuning of ImageNet-1k, turned into SPT by two entries; its augmentation, layer-wise
# learning rate decay and schedule stay (name your checkpoint with --cfg-options); published accuracy: not found;
# not yet run here
_base_ = 'mmpretrain::mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py'

model = dict(type='mmspt.ImageClassifier', backbone=dict(type='mmspt.PromptedViT'))
custom_hooks = [dict(type='mmspt.PromptInitHook')]
