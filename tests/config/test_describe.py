from __future__ import annotations

import tomllib

import pytest

from hierderm.config.describe import describe_toml, described, known_names
from hierderm.config.loading import build_config
from hierderm.config.methods import METHODS
from hierderm.config.settings import Config
from hierderm.errors import ConfigError


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_of_a_method_is_described(method: str) -> None:
    rows = described(method)
    assert len({row.name for row in rows}) == len(rows) > 25
    assert all(row.text for row in rows)
    assert {row.name for row in rows} < known_names()


@pytest.mark.parametrize("method", METHODS)
def test_the_listing_of_a_method_is_its_default_configuration(method: str) -> None:
    assert build_config(tomllib.loads(describe_toml(method))) == Config(training=METHODS[method]())


def test_the_listing_says_when_a_setting_is_read() -> None:
    listed = describe_toml("gradient").splitlines()
    assert any(line.startswith('init = "tree_lda"  # first weights of the two heads') for line in listed)
    assert "# last_blocks = 3  # how many blocks are trained; only if training.freeze is last_blocks" in listed
    assert "# lora_rank = 8  # rank of the adapters; only if training.freeze is lora" in listed
    assert any(
        line.startswith("strengths = ") and line.endswith("only if training.init is tree_lda") for line in listed
    )
    assert any(line.startswith("strengths = [3.0, 10.0]  # ") for line in describe_toml().splitlines())


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training.method must be one of .* got 'ldb'. Closest: 'lda'"):
        describe_toml("ldb")
