"""The statements that may run on a database of unknown origin: those that only read it.

A restored database may hold views, triggers and virtual tables of an attacker, and a statement for
a drill may be a mistake. Owns the rules, which SQLite applies to each statement when it is
prepared, and again for each view in it. Refuses everything that writes, opens another file, loads
code, or changes how the connection works.
"""

from __future__ import annotations

import sqlite3

FORBIDDEN_FUNCTIONS = frozenset(
    {"edit", "fts3_tokenizer", "load_extension", "readfile", "writefile"}
)
# Pragmas that report a fact. With a value, some of them would change it.
REPORTS = frozenset(
    {
        "application_id",
        "auto_vacuum",
        "collation_list",
        "compile_options",
        "data_version",
        "encoding",
        "foreign_keys",
        "freelist_count",
        "function_list",
        "journal_mode",
        "max_page_count",
        "module_list",
        "page_count",
        "page_size",
        "pragma_list",
        "schema_version",
        "table_list",
        "user_version",
    }
)
# Pragmas whose value names a table or an index, or limits the answer.
QUESTIONS = frozenset(
    {
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
# Virtual tables prepare such statements when they are opened. Nothing runs them: the file is open
# to read only.
_WRITES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})


def permits(action: int, first: str | None, second: str | None, database: str | None) -> bool:
    """True if a statement may do this. The arguments are those of SQLite's authorizer (SQLite
    documentation, "Authorizer Action Codes")."""
    if action in _READS:
        return True
    if action == sqlite3.SQLITE_FUNCTION:
        return (second or "").lower() not in FORBIDDEN_FUNCTIONS
    if action in _WRITES:
        return database == "main"
    if action == sqlite3.SQLITE_PRAGMA:
        name = (first or "").lower()
        return name in QUESTIONS or (name in REPORTS and second is None)
    return False


def allow_only_reading(connection: sqlite3.Connection, *, trusted: bool) -> list[int]:
    """Apply the rules to every later statement of the connection. The list returned gets the
    action code of each refusal.

    ``trusted``: the operator registered functions or extensions that the schema may call. Without
    that, the schema calls only functions that are safe with any argument.
    """
    refused: list[int] = []

    def judge(
        action: int, first: str | None, second: str | None, database: str | None, _: str | None
    ) -> int:
        if permits(action, first, second, database):
            return sqlite3.SQLITE_OK
        refused.append(action)
        return sqlite3.SQLITE_DENY

    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA trusted_schema = {'ON' if trusted else 'OFF'}")
    connection.set_authorizer(judge)
    return refused
