from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.secrets import UnsetVariableError, expand, holds_secret, mask_dsn, read_secret, redact

ENVIRON = {"A": "one", "EMPTY": "", "NESTED": "${A}", "DOLLARS": "$$"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("${A}", "one"),
        ("x${A}y${A}", "xoneyone"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$$${A}", "$${A}"),
        ("$A and $", "$A and $"),
        ("${NESTED}", "${A}"),
        ("${DOLLARS}", "$$"),
        ("${UNSET:-two}", "two"),
        ("${UNSET:-}", ""),
        ("${UNSET-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY-two}", ""),
        ("${EMPTY}", ""),
        ("${A:-two}", "one"),
        ("${UNSET:-postgres://h/d?a=b}", "postgres://h/d?a=b"),
    ],
)
def test_references_are_replaced_as_in_a_shell(text: str, expanded: str) -> None:
    assert expand(text, ENVIRON) == expanded


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(UnsetVariableError, match="UNSET"):
        expand("${UNSET}", ENVIRON)


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A", "${A B}", "a${A:?x}"])
def test_a_reference_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        expand(text, ENVIRON)


@given(st.text())
def test_doubling_every_dollar_keeps_a_text_as_it_is(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == text


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://cdc:canary@db:5432/shop?sslmode=require", "postgresql://cdc:***@db:5432/shop"),
        ("postgresql://cdc@db/shop", "postgresql://cdc@db/shop"),
        ("postgresql://db/shop?password=canary", "postgresql://db/shop"),
        ("postgresql://cdc:can@ary@db/shop", "***"),
        ("postgresql://cdc:can/ary@db/shop", "postgresql://cdc:***@db/shop"),
        ("postgresql://cdc:can?ary#x@db/shop", "postgresql://cdc:***@db/shop"),
        ("postgresql://:canary@db/shop", "postgresql://:***@db/shop"),
        ("postgresql://cdc:canary@[::1]:5432/shop", "postgresql://cdc:***@[::1]:5432/shop"),
        ("postgresql://a:canary@h1:1,h2:2/shop", "postgresql://a:***@h1:1,h2:2/shop"),
        ("postgresql:///shop?host=/tmp", "postgresql:///shop"),
        ("host=db user=cdc password=canary dbname=shop", "host=db user=cdc dbname=shop password=***"),
        ("host=db password='can ary' sslpassword=canary", "host=db password=***"),
        ("host=db password=can ary", "***"),
        ("canary", "***"),
        ("", "***"),
    ],
)
def test_a_masked_dsn_shows_where_but_never_the_password(dsn: str, shown: str) -> None:
    assert mask_dsn(dsn) == shown


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs"]), min_size=1))
def test_no_password_gets_through_the_mask(filler: str) -> None:
    for dsn in (f"postgresql://u:canary{filler}@h/d", f"postgresql://u:{filler}canary@h/d", f"password=canary{filler}"):
        assert "canary" not in mask_dsn(dsn)
        assert holds_secret(dsn)
        assert "canary" not in redact(f"could not connect to {dsn}")


@pytest.mark.parametrize(
    ("dsn", "secret"),
    [
        ("postgresql://cdc@db/shop", False),
        ("postgresql://db/shop?sslmode=require", False),
        ("postgresql:///shop?host=/tmp", False),
        ("host=db dbname=shop", False),
        ("file:/run/secrets/shop", False),
        ("postgresql://cdc:x@db/shop", True),
        ("postgresql://db/shop?password=x", True),
        ("host=db password=x", True),
        ("postgresql://a:b@c@d/e", True),
        ("whatever", True),
    ],
)
def test_a_dsn_that_holds_a_password_or_is_not_understood_counts_as_secret(dsn: str, secret: bool) -> None:
    assert holds_secret(dsn) is secret


def test_a_secret_file_is_read_without_the_blanks_around_it(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("  postgresql://u:p@h/d\n")
    assert read_secret(f"file:{path}") == "postgresql://u:p@h/d"


def test_a_secret_file_that_gives_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for reference, message in {
        "file:relative": "absolute path",
        f"file:{tmp_path}/missing": "No such file",
        f"file:{tmp_path}/empty": "got nothing",
        f"file:{tmp_path}/binary": "got other bytes",
        f"file:{tmp_path}": "Is a directory",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_secret(reference)
