# MAE: the mean over patches and prompts, then the pre-trained final norm (`ln2`), then the head
pretraining = 'MAE'

model = dict(
    type='mmspt.ImageClassifier',
    backbone=dict(
        type='mmspt.PromptedViT',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='avg_featmap',
        final_norm=False,
        num_prompts=20,
        prompt_type='deep',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/mae_pretrain_vit_base.pth')),
    neck=None,
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, ),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.)))
