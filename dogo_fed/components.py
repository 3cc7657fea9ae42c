"""Finds a component by its short name or its import path, and checks the options meant for it.

Data sets, augmentations, backbones, objectives and optimizers are all chosen by a name in the
configuration. A name is either one of the short names that the owning module lists, or the import
path "package.module:callable" of the user's own code. A short name that ends in a colon stands for
a collection: "timm:resnet18" is resnet18 of the collection "timm:". Every component gets its
options as keyword arguments.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeAlias, get_args, get_type_hints

from dogo_fed.errors import ConfigError, DogoError, OwnCodeError
from dogo_fed.text import one_line

Factory: TypeAlias = Callable[..., object]

_KINDS: tuple[tuple[object, str], ...] = (
    (int, "a whole number"),
    (float, "a number"),
    (bool, "true or false"),
    (str, "a text (a number is one in quotes within quotes)"),
    (int | None, "a whole number or null"),
    (float | None, "a number or null"),
    (bool | None, "true, false or null"),
    (str | None, "a text (a number is one in quotes within quotes) or null"),
)
"""The types of options whose values are checked, in words."""

_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()

_EXTRAS = {"timm": "timm"}
"""Packages of which a component with a short name may be, and the extra that installs each."""

_LIBRARIES = ("timm", "torchvision")
"""Packages of which only what they define themselves is taken, not what they have imported."""


def resolve(kind: str, name: str, known: Mapping[str, str]) -> Factory:
    """Returns the callable that `name` stands for; its module is imported only now.

    Args:
        kind: what is looked for, in words, for the error messages, e.g. "data set".
        name: a short name, a member of a collection, or an import path "package.module:callable".
        known: import path of every short name. The callable of a collection gets the member's name
            as its first argument.

    Raises:
        ConfigError: the name is unknown, can't be imported, or is not callable, it is of Python's
            standard library, which has no such component, or it leads from one package into another.
    """
    collection, colon, member = name.partition(":")
    is_member = bool(colon) and collection + colon in known
    path = known[collection + colon] if is_member else known.get(name, name)
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        listed = ", ".join(key + "<name>" * key.endswith(":") for key in sorted(known))
        raise ConfigError(
            f"unknown {kind} {name!r}; known are {listed}, or an import path "
            f"'package.module:callable'{close_matches(name, known)}"
        )
    found = _import_attribute(kind, module_name, attribute)
    if not callable(found):
        raise ConfigError(f"{kind} {path!r} is a {type(found).__name__}, which can't be called")
    home = _home(found) or module_name
    if _is_standard_library(home):
        raise ConfigError(
            f"{kind} {path!r} is of Python's standard library ({home}), which has no {kind}; it is "
            "not called"
        )
    elsewhere = _module_elsewhere(module_name, attribute, home)
    if elsewhere is not None:
        raise ConfigError(
            f"{kind} {path!r} leads out of the package {_package_of(module_name)} to {elsewhere}, so it "
            f"is not called; if you mean that, name it by a module of {_package_of(elsewhere)}"
        )
    return functools.partial(found, member) if is_member else found


def check_options(
    kind: str,
    name: str,
    factory: Factory,
    options: Mapping[str, object],
    reserved: Iterable[str] = (),
) -> None:
    """Checks options against the factory's signature, before anything is built.

    Names are checked, and values where the signature says that they are numbers, texts or switches.

    Args:
        kind: what the factory builds, in words.
        name: the name it was chosen by.
        factory: what the options will be passed to, as keyword arguments.
        options: the options from the configuration.
        reserved: arguments that the caller passes itself; options may not name them.

    Raises:
        ConfigError: an option is unknown or reserved, has a value of another kind, or one without a
            default is missing.
    """
    callers_own = frozenset(reserved)
    parameters = _keyword_parameters(kind, name, factory)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    valid = {
        key: parameter
        for key, parameter in parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and key not in callers_own
    }
    for option in options:
        if option in callers_own or (option not in valid and not takes_any):
            raise ConfigError(_unknown_option(kind, name, str(option), list(valid)))
    hints = _hints(factory)
    for option, value in options.items():
        wanted = _kind_in_words(hints.get(option))
        if wanted is not None and not _is_of_kind(value, hints[option]):
            raise ConfigError(
                f"option {option!r} of {kind} {name!r} must be {wanted}, not {value!r}"
            )
    missing = [
        key
        for key, parameter in valid.items()
        if parameter.default is parameter.empty and key not in options
    ]
    if missing:
        raise ConfigError(f"{kind} {name!r} needs the option {missing[0]!r}, which is not set")


def build(
    kind: str,
    name: str,
    known: Mapping[str, str],
    options: Mapping[str, object],
    **own_arguments: object,
) -> object:
    """Returns what the component called `name` builds from options and the caller's arguments.

    Raises:
        ConfigError: see `resolve` and `check_options`; it does not take the caller's arguments; or
            a component of ours, or of a library that we know, does not take a value.
        OwnCodeError: the user's own code has failed, with whatever it raised as the cause.
    """
    factory = resolve(kind, name, known)
    _check_takes(kind, name, factory, own_arguments)
    check_options(kind, name, factory, options, reserved=own_arguments)
    try:
        return factory(**own_arguments, **options)
    except DogoError:
        raise
    except Exception as error:
        if not is_known(name, known):
            raise OwnCodeError(f"{kind} {name!r} failed: {error_in_words(error)}") from error
        if not isinstance(error, TypeError | ValueError):
            raise
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise ConfigError(
            f"{kind} {name!r} can't be made with the options {given or '(none)'}: {error}"
        ) from error


def _check_takes(kind: str, name: str, factory: Factory, arguments: Iterable[str]) -> None:
    """Raises ConfigError if the factory does not take what it will be called with."""
    parameters = _keyword_parameters(kind, name, factory)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    missing = [argument for argument in arguments if argument not in parameters]
    if missing:
        raise ConfigError(
            f"{kind} {name!r} is called with {', '.join(arguments)} by keyword, but has no argument "
            f"{missing[0]!r}; give it one, or **others for what it does not need"
        )


def is_known(name: str, known: Mapping[str, str]) -> bool:
    """Tells whether this is a short name, or that of a member of a collection."""
    collection, colon, _ = name.partition(":")
    return name in known or (bool(colon) and collection + colon in known)


def error_in_words(error: BaseException) -> str:
    """Returns what an error is called and what it says, on one line."""
    return one_line(f"{type(error).__name__}: {error}")


def _hints(factory: Factory) -> Mapping[str, object]:
    """Returns the types of the factory's parameters, as far as Python can tell them."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    function = factory.__init__ if inspect.isclass(factory) else factory
    try:
        return get_type_hints(function)
    except Exception:  # a user's hints may name what is not there; then nothing is checked
        return {}


