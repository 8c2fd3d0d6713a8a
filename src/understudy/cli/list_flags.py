"""Lists as flags: `--training.milestones 150 180 210`, also with commas or in brackets."""

import json
from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from understudy.config.limits import AUTO
from understudy.config.recipe import Recipe
from understudy.config.schema import bare, is_number, leaves, may_be_auto

_EMPTY = ("", "null", "~")
"""Values that are no list, and are left as they are."""


def is_list(hint: Any) -> bool:
    """Return True if values of a type are lists, or lists or nothing."""
    return _items(hint) is not None


def as_text(values: Iterable[Any]) -> str:
    """Return the values of a list as a flag takes them, such as `150 180 210`."""
    return " ".join(map(str, values))


def bracketed(words: Sequence[str]) -> list[str]:
    """Return the words with every list in brackets, as YAML writes it, and as one word.

    A list of numbers or of choices ends before the first word that is none of these, a list of
    texts before the next flag. Several numbers after a flag of a method, whose types are not known
    without loading it, are a list too.

    >>> bracketed(["--training.milestones", "150", "180", "fashion/demo"])
    ['--training.milestones=[150, 180]', 'fashion/demo']
    >>> bracketed(["--bank.features", "penultimate,logits", "--seed", "1"])
    ['--bank.features=["penultimate", "logits"]', '--seed', '1']
    >>> bracketed(["--data.transforms", "RandAugment", "{name: RandomErasing, p: 0.1}"])
    ['--data.transforms=["RandAugment", {name: RandomErasing, p: 0.1}]']
    >>> bracketed(["--training.class_weights", "balanced", "fashion/demo"])
    ['--training.class_weights=balanced', 'fashion/demo']
    >>> bracketed(["--data.size", "224", "160", "--student.size", "224", "fashion/demo"])
    ['--data.size=[224, 160]', '--student.size=224', 'fashion/demo']
    """
    hints = {f"--{path}": hint for path, hint, _ in leaves(Recipe) if is_list(hint)}
    result: list[str] = []
    queue = list(words)
    while queue:
        flag, equals, first = queue.pop(0).partition("=")
        if flag not in hints:
            result.append(f"{flag}{equals}{first}")
            if flag.startswith("--methods.") and not equals and is_number(next(iter(queue), "")):
                result.append(_joined_numbers(queue))
            continue
        items, alone = _items(hints[flag]), (*_EMPTY, *_choices(hints[flag]))
        taken = [first] if equals else list(_taken(queue, items, alone))
        if len(taken) == 1 and _takes_one(hints[flag]) and len(_parts(taken[0])) == 1:
            alone = (*alone, *taken)
        # Without a value it stays a flag alone, which the parser refuses.
        result.append(f"{flag}={_one_word(taken, items, alone)}" if taken else flag)
    return result


def _items(hint: Any) -> Any:
    """Return the type of the items of a list; None if the type is no list."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _items(options[0])
    if origin in (UnionType, Union):
        return next(filter(None, map(_items, options)), None)
    return options[0] if origin is tuple else None


def _choices(hint: Any) -> tuple[str, ...]:
    """Return the words that may stand in place of a list, such as `balanced`."""
    literals = (option for option in _options(hint) if get_origin(option) is Literal)
    words = tuple(word for literal in literals for word in get_args(literal))
    return (*words, AUTO) if may_be_auto(hint) else words


def _takes_one(hint: Any) -> bool:
    """Return True if a number may stand in place of a list, as one side of a square."""
    return any(bare(option) in (int, float) for option in _options(hint))


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union; none of another type."""
    return get_args(bare(hint)) if get_origin(bare(hint)) in (UnionType, Union) else ()


def _joined_numbers(queue: list[str]) -> str:
    """Take the numbers at the head of the queue: one as it is, several as a list."""
    numbers = [queue.pop(0)]
    while queue and is_number(queue[0]):
        numbers.append(queue.pop(0))
    return numbers[0] if len(numbers) == 1 else f"[{', '.join(numbers)}]"


def _taken(queue: list[str], items: Any, alone: Sequence[str]) -> Iterator[str]:
    """Take the words of a list from the head of the queue; the first one whatever it is."""
    if not queue or queue[0].startswith("--"):
        return
    word = queue.pop(0)
    yield word
    if word in alone:
        return
    if word.startswith("["):
        # In brackets a shell may have cut it at its spaces.
        while queue and not word.endswith("]"):
            word = queue.pop(0)
            yield word
        return
    while queue and not queue[0].startswith("--") and _belongs(queue[0], items):
        yield queue.pop(0)


def _belongs(word: str, items: Any) -> bool:
    """Return True if a word is one or several items of a list, joined by commas."""
    if _is_text(items):
        return True
    choices = get_args(items) if get_origin(items) is Literal else None
    return all(part in choices if choices else is_number(part) for part in _parts(word))


def _one_word(words: Sequence[str], items: Any, alone: Sequence[str]) -> str:
    """Return the words of a list as YAML; what is in brackets or no list as it is."""
    if words[0].startswith("[") or words[0] in alone:
        return " ".join(words)
    parts = [part for word in words for part in _parts(word)]
    quoted = _is_text(items) or get_origin(items) is Literal
    inner = ", ".join(_quoted(part) if quoted else part for part in parts)
    return f"[{inner}]"


def _quoted(part: str) -> str:
    """Return a text as YAML writes it; a group of keys, such as a transform, as it is."""
    return part if part.startswith("{") else json.dumps(part, ensure_ascii=False)


def _parts(word: str) -> list[str]:
    if word.startswith("{"):
        return [word]
    return [part.strip() for part in word.split(",") if part.strip()]


def _is_text(items: Any) -> bool:
    if get_origin(items) in (UnionType, Union):
        return str in get_args(items)
    return items is str or (get_origin(items) is Annotated and _is_text(get_args(items)[0]))
