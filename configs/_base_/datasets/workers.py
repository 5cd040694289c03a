# workers of a data loader: the cores that this process may use, shared with the other processes that torchrun started,
# at most 8. Slurm's tasks have cores of their own. An import statement would make it a pure-Python config for MMEngine
os = __import__('os')
workers = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
workers = max(1, min(8, workers // int(os.environ.get('LOCAL_WORLD_SIZE', 1))))
