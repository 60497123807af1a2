"""DirectoryStore: the peculiarities of objects as files."""

import errno
import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    ConfigError,
    ObjectExists,
    ObjectMissing,
    StoreUnavailable,
    StoreUnsafe,
    UploadMissing,
)
from replicator.store.directory import DirectoryStore
from replicator.store.memory import MemoryStore
from tests.helpers.errors import raises


@pytest.fixture
def root(directory_store, tmp_path):
    """The directory of `directory_store`."""
    return tmp_path / "store"


def test_an_object_is_a_plain_file(directory_store, root):
    """A person finds it under its key, and no other file with it."""
    directory_store.put("app.db/wal/1.wal.zst", b"bytes", metadata={"n": "1"})
    assert (root / "app.db/wal/1.wal.zst").read_bytes() == b"bytes"
    assert sorted(os.listdir(root)) == [".replicator", "app.db"]
    assert os.listdir(root / "app.db/wal") == ["1.wal.zst"]


def test_what_a_person_puts_there_is_an_object(directory_store, root):
    """Without metadata; a copied directory works, and damaged metadata is none."""
    (root / "app.db").mkdir()
    (root / "app.db/copied").write_bytes(b"x")
    assert dict(directory_store.head("app.db/copied").metadata) == {}
    sidecar = root / ".replicator/metadata/app.db/copied.json"
    sidecar.parent.mkdir(parents=True)
    sidecar.write_text("{")
    assert dict(directory_store.head("app.db/copied").metadata) == {}


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../../b",
        ".",
        "a/./b",
        "a\0b",
        ".replicator/x",
        ".replicator",
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda s, k: s.put(k, b"x"),
        lambda s, k: s.get(k),
        lambda s, k: s.head(k),
        lambda s, k: s.delete(k),
        lambda s, k: s.begin_upload(k),
    ],
    ids=["put", "get", "head", "delete", "begin"],
)
def test_a_key_cannot_leave_the_root(directory_store, key, ask):
    """Nor reach the hidden directory."""
    with pytest.raises(ConfigError):
        ask(directory_store, key)


@pytest.mark.parametrize("prefix", ["/", "//", "../", "a/../../", "./", ".replicator/", "a\0/"])
def test_a_prefix_cannot_leave_the_root(directory_store, tmp_path, prefix):
    """No key begins like that, so nothing is found, least of all outside the root."""
    (tmp_path / "outside").write_bytes(b"x")
    directory_store.put("a/b", b"x")
    assert list(directory_store.list(prefix)) == []
    assert directory_store.folders(prefix) == []


@pytest.mark.parametrize("upload_id", ["..", "../..", "/etc", "", "."])
def test_an_upload_id_cannot_leave_the_root(directory_store, root, upload_id):
    """It comes out of a ledger that may be damaged."""
    (root / "keep").write_bytes(b"x")
    directory_store.abort_upload("k", upload_id)
    assert (root / "keep").exists()


def test_symbolic_links_are_no_objects(directory_store, root, tmp_path):
    """Files outside the root are not listed as part of the store."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"x")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "file").symlink_to(tmp_path / "outside/secret")
    assert list(directory_store.list("")) == []
    assert directory_store.folders("") == []


def test_no_request_follows_a_symbolic_link(directory_store, root, tmp_path):
    """A link of an attacker, in place of an object, a directory of objects, or a hidden one, leads
    to no file outside the root: none is read, made, changed or removed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1").write_bytes(b"secret")
    (root / "db").mkdir()
    (root / "db/wal").symlink_to(outside)
    (root / "db/1").symlink_to(outside / "1")
    for key in ("db/wal/1", "db/1"):
        for ask in (directory_store.get, directory_store.head, directory_store.delete):
            with raises(AccessDenied, code="link_in_store", key=key):
                ask(key)
        for if_absent in (True, False):
            with raises(AccessDenied, code="link_in_store", key=key):
                directory_store.put(key, b"forged", if_absent=if_absent)
    assert list(directory_store.list("db/wal/")) == []
    assert directory_store.folders("db/wal/") == []
    for hidden in ("drafts", "metadata", "uploads"):
        (root / ".replicator").mkdir(exist_ok=True)
        (root / ".replicator" / hidden).symlink_to(outside)
    with raises(AccessDenied, code="link_in_store"):
        directory_store.put("db/2", b"x")
    with raises(AccessDenied, code="link_in_store"):
        directory_store.begin_upload("db/2")
    assert os.listdir(outside) == ["1"]
    assert (outside / "1").read_bytes() == b"secret"


