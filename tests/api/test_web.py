"""The pages for people: signing in, the launch form, runs; the last test with a real browser and a real run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, Html
from fastapi.testclient import TestClient
from lab import Lab, Server

from launchpad.auth import COOKIE
from launchpad.store import Task, Workflow
from launchpad.trace import progress_of
from llamaflow.tracking import EventFile
from llamaflow.trials import Trial

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "nextflow_schema.json").read_text())
VISIBLE = {name: spec for group in SCHEMA["$defs"].values() for name, spec in group["properties"].items() if not spec.get("hidden")}
TRIAL = Trial(trial_id="tiny-1", model={"id": "tiny"}, data={"sha256": "0"}, technique="lora", hyperparameters={"lora_r": 8})
FORM = "/launch/1/upload"


@pytest.fixture(scope="module")
def llamaflow(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A launchpad with LlamaFlow itself."""
    return Lab(tmp_path_factory.mktemp("llamaflow"), pipeline=ROOT)


def signed_in(lab: Lab, user: str = "ana", scope: str = "launch") -> TestClient:
    return TestClient(lab.app, cookies={COOKIE: lab.secrets[user, scope]}, follow_redirects=False)


def run_of(lab: Lab, answer: Any) -> Workflow:
    """The run that a page leads to."""
    assert answer.status_code == 303, Html(answer.text).texts["faults-list"]
    with lab.sessions() as session:
        return session.get_one(Workflow, answer.headers["location"].removeprefix("/runs/"))


# who may see and do what


def test_pages_lead_to_signing_in_and_back(lab: Lab) -> None:
    nobody = TestClient(lab.app, follow_redirects=False)
    asked = nobody.get("/launch/1?from=x")
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=/launch/1%3Ffrom%3Dx")
    assert Html(nobody.get(asked.headers["location"]).text).controls["next"][0]["value"] == "/launch/1?from=x"
    wrong = nobody.post("/login", data={"token": "lfp_wrong", "next": "/"})
    assert wrong.status_code == 401
    assert "no token" in wrong.text
    assert "set-cookie" not in wrong.headers
    right = nobody.post("/login", data={"token": lab.secrets["ana", "read"], "next": "/launch/1?from=x"})
    assert (right.status_code, right.headers["location"]) == (303, "/launch/1?from=x")
    assert {"HttpOnly", "SameSite=strict"} <= set(right.headers["set-cookie"].split("; "))
    assert nobody.get("/").status_code == 200
    nobody.post("/logout")
    assert nobody.get("/").status_code == 303


@pytest.mark.parametrize(
    "target", ["https://example.org/", "//example.org", "/\\example.org", "/\t/example.org", "/\n/example.org", "/\x00/", "javascript:alert(1)"]
)
def test_signing_in_leads_to_no_other_site(lab: Lab, target: str) -> None:
    """Browsers leave out tabs and ends of lines in addresses."""
    nobody = TestClient(lab.app, follow_redirects=False)
    answer = nobody.post("/login", data={"token": lab.secrets["ana", "read"], "next": target})
    assert answer.headers["location"] == "/"
    assert "example.org" not in nobody.get("/login", params={"next": target}).text


def test_the_cookie_goes_by_https_alone_where_there_is_https(lab: Lab) -> None:
    answer = TestClient(lab.app, base_url="https://launchpad", follow_redirects=False).post("/login", data={"token": lab.secrets["ana", "read"]})
    assert "Secure" in answer.headers["set-cookie"].split("; ")


@pytest.mark.parametrize("origin", ["https://example.org", "http://testserver:5678", "null"])
def test_other_sites_can_do_nothing(lab: Lab, origin: str) -> None:
    run, ana = lab.launched(), signed_in(lab)
    for path in ("/login", "/logout", FORM, "/launch/1", f"/runs/{run}/cancel", f"/runs/{run}/resume"):
        answer = ana.post(path, data={"word": "hello", "token": lab.secrets["ana", "launch"]}, headers={"Origin": origin})
        assert (answer.status_code, answer.headers.get("set-cookie")) == (403, None), path
    with lab.sessions() as session:
        assert session.get_one(Workflow, run).cancelled is None
    assert ana.post(f"/runs/{run}/cancel", headers={"Origin": "http://testserver"}).status_code == 303


