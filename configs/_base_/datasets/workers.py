# workers of a data loader: the cores that this process may use (affinity, a container's quota, Slurm's share), shared
# with the other processes of the machine, at most 8; --cfg-options workers=N changes all loaders. An import statement
# would make it a pure-Python config for MMEngine
__os = __import__('os')
__env = __os.environ.get
__cores = len(__os.sched_getaffinity(0)) if hasattr(__os, 'sched_getaffinity') else __os.cpu_count() or 1
__quota = __import__('pathlib').Path('/sys/fs/cgroup/cpu.max')
__quota, __period = __quota.read_text().split() if __quota.is_file() else ('max', 1)
__cores = __cores if __quota == 'max' else min(__cores, round(int(__quota) / int(__period)))
__slurm = __env('SLURM_CPUS_PER_TASK')  # a task is one process of MPI, but torchrun's are many
__ranks = __env('LOCAL_WORLD_SIZE') or (not __slurm and __env('OMPI_COMM_WORLD_LOCAL_SIZE')) or 1
workers = max(1, min(8, int(__slurm or __cores) // int(__ranks)))
