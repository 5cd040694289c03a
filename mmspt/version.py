"""The version, and the oldest and the newest supported Python; ``setup.py`` and ``make`` read them here."""
__version__ = '0.1.0'
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 14)
