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
    """``text`` replaces the SQL of the object ``name``. ``parsed``: SQLite reads the schema all
    the same, and fails only where the missing part is needed."""

    name: str
    text: str
    parsed: bool


NEWER_SQL = {
    "view": Strange(
        "listed", "CREATE VIEW listed AS SELECT group_concat(word ORDER BY n) FROM words", False
    ),
    "trigger": Strange(
        "noted", "CREATE TRIGGER noted AFTER INSERT ON heard BEGIN SELECT 1_000; END", False
    ),
    "table": Strange(
        "words", "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT, n INT DEFAULT 1_000)", False
    ),
    "index": Strange("word", "CREATE INDEX word ON words(word) WHERE n <> 1_000", False),
}
OWN_PARTS = {
    "collation": Strange(
        "words",
        "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT COLLATE theirs, n INT)",
        True,
    ),
    "function": Strange("word", "CREATE INDEX word ON words(theirs(word))", True),
    "check": Strange(
        "words",
        "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT, n INT CHECK(theirs(n)))",
        True,
    ),
}
STRANGE = NEWER_SQL | OWN_PARTS
MODULES = {
    "module": "CREATE VIRTUAL TABLE theirs USING their_module(x)",
    "tokenizer": "CREATE VIRTUAL TABLE theirs USING fts5(x, tokenize = 'their_tokenizer')",
}


def make_strange(connection, kind):
    """Create the tables, and make the schema strange in one way of STRANGE or MODULES.

    The connection itself keeps ``writable_schema``, with which it can use the rest.
    """
    for statement in TABLES:
        connection.execute(statement)
    connection.execute("PRAGMA writable_schema=ON")
    if kind in MODULES:
        connection.execute(
            "INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) "
            "VALUES('table', 'theirs', 'theirs', 0, ?)",
            (MODULES[kind],),
        )
    else:
        strange = STRANGE[kind]
        connection.execute(
            "UPDATE sqlite_schema SET sql = ? WHERE name = ?", (strange.text, strange.name)
        )
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute(f"PRAGMA schema_version={version + 1}")
