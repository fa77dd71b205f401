"""The JSON API as a script meets it, and as somebody meets it who means it no good."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import hierderm.app.following as following
import hierderm.app.routes as routes
import hierderm.app.server as server
from hierderm import columns as c
from hierderm.app.gallery_map import make_map
from hierderm.app.server import create_app
from hierderm.app.uploads import Limits, RefusedError, decode
from hierderm.config.settings import BackboneConfig
from hierderm.data.image_io import open_image
from hierderm.data.table import CaseTable
from hierderm.model.backbone import load_backbone
from hierderm.model.checkpoint import save_model
from hierderm.model.heads import NetworkShape
from hierderm.model.network import Network
from hierderm.search.case_index import CaseIndex
from hierderm.search.finder import CaseFinder
from hierderm.search.memory import MemoryGallery
from tests.app.conftest import serving

SMALL = Limits(image_bytes=200_000, image_pixels=1_000_000)


@pytest.fixture(scope="module")
def client(finder: CaseFinder) -> Iterator[TestClient]:
    with TestClient(create_app(finder, limits=SMALL)) as opened:
        yield opened


def png(size: tuple[int, int] = (40, 30), colour: tuple[int, int, int] = (200, 120, 110)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def header_of_a_huge_png(side: int = 50_000) -> bytes:
    """A PNG that says it has side x side pixels, and holds none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def post(client: TestClient, *images: bytes, **fields: Any) -> httpx2.Response:
    files = [("image", ("x.png", content, "image/png")) for content in images]
    return client.post("/api/search", files=files or {"none": (None, "")}, data=fields)


def test_an_image_is_answered(client: TestClient, toy: CaseTable) -> None:
    test = toy.part(c.TEST)
    answer = post(client, test.paths[0].read_bytes(), k=4).json()
    assert len(answer["hits"]) == 4 and answer["levels"] == ["category", "condition"]
    hit = answer["hits"][0]
    columns = {"fitzpatrick", "monk", "body_site", "source"}
    assert set(hit) == {"case_id", "image_id", "condition", "path", "similarity", "closer_than", *columns}
    assert answer["answer"]["differential"][0][0]["share"] > 0
    assert "not a medical device" in answer["disclaimer"]
    shown = client.get("/api/image", params={"image_id": hit["image_id"]})
    assert shown.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(shown.content)).size) <= 192
    case = client.get("/api/case", params={"image_id": hit["image_id"]}).json()
    assert case["case_id"] == hit["case_id"] and hit["image_id"] in case["images"]


def test_the_answer_is_that_of_the_library(client: TestClient, finder: CaseFinder, toy: CaseTable) -> None:
    paths = toy.part(c.TEST).paths[:2]
    expected = finder.search([open_image(path) for path in paths]).to_dict(paths=False)
    answer = post(client, *(path.read_bytes() for path in paths)).json()
    assert answer["hits"] == expected["hits"] and answer["answer"] == expected["answer"]


def test_filters_of_the_form(client: TestClient, finder: CaseFinder) -> None:
    name = finder.index.taxonomy.names(0)[0]
    found = post(client, png(), within=name, where=["fitzpatrick=1", "fitzpatrick=2"], per_condition=1).json()
    assert found["hits"] and {hit["path"][0] for hit in found["hits"]} == {name}
    assert {hit["fitzpatrick"] for hit in found["hits"]} <= {"1", "2"}
    assert len({hit["condition"] for hit in found["hits"]}) == len(found["hits"])


def test_images_of_the_index_and_words(client: TestClient, finder: CaseFinder) -> None:
    image_id = str(finder.index.frame[c.IMAGE_ID].iloc[0])
    hits = post(client, image_id=image_id, k=3).json()["hits"]
    assert len(hits) == 3 and image_id not in {hit["image_id"] for hit in hits}
    words = post(client, text="red papule").json()
    assert words["hits"] and words["answer"] is None


def test_why_a_case_is_near(client: TestClient, finder: CaseFinder, toy: CaseTable) -> None:
    test = toy.part(c.TEST)
    sent = [path.read_bytes() for path in test.paths[:2]]
    hit = post(client, *sent, k=1).json()["hits"][0]["image_id"]
    assert client.get("/api/info").json()["why"] is True
    files = [("image", ("x.png", content, "image/png")) for content in sent]
    answer = client.post("/api/why", files=files, data={"case": hit}).json()
    similar = finder.encoder.encode(list(test.paths[:2])) @ finder.index.vectors[finder.index.gallery.image_row(hit)]
    assert answer["image"] == int(np.argmax(similar)) and answer["hint"].startswith("A hint, not an explanation")
    for name in ("query", "case"):
        image = Image.open(io.BytesIO(base64.b64decode(answer[name].removeprefix("data:image/jpeg;base64,"))))
        assert image.format == "JPEG" and image.size == (640, 640)
    own = client.post("/api/why", data={"case": hit, "image_id": hit}, files={"none": (None, "")})
    assert own.status_code == 200 and own.json()["query"] == own.json()["case"]


