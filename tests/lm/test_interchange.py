"""Models for others: on a hub, and as a graph."""

import subprocess
import sys

import pytest
import torch

from zeta_edu.lm import load_model, save_model
from zeta_edu.lm.export import export_model

hub = pytest.importorskip("zeta_edu.lm.hub", reason="huggingface_hub is not installed")


def test_a_saved_hub_model_comes_back_with_its_tokenizer(model, tmp_path):
    hub.HubTransformerLM.of(model).save_pretrained(tmp_path)
    loaded = hub.HubTransformerLM.from_pretrained(str(tmp_path))
    tokens = torch.tensor([[1, 2, 3]])
    assert loaded(tokens).equal(model(tokens))
    assert loaded.tokenizer.encode("def") == model.tokenizer.encode("def")
    assert load_model(tmp_path)(tokens).equal(model(tokens))


def test_a_folder_of_save_model_is_one_for_the_hub(model, tmp_path):
    save_model(model, tmp_path)
    loaded = hub.HubTransformerLM.from_pretrained(str(tmp_path))
    assert loaded.config == model.config
    assert not loaded.training


def test_a_model_is_downloaded_whole_and_nothing_else(model, tmp_path, monkeypatch):
    save_model(model, tmp_path)
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    loaded = hub.HubTransformerLM._from_pretrained(model_id="someone/model", revision="v1")
    assert loaded.config == model.config
    assert asked["name"] == "someone/model"
    assert asked["revision"] == "v1"
    wanted = ["config.json", "tokenizer.json", "model.safetensors"]
    assert asked["allow_patterns"] == wanted


def test_a_pushed_model_is_the_folder_that_save_model_writes(model, monkeypatch):
    from huggingface_hub import hub_mixin

    seen = {}

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **_):
            return type("Repo", (), {"repo_id": repo_id})()

        def upload_folder(self, *, folder_path, repo_id, **_):
            seen[repo_id] = load_model(folder_path)

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    hub.HubTransformerLM.of(model).push_to_hub("someone/model")
    tokens = torch.tensor([[1, 2, 3]])
    assert seen["someone/model"](tokens).equal(model(tokens))


def test_without_the_package_a_sentence_says_so():
    program = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "import zeta_edu.lm.model, zeta_edu.lm.checkpoints\n"
        "try:\n    import zeta_edu.lm.hub\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("the huggingface_hub package is missing"), done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_model_reads_any_batch_and_length(model, tmp_path):
    export_model(model.train(), tmp_path / "model.pt2", longest=100)
    assert model.training
    program = torch.export.load(tmp_path / "model.pt2").module()
    model.eval()
    for shape in ((1, 1), (3, 7), (2, 100)):
        tokens = torch.randint(300, shape)
        torch.testing.assert_close(program(tokens), model(tokens))


def test_a_length_beyond_the_graph_is_refused(model):
    for longest in (2, 8193):
        with pytest.raises(ValueError, match=f"longest must lie between 3 and 8192, got {longest}"):
            export_model(model, longest=longest)
