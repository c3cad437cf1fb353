"""The commands of docs/storage.md: outputs go to an S3 server and come back in other clones.

The server is moto on a free local port; the pipeline is the real one up to stage pools, which needs no model.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from ruamel.yaml import YAML
from test_pipeline import contents, ran
from workspace import ROOT, copy_project, must, run

STAGES = ("code", "inputs", "base", "fetch", "audit", "examples", "pools")

PAGE = (ROOT / "docs/storage.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NAME_THE_STORAGE, ENVIRONMENT, CONFIG_LOCAL, PUSH, PULL, REPRO = BLOCKS
PAGE_BUCKET, PAGE_ENDPOINT = "my-bucket", "https://minio.example.org:9000"


@pytest.fixture(scope="module", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An environment without this machine's credentials, profile, endpoint and proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, str(tmp_path_factory.mktemp("aws") / "no-such-file"))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1")
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "test")
            patch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
        yield


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server with the bucket of the page."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    storage(f"http://{host}:{port}").create_bucket(Bucket=PAGE_BUCKET)
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def origin(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose first stages are run, pushed and committed."""
    project = copy_project(tmp_path_factory.mktemp("origin"))
    yaml = YAML()
    pipeline = yaml.load(project / "dvc.yaml")
    yaml.dump({"stages": {name: pipeline["stages"][name] for name in STAGES}}, project / "dvc.yaml")
    must(project, "git", "commit", "--quiet", "--all", "--message", "The first stages alone")
    must(project, "dvc", "repro")
    follow(project, NAME_THE_STORAGE + ENVIRONMENT + PUSH, endpoint)
    return project


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    must(origin, "git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    assert not (tmp_path / "clone/data").exists()
    return tmp_path / "clone"


@pytest.fixture
def dead_endpoint() -> Iterator[str]:
    """A port that is taken, so that no one else gets it, but on which no one listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def follow(project: Path, block: str, endpoint: str = PAGE_ENDPOINT) -> str:
    """The output of a block of the page, run in one shell."""
    return must(project, "sh", "-e", "-c", block.replace(PAGE_ENDPOINT, endpoint))


def storage(endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="KEY",
        aws_secret_access_key="SECRET",
    )


def stored(endpoint: str, folder: str) -> dict[str, bytes]:
    """The files in a folder of the bucket, in the format of `contents`."""
    client = storage(endpoint)

    def read(key: str) -> bytes:
        return client.get_object(Bucket=PAGE_BUCKET, Key=key)["Body"].read()

    listed = client.list_objects_v2(Bucket=PAGE_BUCKET, Prefix=f"{folder}/")["Contents"]
    return {item["Key"].removeprefix(f"{folder}/"): read(item["Key"]) for item in listed}


def outputs(project: Path) -> dict[str, dict[str, bytes]]:
    """The files that git does not carry and those that it does."""
    return {name: contents(project / name) for name in ("data", "metrics", "plots")}


def test_a_push_sends_every_output_but_the_small_results_that_git_keeps(
    origin: Path, endpoint: str
) -> None:
    sent = stored(endpoint, "posttrain/files")
    cached = contents(origin / ".dvc/cache/files")
    for_git = [*contents(origin / "metrics").values(), *contents(origin / "plots").values()]
    assert (
        len([name for name in sent if name.endswith(".dir")]) == len(STAGES) + 2
    )  # `base` has three
    assert sent == {name: data for name, data in cached.items() if data not in for_git}


def test_a_pull_in_another_clone_brings_the_same_bytes(origin: Path, clone: Path) -> None:
    follow(clone, CONFIG_LOCAL + PULL)
    assert outputs(clone) == outputs(origin)
    assert must(clone, "git", "status", "--porcelain") == ""  # nor are the credentials for git


def test_repro_with_pull_in_a_third_clone_runs_no_stage(origin: Path, clone: Path) -> None:
    output = follow(clone, ENVIRONMENT + REPRO)
    assert ran(output) == set()
    assert outputs(clone) == outputs(origin)


def test_a_wrong_endpoint_is_named_in_one_line_and_loses_nothing(
    origin: Path, endpoint: str, dead_endpoint: str, tmp_path: Path
) -> None:
    project = shutil.copytree(origin, tmp_path / "copy")
    local = """['remote "storage"']\n url = s3://{}/again\n endpointurl = {}\n"""
    (project / ".dvc/config.local").write_text(local.format(PAGE_BUCKET, dead_endpoint))
    before = contents(project / ".dvc/cache"), outputs(project)
    done = run(project, "sh", "-e", "-c", ENVIRONMENT + "AWS_MAX_ATTEMPTS=1 dvc push")
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert "Could not connect to the endpoint URL" in line and dead_endpoint in line
    assert "Traceback" not in done.stderr
    assert (contents(project / ".dvc/cache"), outputs(project)) == before

    (project / ".dvc/config.local").write_text(local.format(PAGE_BUCKET, endpoint))
    follow(project, ENVIRONMENT + "dvc push")
    assert stored(endpoint, "again") == stored(endpoint, "posttrain")