def _kind_in_words(hint: object) -> str | None:
    """Returns what a value of this type is; None if values of it are not checked."""
    return next((words for known, words in _KINDS if known == hint), None)


def _is_of_kind(value: object, hint: object) -> bool:
    """Tells whether a value can stand where this type is wanted; a whole number is a number too."""
    optional = get_args(hint)
    if value is None and type(None) in optional:
        return True
    kinds = tuple(kind for kind in optional or (hint,) if isinstance(kind, type))
    if float in kinds:
        kinds += (int,)
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def close_matches(word: str, candidates: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" for the nearest candidates, or an empty text."""
    return did_you_mean(
        [repr(match) for match in difflib.get_close_matches(word, list(candidates), n=3)]
    )


def did_you_mean(names: Sequence[str]) -> str:
    """Returns "; did you mean x or y?", or an empty text if there are no names."""
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _import_attribute(kind: str, module_name: str, attribute: str) -> object:
    """Returns `module_name`.`attribute`; any failure to import becomes a ConfigError."""
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way while it is imported
        is_missing = isinstance(error, ModuleNotFoundError) and (
            module_name == error.name or module_name.startswith(f"{error.name}.")
        )
        extra = _EXTRAS.get(_package_of(module_name)) if is_missing else None
        hint = "" if extra is None else f"; install it: pip install 'dogo-fed[{extra}]'"
        raise (ConfigError if is_missing else OwnCodeError)(
            f"{kind} '{module_name}:{attribute}': module {module_name!r} can't be imported: "
            f"{error_in_words(error)}{hint}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(
                f"{kind} '{module_name}:{attribute}': module {module_name!r} has no {attribute!r}"
                f"{close_matches(part, dir(found))}"
            )
        found = getattr(found, part)
    return found


def _home(found: object) -> str | None:
    """Returns the module that a callable is from, which may not be the one that it was found in."""
    while isinstance(found, functools.partial):
        found = found.func
    home = getattr(found, "__module__", None)
    return home if isinstance(home, str) else None


def _module_elsewhere(module_name: str, attribute: str, home: str) -> str | None:
    """Returns the module of another package that an attribute leads to; None if it leads to none.

    A module that a package has imported is none of its own (`torchvision:torch.hub.load`). What one's
    own code has imported by name may be used under that name, but not so with `_LIBRARIES`.
    """
    package = _package_of(module_name)
    found: object = importlib.import_module(module_name)
    for part in attribute.split("."):
        found = getattr(found, part)
        if isinstance(found, ModuleType) and _package_of(found.__name__) != package:
            return found.__name__
    return home if package in _LIBRARIES and _package_of(home) != package else None


def _package_of(module_name: str) -> str:
    """Returns the name of the outermost package."""
    return module_name.partition(".")[0]


def _is_standard_library(module_name: str) -> bool:
    """Tells whether a loaded module came with Python, and not by its name only."""
    top = _package_of(module_name)
    if top not in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:  # built into the interpreter
        return True
    place = Path(file).resolve()
    return place.is_relative_to(_STANDARD_LIBRARY) and "site-packages" not in place.parts


def _keyword_parameters(kind: str, name: str, factory: Factory) -> dict[str, inspect.Parameter]:
    """Returns the parameters that can be passed by keyword, and `**anything` if there is one.

    Raises:
        ConfigError: the factory has no signature that Python can read.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{kind} {name!r} does not tell its arguments, so its options can't be checked; "
            "wrap it in a Python function"
        ) from error
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    return {
        key: parameter
        for key, parameter in signature.parameters.items()
        if parameter.kind not in by_position
    }


def _unknown_option(kind: str, name: str, option: str, valid: list[str]) -> str:
    """Returns the sentence about an option that the component does not have."""
    listed = ", ".join(valid) if valid else "none"
    return (
        f"{kind} {name!r} has no option {option!r}; its options are: {listed}"
        f"{close_matches(option, valid)}"
    )
