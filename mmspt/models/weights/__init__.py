"""Weights of ViTs: publishers' names for them (``layouts``), how they fit a model (``fit``), where they came from
(``provenance``, ``fingerprint``)."""
