"""Values that are made when first asked for, by threads side by side.

functools.cached_property of Python 3.11 holds one lock for all instances of a class while it
makes the value of one of them: threads would wait for each other.
"""

from functools import cached_property
from typing import Any, TypeVar, overload

Value = TypeVar("Value")


class once(cached_property[Value]):  # noqa: N801  it is used like a function
    """A cached property without a lock. Threads that ask one instance at once make it twice."""

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> "once[Value]": ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Value: ...

    def __get__(
        self, instance: object | None, owner: type[Any] | None = None
    ) -> "once[Value] | Value":
        """The value; it then stands in the instance itself, and this is not asked again."""
        if instance is None:
            return self
        assert self.attrname is not None
        value: Value = self.func(instance)
        instance.__dict__[self.attrname] = value
        return value
