"""The API of `catordog review`: who may use it, what it writes, and what other processes see."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from catordog.errors import CatordogError
from catordog.photos.datasets import open_dataset
from catordog.photos.decisions import Decision, DecisionLog, apply, read_decisions
from catordog.terminal import progress, progress_to
from catordog.web.listening import host_check, listen
from catordog.web.review import MOST_BYTES, create_review_app
from catordog.web.review_session import Choice, ReviewSession
from catordog.web.review_work import ReviewWork
from conftest import named, wait_until, write_folder

TOKEN = "secret-token"
ADDRESS = "http://127.0.0.1:7861"


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of cats and dogs, an exact copy, a contradiction, and a file that is no photo."""
    files = {f"{name[:3]}/{name}": data for name, data in named(24).items()}
    files["cat/copy.jpg"] = files["cat/cat.1.jpg"]
    files["dog/contradiction.jpg"] = files["cat/cat.2.jpg"]
    files["dog/broken.jpg"] = b"no photo"
    return write_folder(tmp_path_factory.mktemp("review") / "pets", files)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "decisions.jsonl"


@pytest.fixture
def session(pets: Path, file: Path) -> ReviewSession:
    return ReviewSession(open_dataset(str(pets)), file)


@pytest.fixture
def client(session: ReviewSession) -> Iterator[TestClient]:
    app = create_review_app(ReviewWork(session), TOKEN, host_check("127.0.0.1"))
    with TestClient(app, base_url=f"{ADDRESS}/{TOKEN}/") as client:
        yield client


def index_of(session: ReviewSession, name: str) -> int:
    return session.dataset.photos.names.index(name)


def finished(client: TestClient) -> dict:
    """The state once the audit is done."""
    wait_until(lambda: client.get("state").json()["progress"]["what"] == "", "the audit ends")
    return client.get("state").json()


def send(client: TestClient, *choices: dict, **options: object):
    return client.post("decisions", json={"choices": choices}, **options)


READS = ["", "state", "queues/all", "find?words=cat", "photos/0", "photos/0/thumbnail",
         "photos/0/large", "review.js", "app.css"]  # fmt: skip


class TestWhoMayUseIt:
    @pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "sécret"])
    def test_nothing_is_answered_without_the_token(self, client, token):
        prefix = f"{ADDRESS}/{token}/" if token else f"{ADDRESS}/"
        for path in READS:
            answer = client.get(prefix + path)
            assert answer.status_code == 403, path
            assert "catordog review has printed" in answer.json()["error"]

    def test_nothing_is_written_without_the_token(self, client, file):
        for prefix in (f"{ADDRESS}/", f"{ADDRESS}/wrong/"):
            choices = {"choices": [{"id": 0, "action": "keep"}]}
            assert client.post(prefix + "decisions", json=choices).status_code == 403
        assert not file.exists()

    def test_with_the_token_all_of_it_is_there_and_loads_nothing_from_elsewhere(self, client):
        for path in READS:
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Referrer-Policy"] == "no-referrer"  # links would tell the token

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "evil.example:7861", "127.0.0.1.evil.example", "192.168.1.7:7861",
         "localhost@evil.example", "", "[::1"],
    )  # fmt: skip
    def test_another_host_name_is_refused(self, client, file, host):
        assert client.get("state", headers={"Host": host}).status_code == 400
        answer = send(client, {"id": 0, "action": "keep"}, headers={"Host": host})
        assert answer.status_code == 400
        assert not file.exists()

    @pytest.mark.parametrize(
        "origin",
        ["http://evil.example", "http://127.0.0.1:8000", "https://127.0.0.1:7861", "null"],
    )
    def test_another_origin_is_refused(self, client, file, origin):
        assert client.get("state", headers={"Origin": origin}).status_code == 403
        answer = send(client, {"id": 0, "action": "keep"}, headers={"Origin": origin})
        assert answer.status_code == 403
        assert not file.exists()

    def test_its_own_origin_is_not_refused(self, client):
        for host in ("127.0.0.1:7861", "localhost:7861", "localhost:9000", "[::1]:7861"):
            headers = {"Host": host, "Origin": f"http://{host}"}
            answer = send(client, {"id": 0, "action": "keep"}, headers=headers)
            assert answer.status_code == 200, host
        headers = {"Host": "127.0.0.1:7861", "Origin": "http://localhost:7861"}
        assert send(client, {"id": 0, "action": "keep"}, headers=headers).status_code == 403

    def test_in_a_network_it_is_reached_by_address_or_the_name_of_the_machine(self):
        known = host_check("0.0.0.0")
        name = socket.gethostname()
        for host in (
            "192.168.1.7:7861",
            "[fe80::1]:7861",
            "localhost:7861",
            name,
            f"{name}.local:1",
        ):
            assert known(host), host
        for host in ("evil.example:7861", f"{name}.evil.example", "192.168.1.7.evil.example", ""):
            assert not known(host), host
        assert host_check("pets.example")("pets.example:7861")

    def test_the_printed_address_of_a_review_on_all_addresses_is_not_the_wildcard(self):
        listener, address = listen("0.0.0.0", 0)
        with listener:
            assert urlsplit(address).hostname not in {"0.0.0.0", None}
            assert urlsplit(address).port == listener.getsockname()[1]

    def test_reading_writes_nothing(self, client, pets, file):
        before = {path: path.stat().st_mtime_ns for path in pets.rglob("*")}
        finished(client)
        for path in READS:
            client.get(path)
        assert client.get("decisions").status_code == 405
        assert not file.exists()
        assert {path: path.stat().st_mtime_ns for path in pets.rglob("*")} == before


