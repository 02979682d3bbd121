from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from fake_databases import CANARY, ENVIRON, GOOD, World
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cdc.config import Config, LakeConfig, SourceConfig, split_address
from cdc.config_document import config_schema, masked
from cdc.config_loader import load, parse
from cdc.errors import ConfigError
from connectors.postgres.config import PostgresSourceConfig


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    World().install(monkeypatch)


def refused(text: str, **environ: str) -> ConfigError:
    """Return the error that the text causes, which never holds the canary."""
    with pytest.raises(ConfigError) as caught:
        parse(text, {**ENVIRON, **environ})
    assert CANARY not in f"{caught.value} {caught.value.hint} {caught.value.path}"
    return caught.value


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file_is_read_with_every_unit_converted() -> None:
    config = parse(GOOD + "    rto: 15m\n    retain: 10GiB\n    discover: 1m\n", ENVIRON)
    shop = config.sources["shop"]
    assert isinstance(shop, PostgresSourceConfig)
    assert shop.url.get_secret_value() == ENVIRON["SHOP_URL"]
    assert (shop.tables, shop.lake_schema) == (("public.*", "!public.sessions"), "shop")
    assert (shop.rpo, shop.rto, shop.retain, shop.discover) == (30.0, 900.0, 10 * 2**30, 60.0)
    assert (config.lake.type, config.http, config.transport) == ("postgres", "127.0.0.1:8080", "memory://")
    assert (config.environment, config.state) == ("development", None)


def test_what_the_file_leaves_out_has_its_default() -> None:
    shop = parse(edited("    rpo: 30s\n", ""), ENVIRON).sources["shop"]
    assert (shop.rpo, shop.rto, shop.retain) == (None, None, None)


def test_the_configuration_is_frozen() -> None:
    config = parse(GOOD, ENVIRON)
    with pytest.raises(ValidationError):
        config.http = None  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(("written", "read"), [("null", None), ("false", None), ("''", None), ("'[::1]:0'", "[::1]:0")])
def test_http_can_be_turned_off_or_moved(written: str, read: str | None) -> None:
    assert parse(f"{GOOD}\nhttp: {written}\n", ENVIRON).http == read


@pytest.mark.parametrize("written", ["0s", "0", "'0'"])
def test_an_explicit_zero_is_not_a_missing_value(written: str) -> None:
    assert parse(edited("30s", written), ENVIRON).sources["shop"].rpo == 0.0


def test_a_sources_schema_can_be_named() -> None:
    assert parse(edited("rpo: 30s", "schema: crm"), ENVIRON).sources["shop"].lake_schema == "crm"
    assert parse(edited("rpo: 30s", "schema: null"), ENVIRON).sources["shop"].lake_schema == "shop"


def test_variables_are_put_in_everywhere_but_not_read_again() -> None:
    text = edited("30s", "${RPO:-5s}") + "environment: ${WHERE}-$$1\n"
    config = parse(text, {**ENVIRON, "WHERE": "${SHOP_URL}"})
    assert config.sources["shop"].rpo == 5.0
    assert config.environment == "${SHOP_URL}-$1"


def test_a_url_can_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "shop"
    secret.write_text(f"postgresql://u:{CANARY}@h/d\n")
    config = parse(edited("${SHOP_URL}", f"file:{secret}"), ENVIRON)
    assert config.sources["shop"].url.get_secret_value() == f"postgresql://u:{CANARY}@h/d"