def test_a_directory_is_not_an_object(directory_store):
    """Asked for as one, it is missing; and a file is not a directory."""
    directory_store.put("a/b", b"x")
    for ask in (directory_store.get, directory_store.head):
        for key in ("a", "a/b/c"):
            with pytest.raises(ObjectMissing):
                ask(key)
    with pytest.raises(ConfigError):
        directory_store.put("a/b/c", b"x")
    with pytest.raises(ConfigError):
        directory_store.put("a", b"x", if_absent=False)
    with pytest.raises(ConfigError):
        directory_store.put("x" * 300, b"x")
    with pytest.raises(ObjectExists):
        directory_store.put("a", b"x")


def test_no_draft_is_left(directory_store, root):
    """Neither by a put nor by one that lost."""
    directory_store.put("a", b"x")
    with pytest.raises(ObjectExists):
        directory_store.put("a", b"y")
    assert os.listdir(root / ".replicator/drafts") == []


def test_the_draft_of_a_killed_writer_goes_after_a_day(directory_store, root):
    """One that may still be written to stays."""
    directory_store.put("a", b"x")
    drafts = root / ".replicator/drafts"
    for name, age in (("old", 90_000), ("young", 80_000)):
        (drafts / name).write_bytes(b"x")
        os.utime(drafts / name, (0, time.time() - age))
    DirectoryStore(root).put("b", b"x")
    assert os.listdir(drafts) == ["young"]


def test_a_writer_that_lost_between_look_and_link_is_told(directory_store, root, monkeypatch):
    """The link decides, not the look before it; the winner's metadata stays."""
    directory_store.put("a", b"first", metadata={"n": "1"})
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(ObjectExists):
        directory_store.put("a", b"second", metadata={"n": "2"})
    assert directory_store.get("a") == b"first"
    assert dict(directory_store.head("a").metadata) == {"n": "1"}
    assert os.listdir(root / ".replicator/drafts") == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_refused(directory_store, root, monkeypatch, number):
    """For example exFAT: only links let exactly one writer win. Nothing is left."""

    def link(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    with raises(StoreUnsafe, "no_hard_links") as caught:
        directory_store.put("a", b"x")
    assert caught.value.hint
    assert list(directory_store.list("")) == []
    assert os.listdir(root / ".replicator/drafts") == []


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, StoreUnavailable), (errno.EIO, StoreUnavailable)]
)
def test_other_trouble_with_a_link_is_not_taken_for_it(directory_store, monkeypatch, number, error):
    """A directory that cannot grow may, later."""

    def link(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(error):
        directory_store.put("a", b"x")


def test_an_object_is_durable_before_it_has_its_name(directory_store, root, monkeypatch):
    """fsync of the draft, then the link, then fsync of the directory: in that order."""
    order = []
    real = {"fsync": os.fsync, "link": os.link}

    def fsync(descriptor):
        order.append("fsync " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real["fsync"](descriptor)

    def link(source, target):
        order[-1] = order[-1].replace(os.path.basename(source), "draft")
        order.append("link " + os.path.basename(target))
        real["link"](source, target)

    directory_store.put("wal/0", b"x")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    directory_store.put("wal/1", b"x")
    assert order[:3] == ["fsync draft", "link 1", "fsync wal"]


def test_new_directories_are_durable(directory_store, root, monkeypatch):
    """Each one is entered in its parent for good before the object is named."""
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), root))
        real(descriptor)

    directory_store.put("first", b"x")
    monkeypatch.setattr(os, "fsync", fsync)
    directory_store.put("a/b/c", b"x")
    assert synced[:2] == [".", "a"]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StoreUnavailable),
        (errno.EIO, StoreUnavailable),
        (errno.EDQUOT, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
        (errno.EACCES, AccessDenied),
        (errno.EROFS, AccessDenied),
        (errno.EPERM, AccessDenied),
    ],
)
def test_trouble_with_the_disk_is_trouble_with_the_store(
    directory_store, root, monkeypatch, number, error
):
    """A full or failing disk may pass, a read-only one is a refusal; no draft, no object."""

    def fsync(_):
        raise OSError(number, os.strerror(number))

    directory_store.put("other", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(error) as caught:
            directory_store.put("a", b"x")
    assert caught.value.hint
    assert [info.key for info in directory_store.list("")] == ["other"]
    assert os.listdir(root / ".replicator/drafts") == []


def test_a_root_that_disappears_is_a_missing_bucket(directory_store, root):
    """For example unmounted: nothing is created there, nothing looks empty."""
    directory_store.put("a", b"x")
    root.rename(root.with_name("elsewhere"))
    for ask in (
        lambda: directory_store.put("b", b"x"),
        lambda: directory_store.get("a"),
        lambda: list(directory_store.list("")),
    ):
        with pytest.raises(BucketMissing):
            ask()
    assert not root.exists()


def test_a_file_that_shrinks_while_it_is_read_is_trouble(directory_store, monkeypatch):
    """Fewer bytes than announced are never returned."""
    directory_store.put("a", b"12345")
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*real(fd)[:6], 10, *real(fd)[7:]]))
    with raises(StoreUnavailable, "incomplete_answer", operation="get", key="a"):
        directory_store.get("a")


