"""The public names: typed for a user's type checker, documented, and light until they are used."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from dataclasses import is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import pytest

import hierderm

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from hierderm.data.table import CaseTable
    from hierderm.embeddings import EmbeddingTable
    from hierderm.evaluation.evaluation import Evaluation
    from hierderm.model.encoder import Encoder
    from hierderm.search.case_index import CaseIndex
    from hierderm.taxonomy.tree import Taxonomy
    from hierderm.types import Vectors

HEAVY = ("torch", "numpy", "scipy", "pandas", "sklearn", "pydantic", "PIL", "rich")

if TYPE_CHECKING:  # a user's script: mypy holds that these are its types, and that what is ignored is an error
    encoder = hierderm.load("hierderm:tiny")
    assert_type(encoder, Encoder)
    assert_type(encoder.encode(["a.jpg", np.zeros((4, 4, 3), np.uint8)]), Vectors)
    assert_type(encoder.encode_text("red papule"), Vectors)
    assert_type(encoder.predict_proba("a.jpg", level="coarse"), pd.DataFrame)
    assert_type(encoder.taxonomy, Taxonomy | None)
    table = hierderm.read_cases("cases.csv", hierderm.load_taxonomy("scin"))
    assert_type(table, CaseTable)
    assert_type(encoder.embed(table), EmbeddingTable)
    assert_type(hierderm.evaluate(encoder, table, "scin"), Evaluation)
    assert_type(hierderm.evaluate(np.zeros((4, 2)), "cases.csv", "scin").to_pandas(), pd.DataFrame)
    assert_type(hierderm.CaseIndex.open("index"), CaseIndex)
    hierderm.read_cases("cases.csv", "scin")  # type: ignore[arg-type]
    hierderm.evaluate(encoder, 3, "scin")  # type: ignore[arg-type]
    hierderm.lode("hierderm:tiny")  # type: ignore[attr-defined]
    encoder.encode(3)  # type: ignore[arg-type]


def test_type_checkers_see_the_names_that_are_imported_on_first_use() -> None:
    tree = ast.parse(Path(hierderm.__file__).read_text())
    typed = {
        str(alias.asname): (node.module or "").removeprefix("hierderm.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hierderm.")
        for alias in node.names
    }
    assert typed == hierderm._MODULES
    assert sorted(hierderm.__all__) == dir(hierderm) == sorted(["__version__", *typed])


def test_a_path_may_be_a_text_everywhere() -> None:
    """Whatever takes a Path takes a str: a user's first word is a text."""
    places = [getattr(hierderm, name) for name in hierderm._MODULES]
    functions: list[Any] = [value for value in places if inspect.isfunction(value)]
    for kind in (value for value in places if inspect.isclass(value)):
        members = [getattr(kind, name) for name in vars(kind) if not name.startswith("_")]
        functions += [
            getattr(value, "__func__", value)
            for value in members
            if inspect.isfunction(value) or inspect.ismethod(value)
        ]
    alone = [
        f"{function.__qualname__}({name}: {parameter.annotation})"
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if "Path" in str(parameter.annotation) and "str" not in str(parameter.annotation)
    ]
    assert alone == []


def test_every_name_is_there() -> None:
    for name in hierderm._MODULES:
        assert getattr(hierderm, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'hierderm' has no attribute 'lode'"):
        hierderm.lode  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("hierderm", HEAVY),
        ("hierderm.cli.main", HEAVY),  # what `hierderm --help` waits for
        ("hierderm.evaluation.evaluation", ("torch", "sklearn", "scipy.stats")),  # `hierderm evaluate`
    ],
)
def test_importing_is_light(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def documented() -> dict[str, Any]:
    """The functions and classes that the reference shows, by name; of a module the public ones that are its own."""
    pages = "".join(path.read_text(encoding="utf-8") for path in Path("docs/api").glob("*.md"))
    found: dict[str, Any] = {}
    for name in re.findall(r"^::: hierderm\.([\w.]+)$", pages, re.MULTILINE):
        value = pkgutil.resolve_name(f"hierderm.{name}")
        if inspect.ismodule(value):
            own = {key: one for key, one in vars(value).items() if getattr(one, "__module__", "") == value.__name__}
            found |= {f"{name}.{key}": one for key, one in own.items() if not key.startswith("_")}
        else:
            found[name] = value
    return {name: value for name, value in found.items() if inspect.isfunction(value) or inspect.isclass(value)}


def undescribed(name: str, function: Any, text: str) -> list[str]:
    """Arguments without a line under Args, and a value without Returns."""
    signature, sections = inspect.signature(function), inspect.cleandoc(text)
    described = set(re.findall(r"^    \*{0,2}(\w+): ", sections.partition("Args:\n")[2], re.MULTILINE))
    missing = sorted(signature.parameters.keys() - {"self", "cls"} - described)
    nothing = function.__name__ == "__init__" or signature.return_annotation in (None, "None")
    if not nothing and not re.search(r"^(Returns|Yields):$", sections, re.MULTILINE):
        missing.append("Returns")
    return [f"{name}: {missing}"] if missing else []


def faults_of(name: str, value: Any) -> list[str]:
    """The faults of a function, or of a class and its public methods; one that overrides another's may be silent."""
    if inspect.isfunction(value):
        return undescribed(name, value, value.__doc__ or "")
    faults = [] if value.__doc__ else [name]
    for key, member in vars(value).items():
        function = getattr(member, "__func__", member)
        inherited = any(hasattr(base, key) for base in value.__bases__)
        text = getattr(member, "__doc__", None) or ""
        if key == "__init__" and not is_dataclass(value):
            faults += undescribed(f"{name}()", function, value.__doc__ or "")
        elif key.startswith("_") or (inherited and not text):
            continue
        elif inspect.isfunction(function):
            faults += undescribed(f"{name}.{key}", function, text)
        elif isinstance(member, property | cached_property) and not text:
            faults.append(f"{name}.{key}")
    return faults


def test_help_tells_all() -> None:
    """Whatever the reference shows describes each argument, and what is returned."""
    found = documented()
    assert set(hierderm._MODULES) <= found.keys()
    assert [fault for name, value in found.items() for fault in faults_of(name, value)] == []
    for documented_fully in (hierderm.load, hierderm.Encoder.encode, hierderm.Encoder.predict_proba):
        assert "Raises:" in (documented_fully.__doc__ or "")


def test_what_is_not_described_is_found() -> None:
    class Planted:
        """Made here.

        Args:
            known: Described.
        """

        def __init__(self, known: int, other: int) -> None: ...

        @property
        def bare(self) -> int: ...  # type: ignore[empty-body]

        @classmethod
        def made(cls, number: int) -> Planted:
            """Make one.

            Args:
                number: Described.
            """
            raise NotImplementedError

    assert faults_of("P", Planted) == ["P(): ['other']", "P.bare", "P.made: ['Returns']"]
