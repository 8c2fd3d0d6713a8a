"""Numbers of things in words, with the verb that goes with them."""


def counted(count: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "test image"), counted(2000, "class")
    ('1 test image', '2,000 classes')
    """
    plural = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{plural * (count != 1)}"


def agreeing(count: int, one: str, several: str) -> str:
    """Return the word, such as a verb, that goes with a number of things.

    >>> agreeing(1, "is", "are"), agreeing(3, "is", "are")
    ('is', 'are')
    """
    return one if count == 1 else several
