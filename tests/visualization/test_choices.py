"""Which numbers are drawn."""
import pytest

from mmspt.visualization.choices import choose


@pytest.mark.parametrize('numbers, count, most, expected', [
    (None, 5, 12, [1, 2, 3, 4, 5]), (None, 1, 6, [1]), (None, 12, 6, [1, 3, 5, 8, 10, 12]),
    ([20, 3, 20], 20, 1, [20, 3])])
def test_what_is_asked_for_or_an_even_spread(numbers, count, most, expected):
    assert choose('prompts', numbers, count, most) == expected


@pytest.mark.parametrize('numbers, got', [([], 'none'), ([1, 0, 6], '0, 6')])
def test_what_there_is_not(numbers, got):
    with pytest.raises(ValueError, match=f'prompts must be one or more numbers from 1 to 5, got {got}: choose'):
        choose('prompts', numbers, 5, 3)
