"""Trainings that survive kills, preemption, full disks, diverged losses and bad images.

Each part is imported on its own: :mod:`.last_checkpoint` does not load the models. The hooks are registered by
:mod:`mmspt.engine.hooks`.
"""
