"""Tuned models at work, outside of trainings."""