def test_only_urls_come_from_files() -> None:
    assert parse(GOOD + "environment: file:/etc/hostname\n", ENVIRON).environment == "file:/etc/hostname"


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ("30s", "30", "sources.shop.rpo", "expected a duration such as 30s, got 30"),
        ("30s", "soon", "sources.shop.rpo", "expected a duration such as 30s, got 'soon'"),
        ("30s", "[30s]", "sources.shop.rpo", "expected a duration such as 30s, got a list"),
        ("30s", "true", "sources.shop.rpo", "expected a duration such as 30s, got true"),
        ("30s", "1:30", "sources.shop.rpo", "expected a duration such as 30s, got 90"),
        ("30s", "${SHOP_URL}", "sources.shop.rpo", "expected a duration such as 30s, got '${SHOP_URL}'"),
        ("rpo: 30s", "retain: 10G", "sources.shop.retain", "expected a size such as 10GiB, got '10G'"),
        ("rpo: 30s", "retain: 0B", "sources.shop.retain", "expected a size above 0B, got '0B'"),
        ("rpo: 30s", "discover: 0s", "sources.shop.discover", "expected a duration above 0s, got '0s'"),
        ("rpo: 30s", "rpoo: 30s", "sources.shop.rpoo", "expected a known key, got 'rpoo'"),
        ("rpo: 30s", "columns: {}", "sources.shop.columns", "this version doesn't have it yet"),
        (
            "rpo: 30s",
            "slot: My-Slot",
            "sources.shop.slot",
            "expected text that matches ^[a-z0-9_]{1,63}$, got 'My-Slot'",
        ),
        ("rpo: 30s", "schema: ''", "sources.shop.schema", "expected a text that isn't empty, got an empty text"),
        ("rpo: 30s", "schema: cdc", "sources.shop.schema", "expected a schema other than cdc, which holds"),
        ("rpo: 30s", f"schema: 'postgres://u:{CANARY}@h'\n    rto: x", "sources.shop.rto", "expected a duration"),
        ("  shop:", "  cdc:", "sources.cdc.schema", "expected a schema other than cdc, which holds"),
        ("  shop:", "  Shop:", "sources.Shop", "expected a source name of at most 31 letters"),
        ("  shop:", f"  {'s' * 32}:", f"sources.{'s' * 32}", "expected a source name of at most 31 letters"),
        ("  shop:", "  on:", "sources", "expected text as a key, got true"),
        ("  shop:", "  1:", "sources", "expected text as a key, got a number"),
        ("    type: postgres\n", "", "sources.shop.type", "expected a value, got nothing"),
        ("type: postgres\n", "type: postgers\n", "sources.shop.type", "expected one of postgres, got 'postgers'"),
        ("type: postgres\n", "type: [a]\n", "sources.shop.type", "expected text, got a list"),
        ("    url: ${SHOP_URL}\n", "", "sources.shop.url", "expected a value, got nothing"),
        ("${SHOP_URL}", "''", "sources.shop.url", "expected a URL, got an empty text"),
        ("${SHOP_URL}", "5", "sources.shop.url", "expected text, got a number"),
        ("${SHOP_URL}", f"[{CANARY}]", "sources.shop.url", "expected text, got a list"),
        ("${SHOP_URL}", f"mysql://u:{CANARY}@h/d", "sources.shop.url", "expected a DSN such as postgresql://user@host"),
        (
            "${SHOP_URL}",
            "file:/nowhere/x",
            "sources.shop.url",
            "expected a secret in the file /nowhere/x, got: No such",
        ),
        ("${SHOP_URL}", "${MISSING}", "sources.shop.url", "expected the environment variable MISSING, which isn't set"),
        ("${SHOP_URL}", "'${SHOP'", "sources.shop.url", "expected ${NAME} or ${NAME:-default}"),
        ('[public.*, "!public.sessions"]', "public.*", "sources.shop.tables", "expected a list, got 'public.*'"),
        ('[public.*, "!public.sessions"]', "[]", "sources.shop.tables", "expected a list that begins with what to"),
        ("public.*, ", "", "sources.shop.tables", "expected a list that begins with what to include"),
        ("public.*, ", "public.*, orders, ", "sources.shop.tables[1]", "expected a pattern such as public.* or"),
        ("public.*, ", "public.*, 7, ", "sources.shop.tables[1]", "expected text, got 7"),
        ("public.*, ", f"'postgres://u:{CANARY}@h', ", "sources.shop.tables[0]", "expected a pattern such as"),
        ("lake: {", "lake: {kind: x, ", "lake.kind", "expected a known key, got 'kind'"),
    ],
)
def test_a_mistake_is_reported_with_its_place(old: str, new: str, path: str, message: str) -> None:
    error = refused(edited(old, new))
    assert error.path == path
    assert str(error).startswith(f"{path}: {message}")
    assert error.hint


@pytest.mark.parametrize(
    ("line", "path", "message"),
    [
        ("http: 8080", "http", "expected host:port such as 127.0.0.1:8080, or null, got 8080"),
        ("http: localhost", "http", "expected host:port such as 127.0.0.1:8080, or null, got 'localhost'"),
        ("http: localhost:99999", "http", "expected host:port such as 127.0.0.1:8080, or null"),
        ("http: true", "http", "expected host:port such as 127.0.0.1:8080, or null, got true"),
        ("transport: kafka://b:9092", "transport", "this version doesn't have kafka:// yet"),
        ("transport: carrier pigeon", "transport", "expected memory://, got 'carrier pigeon'"),
        ("environment: 5", "environment", "expected text, got 5"),
        ("environment: 2024-01-01", "environment", "expected text, got a date"),
        ("environment: ''", "environment", "expected a text that isn't empty, got an empty text"),
        ("history: {sink: delta}", "history", "this version doesn't have it yet"),
        ("derived: null", "derived", "this version doesn't have it yet"),
        ("datasets: {}", "datasets", "this version doesn't have it yet"),
        ("enviroment: x", "enviroment", "expected a known key, got 'enviroment'"),
    ],
)
def test_a_mistake_at_the_top_is_reported_with_its_key(line: str, path: str, message: str) -> None:
    error = refused(f"{GOOD}\n{line}\n")
    assert error.path == path
    assert str(error).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("typo", "key"), [("rpoo", "rpo"), ("table", "tables"), ("Slot", "slot"), ("publicaton", "publication")]
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(typo: str, key: str) -> None:
    assert refused(edited("rpo: 30s", f"{typo}: x")).hint == f"did you mean {key}?"


