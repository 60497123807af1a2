"""Schemas that this SQLite library cannot use in full, as another application leaves them.

Each statement replaces the text of an object in ``sqlite_schema``. A newer SQLite, or an
application that registers what is missing, accepts all of them.
"""

from dataclasses import dataclass

TABLES = (
    "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT, n INT)",
    "CREATE INDEX word ON words(word)",
    "CREATE VIEW listed AS SELECT 1 AS one",
    "CREATE TABLE heard(n INT)",
    "CREATE TRIGGER noted AFTER INSERT ON heard BEGIN SELECT 1; END",
    "INSERT INTO words(word, n) VALUES('one', 1), ('two', 2), ('three', 3)",
)


@dataclass(frozen=True)
class Strange:
    """``text`` replaces the SQL of the object ``name``. ``checked``: a read-only connection checks
    the file without the missing part."""

    name: str
    text: str
    checked: bool = False


NEWER_SQL = {
    "view": Strange(
        "listed", "CREATE VIEW listed AS SELECT group_concat(word ORDER BY n) FROM words"
    ),
    "trigger": Strange(
        "noted", "CREATE TRIGGER noted AFTER INSERT ON heard BEGIN SELECT 1_000; END"
    ),
    "table": Strange(
        "words", "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT, n INT DEFAULT 1_000)"
    ),
    "index": Strange("word", "CREATE INDEX word ON words(word) WHERE n <> 1_000"),
}
OWN_PARTS = {
    "collation": Strange(
        "words", "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT COLLATE theirs, n INT)"
    ),
    "function": Strange("word", "CREATE INDEX word ON words(theirs(word))"),
    "check": Strange(
        "words",
        "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT, n INT CHECK(theirs(n)))",
        checked=True,  # SQLite parses no CHECK constraint of a read-only database
    ),
}
STRANGE = NEWER_SQL | OWN_PARTS
MODULES = {
    "module": "CREATE VIRTUAL TABLE theirs USING their_module(x)",
    "tokenizer": "CREATE VIRTUAL TABLE theirs USING fts5(x, tokenize = 'their_tokenizer')",
}


def statements(kind):
    """SQL that creates the tables, and makes the schema strange in one way of STRANGE or MODULES.
    The connection itself keeps ``writable_schema``, with which it can use the rest."""
    if kind in MODULES:
        change = (
            "INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) "
            f"VALUES('table', 'theirs', 'theirs', 0, {quoted(MODULES[kind])})"
        )
    else:
        strange = STRANGE[kind]
        change = (
            f"UPDATE sqlite_schema SET sql = {quoted(strange.text)} WHERE name = '{strange.name}'"
        )
    return (*TABLES, "PRAGMA writable_schema=ON", change)


def quoted(text):
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def make_strange(connection, kind):
    """Run the statements, and have every other connection read the schema again."""
    for statement in statements(kind):
        connection.execute(statement)
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute(f"PRAGMA schema_version={version + 1}")


def supply(connection):
    """Register what the schemas of OWN_PARTS need, as their application does."""
    connection.create_collation("theirs", lambda a, b: (a > b) - (a < b))
    connection.create_function("theirs", 1, lambda value: value, deterministic=True)