def test_why_is_refused_clearly(finder: CaseFinder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image_id = str(finder.index.frame[c.IMAGE_ID].iloc[0])

    def ask(client: TestClient, **fields: str) -> tuple[int, str]:
        answer = client.post("/api/why", data=fields, files={"none": (None, "")})
        return answer.status_code, answer.json()["error"]

    with TestClient(create_app(finder)) as client:
        assert ask(client, case=image_id) == (422, "send 1 to 3 images, or 'image_id': one of them.")
        assert ask(client, case="x", image_id=image_id)[1].startswith("the index has no image 'x'")
        gallery = finder.index.gallery
        assert isinstance(gallery, MemoryGallery)
        gone = replace(gallery, image_root=str(tmp_path), frame=gallery.frame.assign(image_path="gone.png"))
        monkeypatch.setattr(finder.index, "gallery", gone)
        expected = (404, "an image of the index can't be read on the server.")
        assert ask(client, case=image_id, image_id=image_id) == expected


def test_a_model_without_words(finder: CaseFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder.encoder, "_text", [None])
    with TestClient(create_app(finder)) as client:
        assert client.get("/api/info").json()["text"] is False
        answer = post(client, text="red papule")
    assert answer.status_code == 422 and "its model has no text tower" in answer.json()["error"]


def test_info_and_map(client: TestClient, finder: CaseFinder) -> None:
    info = client.get("/api/info").json()
    assert (info["images"], info["cases"], info["text"]) == (len(finder.index), finder.index.n_cases, True)
    assert info["filters"]["fitzpatrick"] == ["1", "2", "3", "4", "5", "6"]
    for node in info["nodes"]:  # each is a filter
        assert post(client, png(), within=node["value"], k=1).json()["hits"], node
    assert sum(len(conditions) for conditions in info["tree"].values()) == len(set(finder.index.gallery.fine_at()))
    drawn = client.get("/api/map").json()
    assert len(drawn["looks"]) == len(drawn["names"]) == 3 and len({look["shape"] for look in drawn["looks"]}) == 3
    assert len(drawn["points"]) == len(drawn["images"]) == len(finder.index)
    x, y = post(client, png()).json()["place"]
    assert 0 <= x <= 1 and 0 <= y <= 1
    made = make_map(finder.index)
    nearest = made.place(made.vectors[[5]])
    assert np.linalg.norm(np.array(nearest) - made.points[5]) < 0.5


def test_an_image_unlike_the_index_is_refused(finder: CaseFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's validation cases are too few to refuse anything, which is said; with more of them a page is refused."""
    learnt = finder.index.calibration
    assert learnt is not None and learnt.likeness is not None
    with TestClient(create_app(finder)) as client:
        assert "never refused: 10 validation cases are too few" in client.get("/api/info").json()["unlike"]
        many = replace(learnt.likeness, embedding=(), look=tuple(k / 1000 for k in range(19)), n_cases=19)
        monkeypatch.setattr(finder.index, "calibration", replace(learnt, likeness=many))
        assert "are refused, and at most 5%" in client.get("/api/info").json()["unlike"]
        found = post(client, png()).json()
    read = found["answer"]
    assert read["unlike"] and read["node"] == "" and read["confidence"] is None and read["differential"] == [[], []]
    assert read["reason"].startswith("This image is unlike") and found["classifier"] is None and found["hits"]


def test_a_map_that_fails_stops_no_search(finder: CaseFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no map")

    monkeypatch.setattr(following, "make_map", broken)
    with TestClient(create_app(finder), raise_server_exceptions=False) as client:
        assert client.get("/api/map").status_code == 500
        answer = post(client, png())
        assert answer.status_code == 200 and answer.json()["place"] is None


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("/static/page.js", "/static/style.css"):
        found = client.get(name)
        assert found.status_code == 200 and name in page.text
        assert "//" not in found.text.replace("// ", "").replace("http://www.w3.org/2000/svg", "")
    assert "http" not in page.text
    assert client.get("/docs").status_code == 404  # FastAPI's page loads scripts from elsewhere
    assert client.get("/api/openapi.json").status_code == 404 and client.get("/openapi.json").status_code == 200


def test_no_path_of_the_server_is_exposed(client: TestClient, finder: CaseFinder, toy: CaseTable) -> None:
    image_id = str(finder.index.frame[c.IMAGE_ID].iloc[0])
    answers: list[Any] = [
        post(client, toy.paths[0].read_bytes()), post(client, b"no image"), post(client, image_id="../../etc/passwd"),
        client.get("/api/info"), client.get("/api/case", params={"image_id": image_id}), client.get("/api/map"),
        client.get("/api/case", params={"image_id": "x"}), client.get("/api/image", params={"image_id": "/etc/passwd"}),
        client.get("/static/../server.py"), client.get("/static/%2e%2e/server.py"),
    ]  # fmt: skip
    for answer in answers:
        assert str(toy.root) not in answer.text and str(Path(server.__file__).parent) not in answer.text
    assert [answer.status_code for answer in answers[-2:]] == [404, 404]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "1"])
def test_an_upload_is_read_as_its_file(tmp_path: Path, mode: str) -> None:
    pixels = np.arange(30 * 40 * 4, dtype=np.uint32).reshape(30, 40, 4) % 256
    image = Image.fromarray(pixels.astype(np.uint8))
    image = Image.fromarray((pixels[..., 0] * 257).astype(np.uint16)) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "x.png")
    assert decode((tmp_path / "x.png").read_bytes(), Limits()) == open_image(tmp_path / "x.png")


