"""Training; each part is imported on its own."""
