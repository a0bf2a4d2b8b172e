"""Holds every call within the package to its annotations, shapes included (jaxtyping, beartype).

Only the tests import the package through this hook; users pay nothing.
"""

import functools
import inspect
import sys

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintParamViolation, BeartypeCallHintViolation

# An int is a float, as for every type checker.
CONF = BeartypeConf(is_pep484_tower=True)

# The rooms whose annotations are held to.
ROOMS = ("heads", "rules", "streams", "tracing")


def install() -> None:
    """Check the rooms; to be called before anything imports them."""
    early = sorted(name for name in sys.modules if name.startswith("xai_lib"))
    assert not early, f"imported before their types could be checked: {early}"
    # What the import hook writes above every function and class. jaxtyping's own binds each call to
    # its signature in Python, which would double the time of the tests.
    jaxtyping.jaxtyped = lambda *, typechecker: checked
    jaxtyping.install_import_hook([f"xai_lib.{room}" for room in ROOMS], "beartype.beartype")


def checked(target):
    """Return a function, or a dataclass, whose calls are checked, each in a scope of its axes."""
    if inspect.isclass(target):
        if "__dataclass_fields__" in vars(target):
            inherited(target)
            target.__init__ = checked(target.__init__)
        return target
    if isinstance(target, classmethod | staticmethod):
        return type(target)(checked(target.__func__))
    if isinstance(target, property):
        return property(*(f and checked(f) for f in (target.fget, target.fset, target.fdel)))
    if not getattr(target, "__annotations__", None):
        return target
    if "_getframe" in target.__code__.co_names:
        # It asks who calls it, which must not be `call` below.
        return target
    function = beartype(eager(target), conf=CONF)

    @functools.wraps(target)
    def call(*args, **kwargs):
        with SCOPE:
            try:
                return function(*args, **kwargs)
            except BeartypeCallHintViolation as violation:
                if not hasattr(violation, "met"):
                    violation.met = True
                    jaxtyping.print_bindings()
                    if isinstance(violation, BeartypeCallHintParamViolation):
                        refused(target, args, kwargs)
                raise

    return call


def inherited(kind):
    """Read a dataclass's inherited fields in the module that declares them, not in its own."""
    hints = kind.__init__.__annotations__
    for base in kind.__mro__[1:]:
        if base.__module__ != kind.__module__:
            names = vars(sys.modules[base.__module__])
            for field, hint in vars(base).get("__annotations__", {}).items():
                if isinstance(hint, str) and hints.get(field) == hint:
                    hints[field] = eval(hint, names)


def eager(target):
    """Return a function whose parameters are checked as it is called, a generator's too."""
    if not inspect.isgeneratorfunction(target):
        return target

    @functools.wraps(target)
    def start(*args, **kwargs):
        return target(*args, **kwargs)

    return start


def refused(target, args, kwargs):
    """Let a function speak for itself that refuses a wrong argument with an error of ours."""
    from xai_lib.errors import XAIError

    try:
        result = target(*args, **kwargs)
        if inspect.isgenerator(result):
            next(result)
    except XAIError:
        raise
    except Exception:
        return


SCOPE = jaxtyping.jaxtyped("context")