@pytest.mark.parametrize(
    ("code", "choice"),
    [
        (404, {"id": 999, "action": "keep"}),
        (404, {"id": -1, "action": "keep"}),
        (422, {"id": 0, "action": "delete"}),
        (422, {"id": 0, "action": "relabel"}),
        (422, {"id": 0, "action": "relabel", "label": "fox"}),
        (422, {"action": "keep"}),
    ],
)
def test_a_wrong_decision_is_refused_and_nothing_is_stored(client, file, code, choice):
    answer = send(client, {"id": 0, "action": "keep"}, choice)
    assert answer.status_code == code
    assert answer.json()["error"]
    assert not file.exists()


def test_what_is_no_json_or_too_large_is_refused(client, file):
    body = b'{"choices": [{"id": 0, "action": "keep"}]}'
    text = {"Content-Type": "text/plain"}  # what another site can send without asking
    assert client.post("decisions", content=body, headers=text).status_code == 415
    json_type = {"Content-Type": "application/json"}
    large = body + b" " * MOST_BYTES
    assert client.post("decisions", content=large, headers=json_type).status_code == 413
    endless = client.post("decisions", content=iter([body]), headers=json_type)
    assert endless.status_code == 411
    assert not file.exists()


class TestDecisions:
    def test_a_decision_is_in_the_file_when_it_is_answered(self, client, session, file):
        index = index_of(session, "cat/cat.0.jpg")
        choice = {"id": index, "action": "relabel", "label": "Dog", "queue": "random"}
        assert send(client, choice).json()["changes"][str(index)]["label"] == "dog"
        (line,) = file.read_text().splitlines()
        found = json.loads(line)
        assert found.pop("time")
        assert found == {
            "path": "cat/cat.0.jpg", "action": "relabel", "label": "dog", "was": "cat",
            "queue": "random",
        }  # fmt: skip

    def test_the_last_one_counts_and_the_history_stays(self, client, session, file):
        for action in ("keep", "leave_out", "clear", "skip"):
            send(client, {"id": 3, "action": action})
        assert [json.loads(line)["action"] for line in file.read_text().splitlines()] == [
            "keep", "leave_out", "clear", "skip",
        ]  # fmt: skip
        assert client.get("photos/3").json()["history"][-1]["action"] == "skip"
        assert client.get("queues/all").json()["places"][3][0]["decision"]["action"] == "skip"
        send(client, {"id": 3, "action": "clear"})
        assert client.get("queues/all").json()["places"][3][0]["decision"] is None

    def test_a_new_label_that_is_the_old_one_keeps_the_photo(self, client, session):
        index = index_of(session, "cat/cat.0.jpg")
        send(client, {"id": index, "action": "relabel", "label": "cat"})
        assert session.decision(index) == {"action": "keep", "label": "cat", "queue": None}

    def test_a_second_review_continues_and_both_see_each_other(self, client, session, pets, file):
        send(client, {"id": 1, "action": "keep"})
        other = ReviewSession(open_dataset(str(pets)), file)
        assert other.decision(1)["action"] == "keep"
        version = client.get("state").json()["version"]
        other.decide([Choice(1, "leave_out"), Choice(2, "keep")])
        changes = client.get("state", params={"since": version}).json()["changes"]
        assert {index: each["action"] for index, each in changes.items()} == {
            "1": "leave_out", "2": "keep",
        }  # fmt: skip
        send(client, {"id": 2, "action": "clear"})
        other.refresh()
        assert other.decision(2) is None

    def test_paths_of_other_programs_are_found(self, pets, file):
        absolute = pets / "dog" / "dog.3.jpg"
        DecisionLog(file).append(Decision(str(absolute), "leave_out", was="dog"))
        session = ReviewSession(open_dataset(str(pets)), file)
        assert session.decision(index_of(session, "dog/dog.3.jpg"))["action"] == "leave_out"

    def test_a_label_in_another_case_is_the_class_that_the_decision_applies_as(self, pets, file):
        dataset = open_dataset(str(pets))
        DecisionLog(file).append(Decision("cat/cat.0.jpg", "relabel", label="Dog", was="cat"))
        session = ReviewSession(dataset, file)
        index = index_of(session, "cat/cat.0.jpg")
        applied, _ = apply(dataset, read_decisions(file), file)
        assert session.labels() == {index: applied.photos.labels[index]}
        assert session.decision(index)["label"] == "dog"  # as the page's buttons name it

    def test_a_file_about_another_dataset_is_refused_in_a_line(self, pets, file):
        DecisionLog(file).append(Decision("elsewhere/1.jpg", "keep"))
        with pytest.raises(CatordogError, match="none of its 1 paths is in") as error:
            ReviewSession(open_dataset(str(pets)), file)
        assert "\n" not in str(error.value)

    def test_a_file_that_can_not_be_written_is_an_error_and_no_decision(
        self, client, session, file
    ):
        file.mkdir()
        answer = send(client, {"id": 0, "action": "keep"})
        assert answer.status_code == 500
        assert "can't write" in answer.json()["error"]
        assert session.decision(0) is None


