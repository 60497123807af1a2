"""The order of indexes, from the SQL of a schema that may come from anywhere."""

from replicator.format.btree import KeyColumn
from replicator.sqlite.index_order import index_orders

PLAIN = KeyColumn()


def test_collations_and_directions():
    """Of indexes, of primary keys without rowids, and of the columns that follow the key."""
    orders = index_orders(
        [
            "CREATE TABLE t(a COLLATE NOCASE, b, UNIQUE (b))",
            "CREATE TABLE w(k TEXT COLLATE RTRIM, v, PRIMARY KEY (k DESC)) WITHOUT ROWID",
            "CREATE INDEX T_A ON t(a DESC, b COLLATE RTRIM)",
            "CREATE UNIQUE INDEX e ON t(abs(b))",
        ]
    )
    assert orders["t_a"] == (KeyColumn("NOCASE", True), KeyColumn("RTRIM"), PLAIN)
    assert orders["w"] == (KeyColumn("RTRIM", True), PLAIN)
    assert orders["sqlite_autoindex_t_1"] == (PLAIN, PLAIN)
    assert orders["e"] == (PLAIN, PLAIN)


def test_foreign_sql_does_nothing():
    """Unknown functions, other statements, and work without an end leave the others as they are."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    orders = index_orders(
        [
            "CREATE TABLE t(a)",
            f"CREATE TABLE u AS {endless}",
            "CREATE TABLE s AS SELECT 1",
            "CREATE VIRTUAL TABLE f USING fts5(a)",
            "ATTACH 'x' AS y",
            "DROP TABLE t",
            "CREATE TABLE",
            "CREATE TABLE z(a); DROP TABLE t",
            "CREATE INDEX g ON t(own_function(a))",
            "CREATE INDEX h ON t(a COLLATE own_collation)",
            "CREATE INDEX i ON t(a)",
        ]
    )
    assert orders == {"i": (PLAIN, PLAIN)}
