# tools/dist_train.sh configs/spt/vit-b_mocov3_flowers102.py 1
# SPT-Deep, 20 prompts a block, on Oxford Flowers 102
# published: 96.10 % (the BPT paper's poster, arXiv 2506.22908); 86.00 %, the mean of the 5 tasks (arXiv 2402.02382)
# rate and decays: searched by the same author for a neighbouring method (BPT-Shallow on this task,
# github.com/WangYZ1608/BPT at 2f1ca0c), which photographs of flowers do not contradict
# (benchmarks/results/neighbour_epyc.json); not searched for SPT; not yet run here
_base_ = [
    '../_base_/models/vit-b_mocov3.py', '../_base_/datasets/flowers102.py',
    '../_base_/schedules/spt_100e.py', '../_base_/default_runtime.py'
]

model = dict(head=dict(num_classes=102))

optim_wrapper = dict(optimizer=dict(weight_decay=1e-3), paramwise_cfg=dict(head_decay=5e-2))