def test_an_image_that_went_missing_is_named_by_its_id(
    finder: CaseFinder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image_id = str(finder.index.frame[c.IMAGE_ID].iloc[0])
    gallery = finder.index.gallery
    assert isinstance(gallery, MemoryGallery)
    gone = replace(gallery, image_root=str(tmp_path), frame=gallery.frame.assign(image_path="gone.png"))
    monkeypatch.setattr(finder.index, "gallery", gone)
    with TestClient(create_app(finder)) as client:
        answer = client.get("/api/image", params={"image_id": image_id})
    assert answer.status_code == 404
    assert answer.json() == {"error": f"the image '{image_id}' can't be read on the server."}


@pytest.mark.parametrize(
    ("images", "fields", "status", "reason"),
    [
        ([b"GIF89a nonsense"], {}, 415, "not an image that can be read .15 bytes.. Those of JPEG, PNG, WEBP, AVIF, HEIF can"),
        ([png()[:60]], {}, 422, "the image is damaged"),
        ([header_of_a_huge_png()], {}, 413, "at most 1 megapixels"),
        ([header_of_a_huge_png(5_000)], {}, 413, "at most 1 megapixels, got 5000 x 5000"),
        ([png() + b"\0" * 300_000], {}, 413, "at most 0.2 MB"),
        ([png() + b"\0" * 3_000_000], {}, 413, "at most 0.2 MB"),
        ([png()] * 4, {}, 400, "Maximum number of files is 3"),
        ([], {}, 422, "send 1 to 3 images, or 'image_id', or 'text'"),
        ([png()], {"text": "both"}, 422, "one of them"),
        ([png()], {"k": "1000"}, 422, "k must be a whole number from 1 to 100, got '1000'"),
        ([png()], {"k": "ten"}, 422, "got 'ten'"),
        ([png()], {"aggregation": "sum"}, 422, "aggregation must be 'best' or 'mean'"),
        ([png()], {"within": "Nowhere"}, 422, "'Nowhere' is not a node"),
        ([png()], {"where": "image_path=x"}, 422, "where must be column=value"),
        ([png()], {"where": "fitzpatrick=9"}, 422, "has no value '9'"),
        ([], {"image_id": "x"}, 422, "has no image 'x'"),
    ],
)  # fmt: skip
def test_refusals(client: TestClient, images: list[bytes], fields: dict[str, str], status: int, reason: str) -> None:
    import re

    answer = post(client, *images, **fields)
    assert answer.status_code == status, answer.text
    assert re.search(reason, answer.json()["error"]), answer.text


def test_other_bodies_are_refused(client: TestClient) -> None:
    assert client.post("/api/search", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    broken = client.post("/api/search", content=b"x", headers={"content-type": "multipart/form-data; boundary=b"})
    assert broken.status_code == 400 and "could not be read" in broken.json()["error"]
    assert client.get("/api/image", params={"image_id": "x", "side": 31}).status_code == 422


def test_metadata_is_stripped_and_orientation_kept() -> None:
    image = Image.new("RGB", (40, 20), (10, 200, 10))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera with a serial number"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    clean = decode(buffer.getvalue(), SMALL)
    assert clean.size == (20, 40) and not clean.getexif() and not clean.info


def test_a_huge_image_takes_no_memory() -> None:
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(RefusedError, match="megapixels"):
        decode(header_of_a_huge_png(), Limits())
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_uploads_do_not_reach_the_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from tempfile import SpooledTemporaryFile

    rolled: list[int] = []
    monkeypatch.setattr(SpooledTemporaryFile, "rollover", lambda self: rolled.append(1))
    noisy = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 240, 3), dtype=np.uint8)).save(noisy, "PNG")
    assert len(noisy.getvalue()) > 150_000
    assert post(client, noisy.getvalue()).status_code == 200
    assert rolled == []


