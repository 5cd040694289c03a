# what paper.yaml fine-tunes: the recipes of configs/finetune on all 24 tasks; the plan sets the two variables
_base_ = [
    '../_base_/models/vit-b_{{$MMSPT_CHECKPOINT:mae}}.py', '../_base_/datasets/{{$MMSPT_DATA:cub}}.py',
    '../_base_/schedules/finetune_100e.py', '../_base_/default_runtime.py'
]

model = dict(
    backbone=dict(num_prompts=0, frozen=False, drop_path_rate=0.1),
    head=dict(num_classes={{_base_.data_preprocessor.num_classes}}))
