"""Prompt packs: a task in one small file, with which a frozen network that is already there does that task."""