def test_an_unknown_key_like_no_other_is_answered_with_all_known_ones() -> None:
    assert refused(GOOD + "xyz: 1\n").hint == "known keys here: environment, transport, state, http, lake, sources"


def test_every_mistake_is_reported_at_once() -> None:
    error = refused(edited("30s", "soon").replace("type: postgres,", "") + "http: 1\n")
    assert [line.split(":")[0] for line in str(error).splitlines()] == ["http", "lake.type", "sources.shop.rpo"]
    assert error.path == "http"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cdc.yaml: expected a mapping with the keys lake and sources, got an empty file"),
        ("# only a comment", "cdc.yaml: expected a mapping with the keys lake and sources, got an empty file"),
        ("- lake", "cdc.yaml: expected a mapping with the keys lake and sources, got a list"),
        ("lake", "cdc.yaml: expected a mapping with the keys lake and sources, got text"),
        ("{}", "lake: expected a value, got nothing\nsources: expected a value, got nothing"),
        ("lake: 1\nsources: []", "sources: expected a mapping, got a list\nlake: expected a mapping, got a number"),
        ("lake: null\nsources: {}", "sources: expected at least one source, got a mapping"),
        ("lake: {\n  a", "cdc.yaml, line 2, column 4: expected ',' or '}', but got '<stream end>'"),
        ("a: 1\nb: {c: 1,\n  c: 2}", "cdc.yaml, line 3, column 3: expected every key once, got this one twice"),
        ("a: 1\n'a': 2", "cdc.yaml, line 2, column 1: expected every key once, got this one twice"),
        (f"lake:\n  url: *{CANARY}", "cdc.yaml, line 2, column 8: found undefined alias"),
        (f"lake: !{CANARY} x", "cdc.yaml, line 1, column 7: could not determine a constructor for the tag"),
        (f"a: '{CANARY}", "cdc.yaml, line 1, column 18: found unexpected end of stream"),
        ("a:\n\tc: d", "cdc.yaml, line 2, column 1: found character '\\t' that cannot start any token"),
        ("a: \0", "cdc.yaml: expected YAML, got a character that isn't allowed, at offset 3"),
        ("a: 2024-99-99", "cdc.yaml: expected YAML, got a value that can't be read"),
        ("a: &a {b: *a}", "cdc.yaml: expected at most 100000 values, got more"),
        ("[" * 5000, "cdc.yaml: expected at most 100000 values, got more"),
        ("? [1, 2]\n: 3", "cdc.yaml, line 1, column 3: found unhashable key"),
        ("a: 1\n--- \nb: 2", "cdc.yaml, line 2, column 1: expected a single document in the stream, but found another"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_the_place(text: str, message: str) -> None:
    assert str(refused(text)).startswith(message)


def test_anchors_and_merge_keys_may_be_used() -> None:
    text = GOOD.replace("  shop:", "  shop: &shop") + "  copy: {<<: *shop, schema: other}\n"
    config = parse(text, ENVIRON)
    assert config.sources["copy"].url == config.sources["shop"].url
    assert config.sources["copy"].lake_schema == "other"


@settings(deadline=None)
@given(st.text(max_size=200) | st.text("abc:{}[]&*!|>-'\"#%@` \n\t", max_size=60))
def test_no_text_ends_in_anything_but_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text, {})


plain: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(
    st.sampled_from(
        [
            "lake",
            "sources",
            "http",
            "state",
            "sources.shop",
            *(f"sources.shop.{k}" for k in ("type", "url", "tables", "rpo", "slot")),
        ]
    ),
    plain,
)
def test_a_value_of_any_kind_in_any_place_ends_in_a_configuration_error_or_is_taken(path: str, value: Any) -> None:
    import json

    document: dict[str, Any] = {
        "lake": {"type": "postgres", "url": "postgres://h/d"},
        "sources": {"shop": {"type": "postgres", "url": "postgres://h/d", "tables": ["a.b"]}},
    }
    place, parts = document, path.split(".")
    for part in parts[:-1]:
        place = place[part]
    place[parts[-1]] = value
    try:
        parse(json.dumps(document), {})
    except ConfigError as error:
        found = error
    else:
        return
    assert found.hint
    assert "expected" in str(found) or "this version" in str(found)


