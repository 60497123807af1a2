"""The project's own promises: what is public, how parts depend, what the files around it say."""

import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import replicator

TOP = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
PUBLIC = [
    "Position",
    "ReplicationStatus",
    "ReplicatorError",
    "RestoreReport",
    "SqliteReplicator",
    "SqliteReplicatorConfig",
    "__version__",
    "durable",
    "restore",
    "restore_all",
    "wait_durable",
]


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=TOP
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ------------------------------------------------------------------------ the package


def test_all_is_exactly_the_public_names():
    """A name in __all__ exists, and nothing public is left out."""
    assert sorted(replicator.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(replicator, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    """Lazy names do not swallow typing errors."""
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = replicator.nonsense


def test_no_module_shares_a_public_name():
    """The import system binds a submodule to its package: it would hide a function of its name."""
    modules = {path.stem for path in (TOP / "replicator").iterdir()} - {"replicator"}
    assert not modules & set(PUBLIC)


def test_import_and_help_load_nothing_heavy():
    """Start-up stays quick: no boto3, no numpy, no zstandard before they are needed."""
    loaded = python(
        "import sys, replicator, replicator.cli\n"
        "replicator.cli.call(['--version'])\n"
        "print({'boto3', 'numpy', 'zstandard', 'watchdog', 'rich'} & {*sys.modules})"
    )
    assert loaded.splitlines()[-1] == "set()"


def test_the_version_is_the_one_of_the_package():
    """pyproject.toml and the package agree, and the changelog knows it."""
    declared = re.search(r'^version = "(.+)"$', (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert declared[1] == replicator.__version__
    assert f"## [{replicator.__version__}]" in (TOP / "CHANGELOG.md").read_text()


def test_imports_keep_to_the_layers():
    """The contracts in pyproject.toml hold."""
    done = subprocess.run(
        [BIN / "lint-imports", "--no-logo", "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=TOP,
    )
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------- compose, policy, image


def compose(file: Path) -> str:
    """What compose complains about; its wrapper always exits 0, so the words decide."""
    done = subprocess.run(
        [BIN / "docker-compose", "-f", file, "config", "-q"],
        capture_output=True,
        text=True,
        check=False,
        cwd=TOP,
    )
    return (done.stdout + done.stderr).strip()


def test_the_compose_file_is_valid():
    """Compose itself accepts it."""
    assert compose(TOP / "docker-compose.yml") == ""


def test_a_broken_compose_file_would_be_noticed(tmp_path):
    """The check above can fail."""
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(
        (TOP / "docker-compose.yml")
        .read_text()
        .replace("service_healthy", "service_in_good_spirits")
    )
    assert "service_in_good_spirits" not in compose(broken)
    assert "must be one of" in compose(broken)


def compose_model() -> dict:
    """The file as compose understands it."""
    done = subprocess.run(
        [BIN / "docker-compose", "-f", TOP / "docker-compose.yml", "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=TOP,
    )
    return json.loads(done.stdout)


def test_images_are_pinned_and_mounted_files_exist():
    """No tag floats, and what a service mounts or builds from is in the project."""
    services = compose_model()["services"]
    for name, service in services.items():
        pinned = re.search(r":RELEASE\.2025-\d\d-\d\dT", service["image"])
        assert pinned or "build" in service, name
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or Path(volume["source"]).exists(), volume
    assert (TOP / services["replicator"]["build"]["dockerfile"]).is_file()


def test_the_compose_files_commands_exist():
    """What the sidecar and its health check run is a real command line."""
    service = compose_model()["services"]["replicator"]
    from replicator import cli

    for command in (service["command"], service["healthcheck"]["test"][2:]):
        assert cli.call([command[0], "--help"]) == 0


def test_the_policy_is_just_what_the_store_asks_for():
    """Each S3 call the store makes is allowed by minio/policy.json, and nothing else is."""
    needs = {
        "put_object": "s3:PutObject",
        "get_object": "s3:GetObject",
        "head_object": "s3:GetObject",
        "list_objects_v2": "s3:ListBucket",
        "delete_object": "s3:DeleteObject",
        "create_multipart_upload": "s3:PutObject",
        "upload_part": "s3:PutObject",
        "complete_multipart_upload": "s3:PutObject",
        "list_parts": "s3:ListMultipartUploadParts",
        "abort_multipart_upload": "s3:AbortMultipartUpload",
        "list_multipart_uploads": "s3:ListBucketMultipartUploads",
        "create_bucket": None,  # tests and demo only
    }
    code = (TOP / "replicator/store/s3.py").read_text()
    called = {name for name in needs if re.search(rf"\b{name}\b", code)}
    policy = json.loads((TOP / "minio/policy.json").read_text())
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert allowed == {needs[name] for name in called} - {None}
    assert {statement["Effect"] for statement in policy["Statement"]} == {"Allow"}


def test_the_init_script_is_valid_shell():
    """sh parses it, and it may be executed."""
    script = TOP / "minio/init.sh"
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    assert script.stat().st_mode & stat.S_IXUSR


def test_the_example_application_runs(tmp_path):
    """It writes, ends on SIGTERM, and says how much it wrote."""
    database = tmp_path / "app.db"
    process = subprocess.Popen(
        [sys.executable, TOP / "minio/example/app.py", database], stdout=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (tmp_path / "app.db-wal").exists():
        pass
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.split()[-1]) == (0, "readings")


# ------------------------------------------------------------------------------ checks


def test_the_checks_are_scripts_that_stop_at_a_failure():
    """.ci/run may be executed, stops at the first failure, reads no stdin."""
    script = TOP / ".ci/run"
    text = script.read_text()
    assert script.stat().st_mode & stat.S_IXUSR
    assert "set -euo pipefail" in text
    assert "</dev/null" in text
    assert shutil.which("bash")
