# DINOv2's ViT-B/14, distilled: final norm (`ln1`), CLS, head. With backbone.out_type='cls_avg_featmap' and
# head.in_channels=1536 the head reads the mean of the patches beside CLS, as its authors' linear probes do
_base_ = './vit-b_mocov3.py'

pretraining = 'DINOv2'

model = dict(
    backbone=dict(
        patch_size=14, layer_scale_init_value=1e-5, init_cfg=dict(checkpoint='hf://facebook/dinov2-base')),
    head=dict(init_cfg=dict(std=0.02)))