def test_what_is_anothers_is_not_there(lab: Lab) -> None:
    run, bo = lab.launched(), signed_in(lab, "bo")
    for path in (f"/runs/{run}", f"/runs/{run}/live", f"/runs/{run}/files/index.json", f"/runs/{run}/tasks/ab/123456", f"/launch/1?from={run}", "/runs/none"):
        assert bo.get(path).status_code == 403, path
    for path in (f"/runs/{run}/cancel", f"/runs/{run}/resume"):
        assert bo.post(path).status_code == 403, path
    assert run not in bo.get("/").text


def test_who_may_only_read_has_no_buttons_and_cannot_press_them(lab: Lab) -> None:
    run, reader = lab.launched(), signed_in(lab, scope="read")
    assert "<button" not in reader.get(f"/runs/{run}/live").text
    assert reader.get("/launch/1").status_code == 403
    for path in (FORM, f"/runs/{run}/cancel", f"/runs/{run}/resume"):
        assert reader.post(path).status_code == 403, path


def test_pages_run_nothing_that_is_not_theirs(lab: Lab) -> None:
    ana = signed_in(lab)
    run = lab.ended(run_name="x", params={"word": "<script>alert(1)</script>"}, status="FAILED", error_message="<b>bad</b>")
    for path in ("/", "/launch/1", f"/runs/{run}", "/login", "/runs/none"):
        answer = ana.get(path)
        assert "default-src 'self'" in answer.headers["content-security-policy"], path
        assert answer.headers["x-frame-options"] == "DENY", path
        assert "<script>" not in answer.text, path
        assert " style=" not in answer.text, path
        assert " onclick=" not in answer.text, path
    assert "&lt;b&gt;bad&lt;/b&gt;" in ana.get(f"/runs/{run}").text
    assert ana.get("/static/live.js").status_code == 200
    assert ana.get("/static/..%2fpages.py").status_code in (403, 404)


# the launch form


def test_the_form_asks_for_every_parameter(llamaflow: Lab) -> None:
    form = Html(signed_in(llamaflow).get("/launch/1").text)
    assert set(VISIBLE) - set(form.controls) == set()
    unlabelled = {one["id"] for ones in form.controls.values() for one in ones if one.get("type") != "hidden" and "id" in one} - form.labels
    assert unlabelled == set()
    wrong = {name: form.controls[name][-1].get("value") for name, spec in VISIBLE.items() if spec["type"] in ("integer", "number")}
    assert {name: value for name, value in wrong.items() if value != str(VISIBLE[name].get("default", ""))} == {}
    assert [one["value"] for one in form.controls["stage"] if "checked" in one] == ["sft"]
    assert "checked" in form.controls["packing"][-1]
    assert "at least 0, at most 1." in form.texts["p-max_dropped_fraction-hint"].lower()


def test_what_is_wrong_comes_back_beside_what_was_typed(llamaflow: Lab) -> None:
    typed = {"models": "<tiny>", "min_characters": "-3", "split_seed": "soon", "sampler": "magic", "input": "/etc/passwd"}
    answer = signed_in(llamaflow).post(FORM, data=typed)
    form = Html(answer.text)
    assert answer.status_code == 400
    assert {name: form.controls[name][-1].get("value") for name in typed if name != "sampler"} | {"sampler": "magic"} == typed
    assert "at least 0" in form.texts["p-min_characters-fault"]
    assert '"soon"' in form.texts["p-split_seed-fault"]
    assert "grid, random, optuna" in form.texts["p-sampler-fault"]
    assert form.controls["min_characters"][0]["aria-invalid"] == "true"
    del typed["min_characters"], typed["split_seed"], typed["sampler"]
    assert "outside" in Html(signed_in(llamaflow).post(FORM, data=typed).text).texts["p-input-fault"]
    named = signed_in(llamaflow).post(FORM, data={"run_name": "No Name"})
    assert "is no run name" in named.text
    assert Html(named.text).controls["run_name"][0]["value"] == "No Name"


