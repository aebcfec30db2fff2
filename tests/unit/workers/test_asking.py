"""A client of the API, against a server that answers as the API does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from infra.settings import load
from workers.asking import Api, NotAnswered


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = {"path": self.path, "token": self.headers["Authorization"]}
        if self.path.startswith("/v1/refused"):
            self._answer(404, orjson.dumps({"title": "Not found", "detail": "There is none."}))
        elif self.path.startswith("/v1/moved"):
            self.send_response(302)
            self.send_header("Location", "/v1/elsewhere")
            self.end_headers()
        elif self.path.startswith("/v1/page"):
            self._answer(200, b"<html>")
        elif self.headers["Accept"] == "image/svg+xml":
            self._answer(200, b"<svg/>")
        else:
            self._answer(200, orjson.dumps(asked))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_asks_with_the_token_and_leaves_out_what_is_not_set(url: str) -> None:
    found = Api(url, "secret").read("/v1/forecast", {"months": 3, "by": None, "as_of": "a b"})
    assert found == {"path": "/v1/forecast?months=3&as_of=a+b", "token": "Bearer secret"}


def test_by_default_the_one_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the file\n")
    settings = load({"CRM_DATA_DIR": str(tmp_path), "CRM_HOST": "0.0.0.0", "CRM_PORT": "1"})
    with pytest.raises(NotAnswered, match=r"http://127\.0\.0\.1:1 does not answer .* crm up"):
        Api.of(settings, None, None).read("/v1/forecast", {})


def test_without_a_token_says_which_file_was_looked_for(tmp_path: Path) -> None:
    settings = load({"CRM_DATA_DIR": str(tmp_path)})
    with pytest.raises(NotAnswered, match="No such file"):
        Api.of(settings, None, None)


def test_a_refusal_is_told_in_its_own_words(url: str) -> None:
    with pytest.raises(NotAnswered, match=r"^There is none\.$"):
        Api(url, "secret").read("/v1/refused", {})


def test_the_token_follows_no_redirect(url: str) -> None:
    with pytest.raises(NotAnswered, match="answers 302"):
        Api(url, "secret").read("/v1/moved", {})


def test_only_the_web_is_asked() -> None:
    with pytest.raises(NotAnswered, match="is not an address"):
        Api("file:///etc/passwd", "secret")


def test_a_picture_is_written_by_the_kind_its_name_says(url: str, tmp_path: Path) -> None:
    Api(url, "secret").picture("/v1/forecast", {}, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes() == b"<svg/>"
    with pytest.raises(NotAnswered, match=r"ends in \.png or \.svg"):
        Api(url, "secret").picture("/v1/forecast", {}, tmp_path / "a.gif")


@pytest.mark.parametrize("wrong", ["http://[::1", "http://", "https:/127.0.0.1", ""])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(NotAnswered, match="is not an address"):
        Api(wrong, "secret").read("/v1/forecast", {})


@pytest.mark.parametrize("wrong", [b"", b"a\nb", "sécret".encode(), b"\xff\xfe"], ids=ascii)
def test_a_file_without_a_token_is_told(tmp_path: Path, wrong: bytes) -> None:
    (tmp_path / "token").write_bytes(wrong)
    settings = load({"CRM_DATA_DIR": str(tmp_path), "CRM_PORT": "1"})
    with pytest.raises(NotAnswered, match="token"):
        Api.of(settings, None, None).read("/v1/forecast", {})


def test_another_server_is_not_taken_for_the_api(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotAnswered, match="is not the API"):
        Api(url, "secret").read("/v1/page", {})
    with pytest.raises(NotAnswered, match="no picture"):
        Api(url, "secret").picture("/v1/forecast", {}, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_no_proxy_is_told_the_token_for_this_machine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert Api(url, "secret").read("/v1/forecast", {})["token"] == "Bearer secret"
