"""Everything the package reads: a sample of each, and what a reader may not accept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.soak.fuzz import Target

SCIN_CASES = """\
case_id,fitzpatrick_skin_type,body_parts_arm,image_1_path,image_2_path,image_3_path
-1000600354148496558,FST3,YES,dataset/images/-11.png,dataset/images/22.png,
9007199254740993,NONE_IDENTIFIED,,dataset/images/33.png,,
77,,,dataset/images/44.png,,
"""
SCIN_LABELS = """\
case_id,dermatologist_skin_condition_on_label_name,weighted_skin_condition_label,monk_skin_tone_label_us
-1000600354148496558,"['Eczema', 'Psoriasis']","{'Eczema': 0.67, 'Psoriasis': 0.33}",4
9007199254740993,['Acne'],{'Acne': 1.0},2.0
77,[],{},
"""
FITZPATRICK = """\
md5hash,fitzpatrick_scale,label,nine_partition_label,qc
5e82a45bc5d78bd24ae9202d194423f8,3,psoriasis,inflammatory,
fa2911a9b13b6f8af79cb700937cc14f,-1,lichen planus,inflammatory,1 Diagnostic
d2bac3c9e4499032ca8e9b07c7d3bc40,5,eczema,inflammatory,3 Wrong
"""
QUERY = {"within": ["confluent patch"], "where": {"monk": ["3", 4], "body_site": "arm"}, "k": 3}


def targets(folder: Path) -> list[Target]:
    """Every reader whose sample `samples` has made in `folder`."""
    return [target for target in [*_tables(folder), *_own(folder), *_served(folder)] if target.sample.exists()]


def _tables(folder: Path) -> list[Target]:
    """What users bring."""
    from hierderm.config.loading import load_settings
    from hierderm.data.checks import read_cases
    from hierderm.data.image_io import open_image
    from hierderm.data.loaders.registry import LOADERS
    from hierderm.embeddings import embeddings_of
    from hierderm.taxonomy.file import read_taxonomy

    toy = folder / "toy"
    tree = read_taxonomy(toy / "taxonomy.csv")
    table = read_cases(toy / "cases.csv", tree, decode=False)

    def cases(path: Path) -> str:
        found = read_cases(path, tree, image_root=toy, decode=False).frame
        if not (found["image_id"] + found["case_id"]).map(str.isprintable).all():
            return "an id with signs that can't be seen"
        return "ids occur twice" if found["image_id"].duplicated().any() else ""

    def published(name: str, **options: Any) -> Callable[[Path], str]:
        return lambda path: "" if len(LOADERS[name](path, **options).frame) else "no rows"

    def image(path: Path) -> str:
        return "" if open_image(path).mode == "RGB" else "not RGB"

    def vectors(path: Path) -> str:
        return _unsound(embeddings_of(path, table).embeddings)

    return [
        Target("taxonomy", toy / "taxonomy.csv", lambda path: "" if read_taxonomy(path).n_levels else "no level"),
        Target("case table", toy / "cases.csv", cases),
        Target("case table, Parquet", folder / "cases.parquet", cases),
        Target("settings", folder / "small.toml", lambda path: "" if load_settings(path) else "no settings"),
        Target("embeddings .npy", folder / "vectors.npy", vectors),
        Target("data scin", folder / "scin", published("scin")),
        Target("data fitzpatrick17k", folder / "fitzpatrick17k.csv", published("fitzpatrick17k", images=toy)),
        Target("data folder", folder / "folders", published("folder")),
        *(Target(f"image {path.suffix}", path, image) for path in sorted((folder / "pictures").glob("*"))),
    ]


def _own(folder: Path) -> list[Target]:
    """What the package has written, and a model of the hub."""
    from hierderm.embeddings import EmbeddingTable
    from hierderm.experiment.results import Results
    from hierderm.experiment.run import Run
    from hierderm.search.case_index import CaseIndex

    query = np.asarray(EmbeddingTable.load(folder / "vectors").embeddings[:1])
    skin = Image.new("RGB", (40, 40), (200, 120, 100))

    def vectors(path: Path) -> str:
        found = EmbeddingTable.load(path)
        return _unsound(found.embeddings) or ("ids occur twice" if found.frame["image_id"].duplicated().any() else "")

    def index(path: Path) -> str:
        found = CaseIndex.open(path)
        hits = found.search(query[:, : found.vectors.shape[1]], k=3).to_pandas()
        return "a similarity is above 1 or not a number" if not (hits["similarity"].abs() < 1.001).all() else ""

    def model(path: Path) -> str:
        import hierderm

        return _unsound(hierderm.load(path if path.suffix != ".hf" else f"hf:{path}").encode(skin))

    def run(path: Path) -> str:
        found = Run.open(path)
        _ = found.table, found.config
        return "" if found.seconds >= 0 and len(found.history) else "a run without a history"

    return [
        Target("embeddings folder", folder / "vectors", vectors, sealed=True),
        Target("index", folder / "index", index, sealed=True),
        Target("index, HNSW", folder / "hnsw", index, sealed=True),
        Target("model", folder / "run" / "model", model, sealed=True),
        Target("model of the hub", folder / "siglip.hf", model),
        Target("run", folder / "plain_run", run),
        Target("results", folder / "results", lambda path: "no rows" if Results.open(path).to_pandas().empty else ""),
        Target("checkpoints", folder / "gradient" / "checkpoints", _checkpoints(folder / "gradient" / "checkpoints")),
    ]


def _checkpoints(sample: Path) -> Callable[[Path], str]:
    """Whether resuming and the end of a training get an epoch as it was saved, or none."""
    import torch

    from hierderm.errors import CheckpointError
    from hierderm.training.gradient.checkpoints import Checkpoints

    def read(path: Path) -> str:
        found, whole = Checkpoints(path), Checkpoints(sample).resumed()
        assert whole is not None
        state = torch.load(whole, weights_only=True)
        score = next(float(v["best_model_score"]) for name, v in state["callbacks"].items() if "BestEpoch" in name)
        states = []
        if (resumed := found.resumed()) is not None:
            states.append((torch.load(resumed, weights_only=True), sample / resumed.name))
        try:
            states.append((found.best(score), sample / "best.ckpt"))
        except CheckpointError:
            if not states:
                raise
        for state, origin in states:
            weights = torch.load(origin, weights_only=True)["state_dict"]
            if any(not torch.equal(weights[name], value) for name, value in state["state_dict"].items()):
                return f"other weights than those of {origin.name}"
        return ""

    return read


def _served(folder: Path) -> list[Target]:
    """What comes to a search: filters, and uploads to the page."""
    from fastapi.testclient import TestClient

    from hierderm.app.server import create_app
    from hierderm.errors import SearchError
    from hierderm.search.case_index import CaseIndex
    from hierderm.search.finder import CaseFinder

    index = CaseIndex.open(folder / "index")
    page: list[TestClient] = []

    def query(path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise SearchError("no query")  # of the file, which no reader of the package is asked for
        return content

    def filters(path: Path) -> str:
        asked = query(path)
        found = index.search(index.vectors[:1], k=3, within=asked.get("within"), where=asked.get("where"))
        return "" if np.isfinite(found.similarity[found.rows >= 0]).all() else "no similarity"

    def upload(fields: dict[str, Any], files: list[tuple[str, Any]]) -> str:
        if not page:
            page.append(TestClient(create_app(CaseFinder.open(folder / "index")), raise_server_exceptions=False))
        answer = page[0].post("/api/search", data=fields, files=files)
        if answer.status_code >= 500:
            return f"the page answers {answer.status_code}: {answer.text[:200]}"
        if answer.status_code >= 400:
            raise SearchError(answer.text)
        return ""

    def form(path: Path) -> str:
        asked = query(path)
        where, within = asked.get("where"), asked.get("within")
        cells = where.items() if isinstance(where, dict) else [("monk", where)]
        pairs = [f"{name}={one}" for name, values in cells for one in _listed(values)]
        fields = {"k": str(asked.get("k", 3)), "within": _listed(within), "where": pairs}
        return upload(fields, [("image", ("x.jpg", (folder / "pictures" / "sample.jpg").read_bytes()))])

    def picture(path: Path) -> str:
        return upload({"k": "3"}, [("image", (path.name, path.read_bytes()))])

    served = [Target("page, form", folder / "query.json", form)]
    served += [Target("page, image", folder / "pictures" / f"sample{suffix}", picture) for suffix in (".jpg", ".png")]
    return [
        Target("filters", folder / "query.json", filters),
        *(served if index.about.model else []),
    ]


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _unsound(vectors: Any) -> str:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        return "vectors that are not finite"
    return "" if np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3) else "vectors that have no unit length"


# --- samples -----------------------------------------------------------------------------------------------------


def samples(folder: Path, command: Callable[[list[str], Path], tuple[int | None, float, str]]) -> None:
    """Make a sample of everything the package reads, with its own commands."""
    from benchmarks.soak.kills import BUILD, DATA, EMBED, GRADIENT, SMALL, inputs
    from hierderm.model.tiny import FOLDER

    inputs(folder, command)
    for words in (
        EMBED,
        BUILD,
        [*BUILD[:-1], "hnsw", "--kind", "hnsw"],
        ["train", *DATA, "--training.views", "0", "-o", "run"],
        ["train", *DATA, *GRADIENT, "-o", "gradient"],
        ["bench", "run", "-m", "colour", *DATA, *SMALL, "-o", "bench"],
    ):
        status, _, text = command(words, folder)
        if status:
            raise RuntimeError(f"'{' '.join(words)}' fails:\n{text}")
    keep = shutil.ignore_patterns("model", "features", "images", "synthetic", "embeddings", "*.png")
    shutil.copytree(folder / "run", folder / "plain_run", ignore=keep)
    shutil.copytree(folder / "bench", folder / "results", ignore=keep)
    shutil.copytree(FOLDER, folder / "siglip.hf")
    plain_samples(folder)


def plain_samples(folder: Path) -> None:
    """Samples of files that need no command, from the toy and its embeddings in `folder`."""
    import pandas as pd

    np.save(folder / "vectors.npy", np.load(folder / "vectors" / "embeddings.npy"))
    pd.read_csv(folder / "toy" / "cases.csv", dtype=str).to_parquet(folder / "cases.parquet")
    (folder / "scin").mkdir()
    for name, text in (
        ("scin/scin_cases", SCIN_CASES),
        ("scin/scin_labels", SCIN_LABELS),
        ("fitzpatrick17k", FITZPATRICK),
    ):
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    (folder / "query.json").write_text(json.dumps(QUERY), encoding="utf-8")
    picture = Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    (folder / "pictures").mkdir()
    for suffix in (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif"):
        picture.save(folder / "pictures" / f"sample{suffix}")
    for name in ("red/rose", "red/ruby", "blue/sky"):
        (folder / "folders" / name).mkdir(parents=True)
        picture.save(folder / "folders" / name / "p1_1.png")
