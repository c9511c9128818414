"""A recipe edited in Hydra's grammar, through Hydra's compose API; no YAML files.

    key=value   +key=value   ~key   process=ouve (another part of a family)   data.speech=[a,b]   seed=1,2,3 (a sweep)

The tree of the chosen recipe becomes the primary configuration, each family a group with one option per name. Hydra
does the grammar, the merging and the interpolations. Keys are compared with the tree beforehand, and types by
`from_tree` afterwards, so that a mistake is one sentence that lists the choices.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fromnoise.recipes.base import GROUPS, OPTIONAL, Recipe, from_tree, to_tree
from fromnoise.types import InputError, spec


def parse(arguments: Sequence[str]) -> list[Override]:
    """The arguments as Hydra reads them. Raises InputError for what is not in its grammar."""
    parser, found = OverridesParser.create(), []
    for argument in arguments:
        try:
            found.append(parser.parse_override(argument))
        except HydraException as error:
            raise InputError(
                f"cannot read {argument!r}; expected key=value, +key=value or ~key, a list as key=[a,b], and quotes "
                "around a value with spaces, brackets or commas: 'key=\"a, b\"'"
            ) from error
    return found


def sweep(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Every combination of the values of `key=a,b` and of Hydra's choice() and range()."""
    choices = []
    for override in parse(arguments):
        if override.is_sweep_override():
            key = str(override.input_line).partition("=")[0]
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([str(override.input_line)])
    yield from map(list, itertools.product(*choices))


def compose(base: Recipe, arguments: Sequence[str]) -> Recipe:
    """The recipe with the arguments applied. Raises InputError that names the wrong one and lists the choices."""
    tree, options, chosen, rest = to_tree(base), _options(base), [], []
    for override in parse(arguments):
        line = str(override.input_line)
        if override.is_sweep_override():
            raise InputError(f"{line} is a sweep; add --multirun, or quote a value that holds commas")
        if override.key_or_group in options:
            group, name = override.key_or_group, _chosen(override)
            tree[group] = None if name is None else options[group][name]
            if name is None:  # Hydra has no word for that
                base = dataclasses.replace(base, **{group: None})
            else:
                chosen.append(line.lstrip("+"))  # every family is in the defaults list, so none is ever added
        else:
            rest.append(override)
    for override in rest:
        if not override.is_add():
            _require_key(override, tree)
    composed = _compose(base, options, chosen + [str(override.input_line) for override in rest])
    try:
        return from_tree(composed)
    except InputError:
        raise
    except ValueError as error:  # a value of the right type that a part refuses
        raise InputError(str(error)) from error


def _options(base: Recipe) -> dict[str, dict[str, dict[str, Any]]]:
    """Per family the tree of each choice; the recipe's own choice has the recipe's settings."""
    own = to_tree(base)
    return {
        group: {
            name: own[group] if own[group] and own[group]["name"] == name else _defaults_of(name, part)
            for name, part in parts.items()
        }
        for group, parts in GROUPS.items()
        if group in own
    }


def _defaults_of(name: str, part: type) -> dict[str, Any]:
    fields = spec({name: part}, part())
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


def _chosen(override: Override) -> str | None:
    """The name that a family's override chooses, None for none of them."""
    group, value = override.key_or_group, override.value()
    if override.is_delete() or (value is None and group in OPTIONAL):
        return None
    if isinstance(value, Mapping):
        raise InputError(f"{group} is chosen by its name; then set its fields one by one like {group}.field=value")
    if value not in GROUPS[group]:
        choices = [*GROUPS[group], *(["null"] if group in OPTIONAL else [])]
        raise InputError(f"unknown {group} {value!r}; choose one of: {', '.join(choices)}")
    return str(value)


def _require_key(override: Override, tree: Mapping[str, Any]) -> None:
    here: Any = tree
    path = override.key_or_group.split(".")
    for depth, key in enumerate(path):
        where = ".".join(path[:depth])
        if where in OPTIONAL and not here:
            raise InputError(f"{override.key_or_group}: this recipe has no {where}; choose it by {where}=NAME")
        if not isinstance(here, Mapping):
            raise InputError(f"{where} is one value and has no setting {key!r}; set it by {where}=VALUE")
        if key not in here:
            choices = ", ".join(name for name in here if name != "name")
            raise InputError(f"{where or 'a recipe'} has no setting {key!r}; choose one of: {choices}")
        here = here.get(key)


def _compose(base: Recipe, options: Mapping[str, Mapping[str, Any]], arguments: Sequence[str]) -> dict[str, Any]:
    store, tree = ConfigStore.instance(), to_tree(base)
    defaults: list[Any] = []
    for group, nodes in options.items():
        for name, node in nodes.items():
            store.store(group=group, name=name, node=node)
        own = tree.pop(group)
        defaults.append({group: own["name"] if own else None})
    store.store(name="recipe", node={"defaults": [*defaults, "_self_"], **tree})
    GlobalHydra.instance().clear()
    try:
        with initialize(version_base=None, config_path=None):
            composed = hydra_compose("recipe", overrides=list(arguments))
        return OmegaConf.to_container(composed, resolve=True)  # pyright: ignore[reportReturnType]
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(" ".join(str(error).split())) from error
