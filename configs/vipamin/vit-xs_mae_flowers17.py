# python tools/train.py configs/vipamin/vit-xs_mae_flowers17.py
# photographs at 32 x 32 pixels on the small MAE that this repository holds, which knows handwritten digits alone:
# minutes on a CPU, to try tools out (tools/sweep.py), not to see what VIPAMIN can do. lam=0, prompts from tokens alone:
# an image's 256 patches and CLS are not fewer than the width, 128, so no direction is left that they lack. Rate, decay
# and k: default, not searched
_base_ = [
    '../_base_/models/vit-xs_mae_digits.py', '../_base_/datasets/flowers17_32.py',
    '../_base_/schedules/vipamin_100e.py', '../_base_/default_runtime.py'
]

model = dict(backbone=dict(img_size=32, patch_size=2), head=dict(num_classes=17))

custom_hooks = [
    dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.VIPAMINInit', k=32, lam=0.)),
]
search_space = ['lr=0.00625,0.0125,0.03125,0.0625,0.125,0.3125,0.625', 'custom_hooks.0.initializer.k=2,8,32,128']

param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=10, val_interval=1)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1), nmi=dict(interval=11))