def test_what_is_missing_is_said_where_it_is_missing(lab: Lab) -> None:
    form = Html(signed_in(lab).post(FORM, data={"times": "2"}).text)
    assert "needed" in form.texts["p-word-fault"]


def test_only_what_differs_from_the_defaults_is_launched(lab: Lab) -> None:
    data: dict[str, Any] = {"word": " hello ", "times": "2", "seconds": "7", "fail": ["false", "true"], "run_name": "from_the_form", "profiles": "test"}
    run = run_of(lab, signed_in(lab).post(FORM, data=data))
    assert run.params.pop("outdir").startswith(str(lab.settings.data))
    assert run.params == {"word": "hello", "seconds": 7, "fail": True}
    assert (run.run_name, run.profile, run.status) == ("from_the_form", "test", "SUBMITTED")


def test_several_words_and_numbers_keep_their_types(llamaflow: Lab) -> None:
    data = {
        "models": "tiny",
        "input": "https://example.org/rows.jsonl",
        "techniques": ["lora", "dora"],
        "learning_rate": "1e-4,3e-4",
        "gate_min_gain": "0.5",
        "max_hours": "2",
    }
    run = run_of(llamaflow, signed_in(llamaflow).post(FORM, data=data))
    del run.params["outdir"]
    assert run.params == {
        "models": "tiny", "input": "https://example.org/rows.jsonl", "techniques": "lora,dora", "learning_rate": "1e-4,3e-4", "gate_min_gain": 0.5, "max_hours": 2,
    }  # fmt: skip


def test_a_table_is_uploaded_and_chosen_again(llamaflow: Lab) -> None:
    ana, rows = signed_in(llamaflow), b"id,path\na,https://example.org/a.jsonl\n" + b"b,x\n" * 500_000  # more than a request may have elsewhere
    run = run_of(llamaflow, ana.post(FORM, data={"models": "tiny"}, files={"input.file": ("my rows.csv", rows)}))
    assert Path(run.params["input"]).read_bytes() == rows
    chosen = Html(ana.get("/launch/1").text).controls["input.dataset"]
    assert [one["tag"] for one in chosen] == ["select"]
    again = ana.post(FORM, data={"models": "tiny"}, files={"input.file": ("my rows.csv", b"id,path\n")})
    assert "/2/my rows.csv" in run_of(llamaflow, again).params["input"]
    listed = ana.get("/api/datasets").json()["datasets"]
    assert [one["name"] for one in listed] == ["my-rows.csv"]


@pytest.mark.parametrize(("name", "content"), [("rows.exe", b"x"), ("../rows.csv", b"x"), ("rows.csv", b"")])
def test_an_upload_that_cannot_be_kept_leaves_nothing(llamaflow: Lab, name: str, content: bytes) -> None:
    bo = signed_in(llamaflow, "bo")
    answer = bo.post(FORM, data={"models": "tiny"}, files={"input.file": (name, content)})
    assert answer.status_code == 400
    assert Html(answer.text).texts["p-input-fault"].strip()
    assert bo.get("/api/datasets").json()["datasets"] == []


def test_a_run_is_launched_again_and_resumed(lab: Lab) -> None:
    ana = signed_in(lab)
    run = lab.ended(status="FAILED", launch={"pipeline": str(lab.settings.pipeline), "params_text": '{"word": "again", "times": 3}'})
    page = ana.get(f"/runs/{run}").text
    assert f'action="/runs/{run}/resume"' in page
    assert f'href="/launch/1?from={run}"' in page
    form = Html(ana.get(f"/launch/1?from={run}").text)
    assert {name: form.controls[name][0]["value"] for name in ("word", "times")} == {"word": "again", "times": "3"}
    (lab.settings.data / "runs" / run / "launch").mkdir(parents=True)
    resumed = run_of(lab, ana.post(f"/runs/{run}/resume"))
    assert (resumed.resume, resumed.params["word"]) == (True, "again")
    assert resumed.session_id == ana.get(f"/api/workflow/{run}").json()["workflow"]["sessionId"]
    never = ana.post(f"/runs/{lab.ended(status='CANCELLED', start=None)}/resume")
    assert never.status_code == 400
    assert "nothing to resume" in never.text


