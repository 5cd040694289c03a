# for checkpoints that the authors did not tune: the rate that validation images of CUB-100 chose, of four, for a
# ViT-S/14 in DINOv2's layout (docs/results.md, 112 pixels, ten epochs); a weak decay for the head; searched for no
# other task
_base_ = './spt_100e.py'

optim_wrapper = dict(optimizer=dict(lr=3e-3), paramwise_cfg=dict(head_decay=0.01))
