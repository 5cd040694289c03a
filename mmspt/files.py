"""Files that are never found half-written."""
import os


def write_text(path: str, text: str) -> None:
    """Write text beside ``path`` and rename."""
    with open(f'{path}.tmp', 'w', encoding='utf-8') as file:
        file.write(text)
    os.replace(f'{path}.tmp', path)
