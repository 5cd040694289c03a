"""Which numbers are drawn."""
import pytest

from mmspt.visualization.choices import choose


def test_what_is_asked_for_or_an_even_spread():
    assert choose('prompts', [20, 3, 20], 20, 1) == [20, 3]
    assert choose('prompts', None, 12, 6) == [1, 3, 5, 8, 10, 12] and choose('prompts', None, 1, 6) == [1]
    for numbers, got in (([], 'none'), ([1, 0, 6], '0, 6')):
        with pytest.raises(ValueError, match=f'prompts must be one or more numbers from 1 to 5, got {got}: choose'):
            choose('prompts', numbers, 5, 3)