class TestQueues:
    def test_the_audit_fills_the_queues_in_the_background(self, client, session):
        state = finished(client)
        assert {each["name"]: each["count"] for each in state["queues"]} == {
            "doubtful": 3, "contradictions": 2, "unreadable": 1, "copies": 2, "random": 27,
            "all": 27,
        }  # fmt: skip
        copies = client.get("queues/copies").json()["places"]
        assert [[each["name"] for each in place] for place in copies] == [
            ["cat/cat.1.jpg", "cat/copy.jpg"]
        ]
        (contradiction,) = client.get("queues/contradictions").json()["places"]
        assert {each["label"] for each in contradiction} == {"cat", "dog"}

    def test_a_queue_is_filtered_by_class_and_given_in_parts(self, client, monkeypatch):
        monkeypatch.setattr("catordog.web.review.PAGE", 10)
        dogs = []
        while True:
            parameters = {"label": "dog", "start": len(dogs)}
            found = client.get("queues/all", params=parameters).json()
            dogs += found["places"]
            if len(dogs) == found["total"]:
                break
            assert len(found["places"]) == 10
        assert {each["label"] for place in dogs for each in place} == {"dog"}
        assert len(dogs) == 14
        assert client.get("queues/none").status_code == 404

    def test_a_photo_is_found_by_a_part_of_its_name(self, client):
        names = [place[0]["name"] for place in client.get("find?words=CONTRA").json()["places"]]
        assert names == ["dog/contradiction.jpg"]

    def test_an_unreadable_photo_has_a_reason_and_affects_no_other(self, client, session):
        broken = index_of(session, "dog/broken.jpg")
        answer = client.get(f"photos/{broken}/thumbnail")
        assert answer.status_code == 422
        assert "not a photo" in answer.json()["error"]
        assert client.get("photos/0/thumbnail").content.startswith(b"\xff\xd8")

    def test_copies_that_are_left_out_are_no_wrong_labels(self, client, session):
        finished(client)
        copy, other = (index_of(session, name) for name in ("cat/copy.jpg", "dog/dog.1.jpg"))
        send(client, {"id": copy, "action": "leave_out", "queue": "copies"})
        send(client, {"id": other, "action": "leave_out", "queue": "suspects"})
        estimate = client.get("state").json()["estimate"]
        assert (estimate["judged"], estimate["found"]) == (1, 1)


def test_progress_goes_to_an_observer(capsys):
    seen = []
    with progress_to(lambda *step: seen.append(step)), progress("counting", 2) as done:
        done(1)
        done(2)
    assert seen == [("counting", 0, 2), ("counting", 1, 2), ("counting", 2, 2)]
    assert capsys.readouterr().err == ""


def test_the_decisions_of_a_review_apply_to_its_data(client, pets, file):
    send(client, {"id": 0, "action": "leave_out"})
    assert read_decisions(file)["cat/cat.0.jpg"].action == "leave_out"


def test_synthetic_pictures_and_photos_in_archives_are_shown(tmp_path, pets):
    archive = shutil.make_archive(str(tmp_path / "pets"), "zip", pets)
    for data in ("drawn:n=6", archive):
        session = ReviewSession(open_dataset(data), tmp_path / f"{len(data)}.jsonl")
        work = ReviewWork(session)
        assert work.thumbnails.get(0).startswith(b"\xff\xd8")
        session.decide([Choice(0, "leave_out")])
        again = ReviewSession(open_dataset(data), session.file)
        assert again.decision(0)["action"] == "leave_out"
        work.stop()


def test_thumbnails_take_bounded_memory(session, monkeypatch):
    made = ReviewWork(session).thumbnails
    size = len(made.get(0))
    monkeypatch.setattr("catordog.web.review_work.MOST_THUMBNAIL_BYTES", 3 * size)
    for index in range(10):
        made.get(index)
    assert sum(map(len, made._kept.values())) <= 3 * size
    assert made.get(0).startswith(b"\xff\xd8")  # made again
    made.stop()
