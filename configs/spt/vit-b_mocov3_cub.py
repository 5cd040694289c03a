# tools/dist_train.sh configs/spt/vit-b_mocov3_cub.py 1
# learning rate and decay are MAE's: the authors' for MoCo-v3 were not published; not yet run here
_base_ = [
    '../_base_/models/vit-b_mocov3.py', '../_base_/datasets/cub.py', '../_base_/schedules/spt_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=200))

custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.RandomSampleInit'))]