def test_only_named_hosts_are_answered(finder: CaseFinder) -> None:
    with TestClient(create_app(finder, hosts=("127.0.0.1",))) as client:
        assert client.get("/api/info", headers={"host": "evil.example"}).status_code == 400
        assert client.get("/api/info", headers={"host": "127.0.0.1:8000"}).status_code == 200


def test_a_failure_exposes_nothing(finder: CaseFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(routes, "find", broken)
    with TestClient(create_app(finder), raise_server_exceptions=False) as client:
        answer = post(client, png())
    assert answer.status_code == 500 and "/secret" not in answer.text


@pytest.fixture(scope="module")
def address(finder: CaseFinder) -> Iterator[str]:
    with serving(create_app(finder, limits=Limits(waiting=40))) as started:
        yield started


def test_twenty_at_once_are_not_mixed(address: str, finder: CaseFinder) -> None:
    """Each sends another image of the gallery, and must find that very image first."""
    rows = list(range(20))
    expected = [str(finder.index.frame[c.IMAGE_ID].iloc[row]) for row in rows]

    def ask(row: int) -> str:
        content = finder.index.gallery.image_paths([row])[0].read_bytes()
        answer = httpx2.post(f"{address}/api/search", files={"image": ("x.png", content)}, data={"k": "1"}, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["hits"][0]["image_id"])

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, rows)) == expected


def test_more_than_may_wait_are_refused_clearly(finder: CaseFinder) -> None:
    app = create_app(finder, limits=Limits(at_once=1, waiting=4))

    async def ask_all() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            files = {"image": ("x.png", png())}
            return await asyncio.gather(*(client.post("/api/search", files=files) for _ in range(20)))

    answers = asyncio.run(ask_all())
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503} and statuses.count(200) >= 5
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "5" and "too many searches are waiting" in refused.json()["error"]
    assert all(json.loads(answer.text) for answer in answers)


def test_a_slow_upload_is_given_up(finder: CaseFinder) -> None:
    app = create_app(finder, limits=Limits(seconds=0.2))

    async def dawdle() -> httpx2.Response:
        async def body() -> Any:
            yield b"--b\r\n"
            await asyncio.sleep(5)

        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"content-type": "multipart/form-data; boundary=b"}
            return await client.post("/api/search", content=body(), headers=headers)

    answer = asyncio.run(dawdle())
    assert answer.status_code == 408 and "more than 0.2 s" in answer.json()["error"]


@pytest.mark.parametrize("name", ["hf:", "timm:test_convnext"])
def test_searches_at_once_with_features_of_all_layers(
    name: str, toy: CaseTable, small_siglip: Path, tmp_path: Path
) -> None:
    """The vectors of all layers are collected while the blocks run: each request must get its own."""
    config = BackboneConfig(f"hf:{small_siglip}") if name == "hf:" else BackboneConfig(name, "random")
    backbone = load_backbone(config, "layers")
    save_model(Network(backbone, NetworkShape("linear", 24, classifier="cosine"), toy.taxonomy, 1), tmp_path / "model")
    CaseIndex.build(toy.select(np.arange(len(toy)) < 40), tmp_path / "model", k=5).save(tmp_path / "index")
    sent = [path.read_bytes() for path in toy.part(c.TEST).paths[:8]]

    def ask(client: TestClient, number: int) -> Any:
        answer = post(client, sent[number], k=5)
        assert answer.status_code == 200, answer.text
        return {key: answer.json()[key] for key in ("hits", "answer", "classifier")}

    with TestClient(create_app(CaseFinder.open(tmp_path / "index"), limits=Limits(at_once=8))) as client:
        alone = [ask(client, number) for number in range(8)]
        assert len({json.dumps(answer["hits"]) for answer in alone}) == 8
        for _ in range(3):
            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(lambda number: ask(client, number), range(8)))
            for one, expected in zip(found, alone, strict=True):
                assert one["hits"] == expected["hits"] and one["answer"] == expected["answer"]
                for level, same in zip(one["classifier"], expected["classifier"], strict=True):
                    assert [node["share"] for node in level] == pytest.approx([n["share"] for n in same], abs=2e-4)
