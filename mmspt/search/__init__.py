try:
    import optuna as _optuna  # noqa: F401
except ImportError as error:
    raise ImportError("a search needs Optuna: pip install -e '.[search]'") from error
