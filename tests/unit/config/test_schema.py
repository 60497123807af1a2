"""replicator.config.schema: an editor and the program agree about a file."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.file import ConfigFile
from replicator.config.schema import schema, text
from replicator.config.settings import SETTINGS
from replicator.config.table import Where
from replicator.errors import ConfigError

DOCS = Path(__file__).parents[3] / "docs"
SCHEMA = schema()
VALID = jsonschema.Draft7Validator(SCHEMA)
ENTRY = jsonschema.Draft7Validator(SCHEMA["properties"]["database"]["items"])

texts = st.sampled_from(
    ["", "1", "0", "5s", "1h30m", "64 MB", "1GiB", "off", "On", "forever", "yes", "b", "-1", "1.5",
     "when_required", "sometimes"]
)  # fmt: skip
values = texts | st.booleans() | st.integers(-1, 1 << 40) | st.floats(allow_nan=False)


def test_it_is_a_schema():
    """Of the draft that it names."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_it_knows_every_setting_where_it_may_stand():
    """And path instead of db_path."""
    assert set(SCHEMA["properties"]) == {"database"} | {
        name for name, each in SETTINGS.items() if Where.DEFAULTS in each.where
    }
    assert set(SCHEMA["properties"]["database"]["items"]["properties"]) == {"path"} | {
        name for name, each in SETTINGS.items() if Where.DATABASE in each.where
    }


def test_the_file_in_the_documentation_is_valid():
    """For both judges."""
    (text,) = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    VALID.validate(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        'bucket = "b"',
        "[[database]]\nbucket = 'b'",
        "[[database]]\npath = ''",
        "bukket = 'b'\n[[database]]\npath = 'a.db'",
        "db_path = 'x'\n[[database]]\npath = 'a.db'",
        "cache_dir = 'x'\n[[database]]\npath = 'a.db'",
        "keep = 1\n[[database]]\npath = 'a.db'",
        "max_cache_bytes = '1 parsec'\n[[database]]\npath = 'a.db'",
        "poll_interval = 0\n[[database]]\npath = 'a.db'",
        "checksums = 'never'\n[[database]]\npath = 'a.db'",
    ],
)
def test_errors_of_the_program_are_errors_of_the_schema(tmp_path, text):
    """A key that is unknown or misplaced, and a value that cannot work."""
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError):
        ConfigFile.load(tmp_path / "r.toml", {})
    with pytest.raises(jsonschema.ValidationError):
        VALID.validate(tomllib.loads(text))


@given(st.sampled_from([name for name in SETTINGS if name != "db_path"]), values)
def test_a_value_is_valid_exactly_if_the_program_takes_it(name, value):
    """Except the bounds of a value that is text, which JSON Schema cannot express, and a whole
    number that is written with a point."""
    unit, text = SETTINGS[name].unit, isinstance(value, str)
    try:
        unit.check(unit.parse(value)) if text else SETTINGS[name].check(value)
    except ConfigError:
        accepted = False
    else:
        accepted = True
    whole = unit.json_type == "integer" and isinstance(value, float) and value.is_integer()
    assert whole or ENTRY.is_valid({"path": "a.db", name: value}) == accepted


def test_the_text_is_the_schema():
    """It is the file that the documentation offers."""
    assert json.loads(text()) == SCHEMA