def test_an_object_deleted_during_a_listing_is_left_out(directory_store, root):
    """Before or after its directory was read."""
    for key in ("a/1", "a/2", "b/1"):
        directory_store.put(key, b"")
    listing = directory_store.list("")
    assert next(listing).key == "a/1"
    directory_store.delete("a/2")
    (root / "b/1").unlink()
    (root / "b").rmdir()
    assert list(listing) == []


def test_metadata_goes_before_its_object(directory_store, root, monkeypatch):
    """A delete that is interrupted leaves an object without metadata, never the reverse,
    which a later object of that key would inherit."""
    directory_store.put("a", b"x", metadata={"n": "1"})
    real = os.unlink

    def unlink(path):
        if path == str(root / "a"):
            raise OSError(errno.EIO, "later")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with pytest.raises(StoreUnavailable):
            directory_store.delete("a")
    assert directory_store.get("a") == b"x"
    assert dict(directory_store.head("a").metadata) == {}


def test_an_upload_survives_its_process(directory_store, root):
    """Another store on the same directory continues it, with its parts and metadata."""
    upload_id = directory_store.begin_upload("k", metadata={"n": "1"})
    directory_store.put_part("k", upload_id, 1, b"one")
    other = DirectoryStore(root)
    assert [upload.upload_id for upload in other.list_uploads("")] == [upload_id]
    parts = [*other.list_parts("k", upload_id), other.put_part("k", upload_id, 2, b"two")]
    other.complete_upload("k", upload_id, parts)
    assert other.get("k") == b"onetwo"
    assert dict(other.head("k").metadata) == {"n": "1"}
    assert os.listdir(root / ".replicator/uploads") == []


def test_there_may_be_no_uploads(directory_store, root):
    """Never any, or one that ends while they are listed."""
    assert directory_store.list_uploads("") == []
    upload_id = directory_store.begin_upload("k")
    (root / ".replicator/uploads" / upload_id / "upload.json").unlink()
    assert directory_store.list_uploads("") == []


def test_an_upload_belongs_to_one_key(directory_store):
    """Its id with another key is no upload."""
    upload_id = directory_store.begin_upload("k")
    with pytest.raises(UploadMissing):
        directory_store.put_part("other", upload_id, 1, b"x")


def test_metadata_is_legible(directory_store, root):
    """A person can read it with any tool."""
    directory_store.put("a/b", b"x", metadata={"sha256": "ab"})
    assert json.loads((root / ".replicator/metadata/a/b.json").read_text()) == {"sha256": "ab"}


names = st.text("a/-.0~é", min_size=1, max_size=6)


@given(st.lists(names, max_size=12), names, names)
def test_listings_are_those_of_a_flat_store(tmp_path_factory, keys, prefix, after):
    """Any keys, any prefix, any start: the order and the folders of S3, which knows no
    directories."""
    directory, flat = DirectoryStore(tmp_path_factory.mktemp("store")), MemoryStore()
    for key in keys:
        try:
            directory.put(key, b"", if_absent=False)
        except ConfigError:  # not a file name, or a directory by now
            continue
        flat.put(key, b"", if_absent=False)

    def listed(store):
        return [info.key for info in store.list(prefix, start_after=after)]

    folder = prefix.rpartition("/")[0] + "/" if "/" in prefix else ""
    assert listed(directory) == listed(flat)
    assert [i.key for i in directory.list("")] == [i.key for i in flat.list("")]
    assert directory.folders(folder) == flat.folders(folder)


def test_an_upload_whose_record_is_damaged_is_missing(directory_store, root):
    """Its key is unknown, so no part can be put."""
    upload_id = directory_store.begin_upload("k")
    (record,) = root.rglob("upload.json")
    record.write_text("[]")
    with raises(UploadMissing, key="k"):
        directory_store.put_part("k", upload_id, 1, b"one")
    assert directory_store.list_uploads("") == []
