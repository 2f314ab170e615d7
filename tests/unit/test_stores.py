"""Sources in object stores and on the Hugging Face Hub: collect_source against real servers on this machine."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import boto3
import pytest
from hub_server import COMMIT, TOKEN, hub
from huggingface_hub import HfFileSystem, close_session
from moto.server import ThreadedMotoServer
from record_files import encoded, receipt, rows

from llamaflow import objects

ONE, TWO = (encoded([{"text": text}], "jsonl") for text in ("One.", "Two."))


class Bucket:
    """A bucket on a server of its own, with what the tests put there."""

    def __init__(self, address: str) -> None:
        self.client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")

    def fill(self, **files: bytes) -> None:
        for name, content in files.items():
            self.client.put_object(Bucket="bucket", Key=name, Body=content, ACL="public-read")

    def empty(self) -> None:
        for entry in self.client.list_objects_v2(Bucket="bucket").get("Contents", []):
            self.client.delete_object(Bucket="bucket", Key=entry["Key"])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    yield "http://{}:{}".format(*moto.get_host_and_port())
    moto.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in {"ENDPOINT_URL": server, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    made = Bucket(server)
    made.client.create_bucket(Bucket="bucket")
    yield made
    made.empty()


@pytest.fixture
def collect(run_step: Any, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def run(path: str, cache: Path | None = None, **source: Any) -> list[dict[str, Any]]:
        run_step("collect_source", ["--outdir", tmp_path], {"source": {"id": "faq", "path": path, **source}, "source_cache": cache and str(cache)})
        assert sorted(file.name for file in tmp_path.iterdir()) == ["collect_source.dropped.parquet", "collect_source.json", "collected.parquet"]
        return rows(tmp_path / "collected.parquet")

    return run


@pytest.fixture
def refused(run_step: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(path: str, status: int = 64) -> str:
        with pytest.raises(SystemExit) as stopped:
            run_step("collect_source", ["--outdir", tmp_path], {"source": {"id": "faq", "path": path}})
        assert stopped.value.code == status
        assert not list(tmp_path.iterdir())
        return capsys.readouterr().err

    return run


def places(records: list[dict[str, Any]]) -> list[str]:
    return [record["meta"]["location"] for record in records]


def test_all_objects_below_a_prefix(bucket: Bucket, collect: Any, tmp_path: Path) -> None:
    files = {
        "docs/b é.jsonl": TWO,
        "docs/a/one.md": b"# One\n\nText.",
        "docs/.cache/x.txt": b"x",
        "docs/photo.jpg": b"x",
        "docs/folder/": b"",
        "docsx.txt": b"x",
    }
    bucket.fill(**files)
    records = collect("s3://bucket/docs/")
    assert places(records) == ["a/one.md:1", "b é.jsonl:1"]
    made = receipt(tmp_path / "collect_source.json")
    assert made["counts"]["files"] == {"jsonl": 1, "markdown": 1}
    assert made["counts"]["dropped"] == {"file of an unknown kind": 2}
    first = made["inputs"]["s3://bucket/docs/"]
    assert first == made["counts"]["sha256"]
    assert collect("s3://bucket/docs") == records
    bucket.fill(**{"docs/a/one.md": b"# Eins\n\nText."})
    collect("s3://bucket/docs/")
    assert receipt(tmp_path / "collect_source.json")["inputs"]["s3://bucket/docs/"] != first


def test_objects_that_fit_a_pattern(bucket: Bucket, collect: Any) -> None:
    bucket.fill(**{"docs/a.txt": b"a", "docs/b.jsonl": ONE, "docs/c/d/e.txt": b"e", "other/f.txt": b"f"})
    assert places(collect("s3://bucket/docs/**/*.txt")) == ["a.txt:1", "c/d/e.txt:1"]
    assert places(collect("s3://bucket/docs/*")) == ["a.txt:1", "b.jsonl:1"]
    assert places(collect("s3://bucket/*/f.txt")) == ["other/f.txt:1"]
    assert len(collect("s3://bucket")) == 4


def test_one_object(bucket: Bucket, collect: Any, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("in/one.jsonl", ONE)
    bucket.fill(**{"key.jsonl": ONE, "packed.zip": archive.getvalue()})
    assert places(collect("s3://bucket/key.jsonl", split="test")) == ["key.jsonl:1"]
    assert list(receipt(tmp_path / "collect_source.json")["inputs"]) == ["key.jsonl"]
    assert places(collect("s3://bucket/packed.zip")) == ["in/one.jsonl:1"]


def test_a_name_cannot_lead_out_of_the_scratch(bucket: Bucket, collect: Any) -> None:
    bucket.fill(**{f"docs/{'é' * 300}.txt": b"long", "docs/a\\..\\b.txt": b"b"})
    assert len(collect("s3://bucket/docs/")) == 2


def test_google_cloud_storage(bucket: Bucket, server: str, collect: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its XML API is near enough to that of S3."""
    account = {"gcs_base_url": server, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    file = tmp_path_factory.mktemp("google") / "account.json"
    file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_PATH", str(file))
    bucket.fill(**{"docs/a.txt": b"a", "docs/b.txt": b"b"})
    assert places(collect("gs://bucket/docs/")) == ["a.txt:1", "b.txt:1"]
    assert places(collect("gs://bucket/docs/b.txt")) == ["b.txt:1"]


def test_nothing_there(bucket: Bucket, refused: Any) -> None:
    bucket.fill(**{"docs/a.jpg": b"a"})
    assert "there is no object in s3://bucket/none/" in refused("s3://bucket/none")
    assert "there is no object in s3://bucket/docs/ that fits *.txt" in refused("s3://bucket/docs/*.txt")
    assert "there is no object s3://bucket/key.jsonl" in refused("s3://bucket/key.jsonl")
    assert "The specified bucket does not exist" in refused("s3://nobody/docs/")
    assert "no file of a kind that is known" in refused("s3://bucket/docs/")


def test_a_name_that_cannot_be_read(bucket: Bucket, refused: Any) -> None:
    bucket.fill(**{"docs/../up.txt": b"a"})
    assert "docs/../up.txt" in refused("s3://bucket/docs/")


def test_no_access(bucket: Bucket, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.client.put_object(Bucket="bucket", Key="private.txt", Body=b"x")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert "access to s3://bucket/private.txt is denied" in refused("s3://bucket/private.txt")


@pytest.mark.slow
def test_no_server(bucket: Bucket, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "cannot be read now" in refused("s3://bucket/docs/", 75)


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept here")


def came(directory: Path) -> tuple[int, int]:
    """Files that were fetched, and that had not changed."""
    counts = receipt(directory / "collect_source.json")["counts"]
    return counts["fetched"], counts["unchanged"]


def test_objects_that_are_unchanged_are_not_fetched_again(bucket: Bucket, collect: Any, cache: Path, tmp_path: Path) -> None:
    bucket.fill(**{"docs/a.txt": b"a", "docs/b é.txt": b"b", "docs/c.jpg": b"c"})
    first = collect("s3://bucket/docs/", cache)
    assert came(tmp_path) == (2, 0)
    assert collect("s3://bucket/docs/", cache) == first
    assert came(tmp_path) == (0, 2)
    bucket.fill(**{"docs/a.txt": b"another"})
    assert [record["text"] for record in collect("s3://bucket/docs/", cache)] == ["another", "b"]
    assert came(tmp_path) == (1, 1)
    assert [record["text"] for record in collect("s3://bucket/docs/a.txt", cache)] == ["another"]
    assert came(tmp_path) == (0, 1), "by whatever prefix it was asked for"


class CutOff(BaseHTTPRequestHandler):
    """Sends half of an object, and the rest to whoever asks for it, of an object that is the same or another."""

    rest_of = "one"
    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers["Range"])
        resumed = "Range" in self.headers
        self.send_response(206 if resumed else 200)
        headers = (
            {"Content-Range": "bytes 7-13/14", "ETag": f'"{self.rest_of}"', "Content-Length": "7"} if resumed else {"ETag": '"one"', "Content-Length": "14"}
        )
        for name, value in {**headers, "Last-Modified": "Sun, 22 Nov 2026 22:24:01 GMT", "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"text\nab" if not resumed else b"cdefgh\n")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), CutOff) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        for name, value in {"ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield
        server.shutdown()
        thread.join()


def test_a_connection_that_ends_is_taken_up_again(cut_off: None, collect: Any) -> None:
    assert [record["text"] for record in collect("s3://bucket/a.csv")] == ["abcdefgh"]


def test_an_object_that_changes_while_it_is_read(cut_off: None, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CutOff, "rest_of", "two")
    assert "was changed, or the connection ended, while it was read" in refused("s3://bucket/a.csv", 75)


def test_an_object_goes_on_in_a_later_task(cut_off: None, collect: Any, run_step: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "CHUNK_BYTES", 1)
    monkeypatch.setattr(CutOff, "rest_of", "two")
    with pytest.raises(SystemExit):
        collect("s3://bucket/a.csv", cache)
    (part,) = cache.rglob("part")
    assert part.read_bytes() == b"text\nab"
    monkeypatch.setattr(CutOff, "rest_of", "one")
    monkeypatch.setattr(CutOff, "asked", [])
    assert [record["text"] for record in collect("s3://bucket/a.csv", cache)] == ["abcdefgh"]
    assert CutOff.asked == ["bytes=7-"]


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The data set owner/data on a Hub of its own, for those who have the token; the files that are fetched."""
    with hub(REPOSITORY) as (address, fetched):
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_OFFLINE": False,
        }.items():  # read from the environment when huggingface_hub is imported
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        HfFileSystem.clear_instance_cache()
        close_session()  # it would remember whether it is offline
        yield fetched
    close_session()


REPOSITORY = {
    "README.md": b"# Card\n\nText.",
    "script.py": b"raise SystemExit(1)\n",
    "data/train-00000-of-00001.parquet": encoded([{"text": "One."}], "parquet"),
    "data/test-00000-of-00001.parquet": encoded([{"text": "Two."}], "parquet"),
    "raw/all.jsonl": ONE,
    "bad/short.jsonl": ONE,
}


def test_a_data_set_of_the_hub(repository: list[str], collect: Any, tmp_path: Path) -> None:
    records = collect("hf://datasets/owner/data")
    assert [(record["text"], record["split"]) for record in records] == [("Two.", "test"), ("One.", "train")]
    assert repository == ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]
    made = (tmp_path / "collect_source.json").read_text()
    assert list(json.loads(made)["inputs"]) == [f"hf://datasets/owner/data@{COMMIT}"]
    assert TOKEN not in made
    assert {record["split"] for record in collect("hf://datasets/owner/data", split="validation")} == {"validation"}


@pytest.mark.parametrize("path", ["@main/raw/*.jsonl", "/raw/all.jsonl", "/raw", "/**/a*.jsonl"])
def test_a_path_on_the_hub(repository: list[str], collect: Any, path: str) -> None:
    assert places(collect(f"hf://datasets/owner/data{path}")) == ["raw/all.jsonl:1"]
    assert repository == ["raw/all.jsonl"]


def test_a_file_of_the_hub_that_is_named_is_read_whatever_its_kind(repository: list[str], collect: Any) -> None:
    assert places(collect("hf://datasets/owner/data/README.md")) == ["README.md:1"]


def test_what_the_hub_refuses(repository: list[str], refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hf://datasets/owner/gone cannot be read: 404" in refused("hf://datasets/owner/gone")
    assert "hf://datasets/owner/data@gone cannot be read: 404" in refused("hf://datasets/owner/data@gone")
    assert "there is no data file at" in refused("hf://datasets/owner/data/raw/none.jsonl")
    assert "there is no data file at" in refused("hf://datasets/owner/data/*.pdf")
    monkeypatch.delenv("HF_TOKEN")
    HfFileSystem.clear_instance_cache()
    assert "need HF_TOKEN" in refused("hf://datasets/owner/data")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    close_session()
    HfFileSystem.clear_instance_cache()
    assert "Unset HF_HUB_OFFLINE" in refused("hf://datasets/owner/data")
    assert repository == []


def test_a_file_of_the_hub_that_comes_incomplete(repository: list[str], refused: Any) -> None:
    assert "short.jsonl came incomplete" in refused("hf://datasets/owner/data/bad/short.jsonl", 75)


def test_no_hub(repository: list[str], refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be read now" in refused("hf://datasets/owner/data", 75)


def test_files_of_the_hub_are_fetched_once(repository: list[str], collect: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = collect("hf://datasets/owner/data", cache)
    assert came(tmp_path) == (2, 0)
    fetched = [*repository]
    assert collect("hf://datasets/owner/data@main", cache) == first
    assert came(tmp_path) == (0, 2)
    assert receipt(tmp_path / "collect_source.json")["counts"]["unchanged_since"].startswith("20")
    assert repository == fetched
    monkeypatch.setattr("hub_server.COMMIT", "beef" * 10)
    assert collect("hf://datasets/owner/data", cache) == first, "another commit, with the same files"
    assert came(tmp_path) == (0, 2)
    assert repository == fetched
    assert not any(TOKEN.encode() in file.read_bytes() for file in cache.rglob("*") if file.is_file())
    assert (cache / "hub").stat().st_mode & 0o077 == 0


def test_a_cache_for_the_hub_that_cannot_be_used(repository: list[str], collect: Any, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "hub").write_text("a file")
    assert len(collect("hf://datasets/owner/data", cache)) == 2
    assert came(tmp_path) == (2, 0)
    assert capsys.readouterr().out.count("warning: --source_cache") == 1


def test_a_file_of_the_hub_that_comes_incomplete_to_the_cache(
    repository: list[str], run_step: Any, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"source": {"id": "faq", "path": "hf://datasets/owner/data/bad/short.jsonl"}, "source_cache": str(cache)}
    with pytest.raises(SystemExit) as stopped:
        run_step("collect_source", ["--outdir", tmp_path], settings)
    assert stopped.value.code == 75
    assert "short.jsonl" in capsys.readouterr().err
