"""What came of many predictions, in lines for a person: how many of each class and, where the pictures lie in folders
of their classes, how many were right and which was taken for which."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from artifacts.figures import percent

MOST = 12  # classes in a table or in a line; pairs of them in a list
WIDEST = 12  # letters of a name in a table


class Tally:
    """Counts predictions, in memory that grows with the classes alone."""

    def __init__(self, names: Callable[[str], Iterable[str]], classes: Sequence[str]) -> None:
        """`names`: path -> what its folders or a table say; the first that is one of `classes` is its true class."""
        self.names, self.classes = names, set(classes)
        self.counts: Counter[str] = Counter()  # of a predicted class
        self.pairs: Counter[tuple[str, str]] = Counter()  # (true, predicted)
        self.seen: Counter[str] = Counter()  # pictures that are not new to the network, by what it has seen them for
        self.right: Counter[bool] = Counter()  # of these: whether the prediction is right

    def add(self, paths: Iterable[str], predicted: Iterable[str], seen: Iterable[str]) -> None:
        """`seen`: for what the network has seen it, training, validation or nothing."""
        for path, name, known in zip(paths, predicted, seen, strict=True):
            self.counts[name] += 1
            if true := next((true for true in self.names(path) if true in self.classes), None):
                self.pairs[true, name] += 1
                if known:
                    self.seen[known] += 1
                    self.right[true == name] += 1

    def lines(self, seconds: float) -> Iterator[str]:
        count, known = self.counts.total(), self.pairs.total()
        each = f"; {_each(self.counts)}" if count else ""
        yield f"{count} picture{'' if count == 1 else 's'} in {seconds:.1f} s, start and decoding included{each}"
        if known and known < count:
            yield (f"accuracy not known: {count - known} of {count} pictures are in no folder, and no table, that "
                   "names a class of the model")
        elif known:
            right = sum(number for (true, predicted), number in self.pairs.items() if true == predicted)
            yield f"accuracy {percent(right / count, count)}: {right} of {count} are what their folder or table says"
            yield from self._known(right, count)
            yield from _table(self.pairs) if len({*sum(self.pairs, ())}) <= MOST else _most_confused(self.pairs)

    def _known(self, right: int, count: int) -> Iterator[str]:
        """What the accuracy is worth, if it is of pictures that are not new."""
        if seen := self.seen.total():
            right, new = right - self.right[True], count - seen
            worth = (f"only the other {new} tell of new ones, {right} of them right, {percent(right / new, new)}" if new
                     else "this accuracy tells nothing about new ones")
            where = " and ".join(f"{self.seen[kind]} from its {kind} data" for kind in ("training", "validation")
                                 if self.seen[kind])
            yield f"of these {count} pictures {where}, copies counted: {worth}"


def _each(counts: Counter[str]) -> str:
    most = counts.most_common(MOST)
    others = counts.total() - sum(number for _, number in most)
    more = f", {len(counts) - MOST} other classes: {others}" if others else ""
    return ", ".join(f"{name}: {number}" for name, number in most) + more


def _table(pairs: Counter[tuple[str, str]]) -> Iterator[str]:
    """A row a true class, a column a predicted one."""
    names = sorted({*sum(pairs, ())})
    short = [name if len(name) <= WIDEST else name[: WIDEST - 1] + "~" for name in names]
    width = max(map(len, [*short, *map(str, pairs.values())])) + 2
    first = max(len("true"), *map(len, short))
    yield f"{'true':{first}}" + "".join(f"{name:>{width}}" for name in short) + "  (predicted)"
    for name, true in zip(short, names, strict=True):
        yield f"{name:{first}}" + "".join(f"{pairs[true, predicted] or '.':>{width}}" for predicted in names)


def _most_confused(pairs: Counter[tuple[str, str]]) -> Iterator[str]:
    wrong = Counter({pair: number for pair, number in pairs.items() if pair[0] != pair[1]})
    for (true, predicted), number in wrong.most_common(MOST):
        yield f"{number} of {sum(n for (name, _), n in pairs.items() if name == true)} {true} taken for {predicted}"
