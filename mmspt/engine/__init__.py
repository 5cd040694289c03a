"""Training: each part is imported on its own, so that the repairs reach ``optimizers`` without the models."""