def test_a_file_is_loaded_with_the_environment_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cdc.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    assert set(load(path).sources) == {"shop"}


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"a: \xff")
    for name, message in {
        "missing": "got: No such file",
        ".": "got: Is a directory",
        "latin": "expected UTF-8 text",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load(tmp_path / name, {})


def test_a_configuration_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(refused(edited("30s", "x"))))
    assert (error.path, error.hint[:4]) == ("sources.shop.rpo", "rpo:")


def test_no_form_of_the_configuration_shows_a_password() -> None:
    config = parse(GOOD + f"state: postgresql://u:{CANARY}@h/d\n", ENVIRON)
    shown = [repr(config), str(config), str(masked(config)), config.model_dump_json(), repr(config.model_dump())]
    assert CANARY not in "".join(shown)
    assert masked(config)["sources"]["shop"]["url"] == "postgresql://cdc:***@db1/shop"


def test_the_masked_configuration_has_the_files_keys_and_units() -> None:
    shop = masked(parse(GOOD, ENVIRON))["sources"]["shop"]
    assert (shop["schema"], shop["rpo"], shop["discover"], shop["rto"]) == ("shop", "30s", "10s", None)
    assert shop["tables"] == ["public.*", "!public.sessions"]


def test_pydantics_own_errors_do_not_show_what_they_refuse() -> None:
    with pytest.raises(ValidationError) as caught:
        PostgresSourceConfig.model_validate({"type": "postgres", "url": f"mysql://u:{CANARY}@h", "tables": [CANARY]})
    assert CANARY not in str(caught.value)


def test_the_json_schema_holds_the_keys_of_every_plugin() -> None:
    schema = config_schema()
    source = schema["$defs"]["PostgresSourceConfig"]
    assert set(schema["properties"]) == {"environment", "transport", "state", "http", "lake", "sources"}
    assert {"slot", "publication", "discover", "schema", "rpo"} <= set(source["properties"])
    assert source["additionalProperties"] is False
    choice = schema["properties"]["sources"]["additionalProperties"]["oneOf"]
    assert choice == [{"$ref": "#/$defs/PostgresSourceConfig", "properties": {"type": {"const": "postgres"}}}]
    assert schema["properties"]["lake"]["oneOf"][0]["$ref"] == "#/$defs/LakeConfig"


def test_the_json_schema_describes_every_key() -> None:
    schema = config_schema()
    for name in ("PostgresSourceConfig", "LakeConfig"):
        for key, value in schema["$defs"][name]["properties"].items():
            assert value.get("description"), key


def test_the_json_schema_refers_to_nothing_that_it_lacks() -> None:
    import json
    import re

    schema = config_schema()
    references = set(re.findall(r"#/\$defs/(\w+)", json.dumps(schema)))
    assert references == set(schema["$defs"])


@pytest.mark.parametrize("pattern_of", ["rpo", "retain"])
def test_the_json_schemas_patterns_take_what_the_loader_takes(pattern_of: str) -> None:
    import re

    pattern = config_schema()["$defs"]["PostgresSourceConfig"]["properties"][pattern_of]["anyOf"][0]["pattern"]
    good = {"rpo": ["30s", "1h30m", "${RPO}"], "retain": ["10GiB", "5B", "${KEEP:-1GiB}"]}[pattern_of]
    assert all(re.search(pattern, text) for text in good)
    assert not any(re.search(pattern, text) for text in ["", "30", "soon"])


def test_defaults_in_the_json_schema_are_written_as_in_a_file() -> None:
    properties = config_schema()["$defs"]["PostgresSourceConfig"]["properties"]
    assert properties["discover"]["default"] == "10s"
    assert "default" not in properties["schema"]


def test_addresses_are_split() -> None:
    assert split_address("127.0.0.1:8080") == ("127.0.0.1", 8080)
    assert split_address("[::1]:0") == ("::1", 0)


def test_the_base_classes_know_no_key_of_a_connector() -> None:
    assert "slot" not in SourceConfig.model_fields
    assert set(LakeConfig.model_fields) == {"type", "url"}
    assert set(Config.model_fields) == {"environment", "transport", "state", "http", "lake", "sources"}