# a run's page


@pytest.fixture
def trained(lab: Lab, tmp_path: Path) -> str:
    """A run with a trial that has ended, one that trains, a task that failed, and results."""
    results, work = tmp_path / "results", tmp_path / "work"
    rows = [{"step": step, "tokens": step * 10, "loss": 4 / step, "learning_rate": 0.1} for step in range(1, 6)]
    rows[-1]["validation_loss"] = 0.75
    (work / "trials/tiny-2.part").mkdir(parents=True)
    EventFile(work / "trials/tiny-2.part/events.tfevents", TRIAL).log(rows)
    (work / ".command.log").write_text("first line\nno sugar\n")
    (results / "trials/tiny-1").mkdir(parents=True)
    (results / "trials/tiny-1/history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]) + '{"step": 4, "lo')
    (results / "leaderboard.csv").write_text(
        "rank,id,model,seed,learning_rate,rouge_l,rouge_l_ci_low\n1,tiny-1,tiny,42,0.1,0.21734,0.1\n2,tiny-2,tiny,42,0.2,0.2,0.1\n,tiny,tiny,,,0.1,0.05\n"
    )
    (results / "index.json").write_text(json.dumps({"published": True, "reason": "It is better.", "winner": "tiny-1", "release": "release/x"}))
    (results / "report.html").write_text("<h1>Report</h1><script>document.title = 'ran'</script>")
    (tmp_path / "secret").write_text("secret")
    (results / "link").symlink_to(tmp_path / "secret")
    run = lab.ended(status="FAILED", output_dir=str(results), error_message="there is no sugar left", error_report="ERROR ~ sugar")
    task = Task(
        workflow_id=run, hash="ab/123456", task_id=3, status="FAILED", name="A:TRAIN_TRIALS (tiny)", process="A:TRAIN_TRIALS", tag="tiny", workdir=str(work)
    )
    lab.change(run, **progress_of([task]))
    with lab.sessions() as session:
        session.add(task)
        session.commit()
    return run


def test_a_run_that_failed_says_why_first(lab: Lab, trained: str) -> None:
    page = signed_in(lab).get(f"/runs/{trained}").text
    assert page.index("there is no sugar left") < page.index("Duration")
    assert "data-live" not in page
    assert "1 failed" in page


def test_losses_are_read_from_finished_trials_and_from_those_that_train(lab: Lab, trained: str) -> None:
    page = signed_in(lab).get(f"/runs/{trained}/live").text
    rows = page[page.index('class="legend"') :].split("<tr>")[2:4]
    assert [[part in row for part in (">3<", ">1.333<")] for row in rows] == [[True, True], [False, False]]
    assert all(part in rows[1] for part in (">5<", ">0.800<", ">0.750<"))
    assert page.count('class="training"') == 2
    nothing = signed_in(lab).get(f"/runs/{lab.ended()}").text
    assert "<polyline" not in nothing


def test_the_leaderboard_marks_the_winner(lab: Lab, trained: str) -> None:
    page = signed_in(lab).get(f"/runs/{trained}").text
    board = page[page.index('id="board-scroll"') :].split("</table>")[0]
    assert ">Rouge l<" in board
    assert "ci low" not in board
    assert ">Model<" not in board  # they are the same in all rows, or in all that have any
    assert ">Seed<" not in board
    assert [("Winner" in row, "0.2173" in row) for row in board.split("<tr")[2:]] == [(True, True), (False, False), (False, False)]
    assert "A model was released" in page


def test_a_task_shows_its_log(lab: Lab, trained: str) -> None:
    page = signed_in(lab).get(f"/runs/{trained}/tasks/ab/123456").text
    assert "no sugar" in page
    assert f"/api/workflow/{trained}/download/3?fileName=.command.log" in page


def test_files_of_a_run_are_shown_and_can_do_nothing(lab: Lab, trained: str) -> None:
    ana = signed_in(lab)
    report = ana.get(f"/runs/{trained}/files/report.html")
    assert report.headers["content-type"].startswith("text/html")
    assert report.headers["content-security-policy"] == "sandbox allow-scripts allow-popups"
    assert f'href="/runs/{trained}/files/report.html"' in ana.get(f"/runs/{trained}").text
    assert ana.get(f"/runs/{trained}/files/leaderboard.csv").headers["content-type"].startswith("text/plain")
    for name in ("..%2fsecret", "link", "%2e%2e/secret", "%2fetc%2fpasswd", "trials", "none.html", "%00", "a" * 5000):
        answer = ana.get(f"/runs/{trained}/files/{name}")
        assert (answer.status_code, "secret" in answer.text) == (403, False), name


@pytest.mark.parametrize("content", [b"", b"\x18", b"\xff" * 300, b"\x05" + bytes(11) + b"\x0a\xff\xff\xff\x7f" + bytes(4)])
def test_events_that_cannot_be_read_are_left_out(lab: Lab, trained: str, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "work/trials/tiny-2.part/events.tfevents").write_bytes(content)
    (tmp_path / "results/index.json").write_text("[")
    assert signed_in(lab).get(f"/runs/{trained}").text.count('class="training"') == 1


def test_the_list_is_searched_and_paged(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    for number in range(30):
        lab.ended(run_name=f"run_{number}", status="FAILED" if number % 10 == 0 else "SUCCEEDED")
    ana = signed_in(lab)
    first, second = ana.get("/").text, ana.get("/?offset=25").text
    assert (first.count('scope="row"'), second.count('scope="row"')) == (25, 5)
    assert "search=&amp;offset=25" in first
    assert 'rel="next"' not in second
    assert ana.get("/?search=status:failed").text.count('scope="row"') == 3
    assert "No run matches" in ana.get("/?search=100%25").text


# in a browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    browser = Browser(tmp_path / "chromium")
    yield browser
    browser.close()


def test_a_run_from_signing_in_to_its_report_on_a_phone(server: Server, browser: Browser) -> None:
    browser.size(360, 740)
    browser.open(f"http://127.0.0.1:{server.port}/")
    assert browser.evaluate("document.activeElement.id") == "token"
    browser.type(server.secrets["ana", "launch"])
    browser.press("Enter")
    browser.wait("document.title.startsWith('Runs')")
    assert fits(browser)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.textContent") == "Skip to the content"

    browser.open(f"http://127.0.0.1:{server.port}/launch")
    browser.wait("document.getElementById('p-word')")
    browser.evaluate("document.getElementById('p-word').focus()")
    browser.type("Hello!")
    browser.press("Enter")
    browser.wait("document.getElementById('p-word-fault')")
    assert browser.evaluate("document.getElementById('p-word').value") == "Hello!"
    assert fits(browser)
    browser.evaluate("document.getElementById('p-word').select()")
    browser.type("hello")
    browser.evaluate("document.getElementById('p-seconds').select()")
    browser.type("5")
    browser.press("Enter")

    browser.wait("location.pathname.startsWith('/runs/') && document.getElementById('parameters')")
    browser.evaluate("window.never = 'loaded anew'; document.getElementById('parameters').open = true; document.getElementById('again').focus()")
    browser.wait("document.querySelector('h1 .is-running')?.textContent === 'Running'")
    assert fits(browser)
    browser.wait("document.querySelector('h1 .is-succeeded')")
    assert browser.evaluate("window.never") == "loaded anew"
    assert browser.evaluate("document.getElementById('said').textContent").endswith("succeeded, 3 of 3 tasks done")
    assert browser.evaluate("document.getElementById('parameters').open")
    assert browser.evaluate("document.activeElement.id") == "again"
    assert fits(browser)
    assert [text for text in browser.complaints if "status of 400" not in text] == []  # that is the form with what was wrong

    browser.evaluate("document.querySelector('.reports a').click()")
    browser.wait("document.querySelector('h1')?.textContent === 'hello'")
    assert browser.evaluate("window.origin") == "null"  # it is nobody here


def fits(browser: Browser) -> bool:
    """Whether nothing is wider than the window."""
    return bool(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"))
