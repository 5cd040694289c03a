# for checkpoints that the authors did not tune: the rate, of four, that val of CUB-100 chose for SPT-Deep with a
# quarter of the labels, for a ViT-S/14 in DINOv2's layout (docs/results.md: 112 pixels, ten epochs, one seed); a weak
# decay for the head; searched for no other task
_base_ = './spt_100e.py'

optim_wrapper = dict(optimizer=dict(lr=3e-3), paramwise_cfg=dict(head_decay=0.01))
