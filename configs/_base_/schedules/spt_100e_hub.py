# for checkpoints that the authors did not tune: the rate that validation images of the digits chose for a ViT-S/14 in
# DINOv2's layout (benchmarks/results/quickstart_digits.json), a weak decay for the head; searched for no other task
_base_ = './spt_100e.py'

optim_wrapper = dict(optimizer=dict(lr=1e-2), paramwise_cfg=dict(head_decay=0.01))
