# tools/dist_train.sh configs/spt/vit-b_mocov3_in1k_stock.py 8
# MMPretrain's own linear probe of MoCo-v3 on ImageNet-1k, turned into SPT by two entries (name your checkpoint with
# --cfg-options; its rate, 12 for SGD on the head alone, is lowered); published accuracy: not found; not yet run here
_base_ = 'mmpretrain::mocov3/benchmarks/vit-base-p16_8xb128-linear-coslr-90e_in1k.py'

model = dict(backbone=dict(type='mmspt.PromptedViT'))
custom_hooks = [dict(type='mmspt.PromptInitHook')]
optim_wrapper = dict(optimizer=dict(lr=1.))
auto_scale_lr = dict(base_batch_size=1024)
