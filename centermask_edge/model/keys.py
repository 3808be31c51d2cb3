"""What of a file's tensors does not fit a network, as a table and as one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from centermask_edge.errors import ModelFileError

Shapes = Mapping[str, Sequence[int]]
_FIRST_FEW = 4


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """Names that a network has and a file lacks, the other way round, and those of other shapes.

    Attributes:
        total: tensors of the network.
        missing: names that the file lacks.
        unexpected: names that the network lacks.
        shapes: name, shape in the file, shape in the network.
    """

    total: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    def __str__(self) -> str:
        """One line: how many of each kind, with the first of each."""
        parts = []
        if self.missing:
            parts.append(f"{len(self.missing)} missing (first {self.missing[0]})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} unexpected (first {self.unexpected[0]})")
        if self.shapes:
            name, found, wanted = self.shapes[0]
            parts.append(
                f"{len(self.shapes)} of another shape (first {name}: found {found}, "
                f"wanted {wanted})"
            )
        return "; ".join(parts)

    def rows(self) -> list[tuple[str, str, str]]:
        """Kind, how many, and the first few of each kind that there is."""
        shapes = [f"{name} {found}, wanted {wanted}" for name, found, wanted in self.shapes]
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "other shape": shapes}
        return [(kind, str(len(n)), _few(n)) for kind, n in kinds.items() if n]


def _few(names: Sequence[str]) -> str:
    """The first few names, one a line.

    >>> _few(["a", "b", "c", "d", "e", "f"]).splitlines()
    ['a', 'b', 'c', 'd', '... and 2 more']
    """
    rest = len(names) - _FIRST_FEW
    return "\n".join([*names[:_FIRST_FEW], *([f"... and {rest} more"] if rest > 0 else [])])


class KeyMismatchError(ModelFileError):
    """A file whose tensors are not those of a network; ``difference`` says which."""

    def __init__(self, message: str, difference: KeyDifference) -> None:
        super().__init__(message)
        self.difference = difference


def compare_keys(wanted: Shapes, found: Shapes) -> KeyDifference:
    """What differs between a network's tensors and a file's.

    >>> str(compare_keys({"a": (1,), "b": (2,)}, {"b": (3,)}))
    '1 missing (first a); 1 of another shape (first b: found (3,), wanted (2,))'
    """
    both = sorted(wanted.keys() & found.keys())
    return KeyDifference(
        len(wanted),
        tuple(sorted(wanted.keys() - found.keys())),
        tuple(sorted(found.keys() - wanted.keys())),
        tuple(
            (k, tuple(found[k]), tuple(wanted[k])) for k in both if tuple(found[k]) != (*wanted[k],)
        ),
    )


def unexpected(names: Iterable[str]) -> KeyDifference:
    """Names of a file that no network has."""
    return KeyDifference(0, unexpected=tuple(sorted(names)))
