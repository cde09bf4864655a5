"""The house: its files agree with each other, and its rules of order hold."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = sorted((ROOT / "zeta_edu").rglob("*.py"))
# The block and its parts: torch, einops and each other.
CORE = ["block", "attention", "rotary", "norm", "feedforward", "lora", "cache", "recording"]
CORE += ["tiled", "ablation"]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def requirements(*groups: str) -> dict[str, Requirement]:
    lines = list(PROJECT["dependencies"]) if "core" in groups else []
    for group in groups:
        lines += PROJECT["optional-dependencies"].get(group, [])
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one for one in found if one.name != PROJECT["name"]}


def constraints() -> dict[str, Version]:
    pins = [Requirement(line) for line in read("constraints.txt").splitlines() if line[0] != "#"]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    return {canonicalize_name(pin.name): Version(str(pin.specifier)[2:]) for pin in pins}


def test_environment_file_asks_for_what_the_project_asks_for() -> None:
    lines = yaml.safe_load(read("environment.yml"))["dependencies"]
    conda = {one.name: str(one.specifier) for one in map(Requirement, lines)}
    assert conda.pop("python") == PROJECT["requires-python"]
    assert conda.pop("pip") == ""
    wanted = {
        name: str(one.specifier) for name, one in requirements("core", "notebooks", "train").items()
    }
    wanted["pytorch"] = wanted.pop("torch")
    assert conda == wanted


def test_binder_installs_the_same_with_one_python() -> None:
    mine, binder = (yaml.safe_load(read(f"{folder}environment.yml")) for folder in ("", ".binder/"))
    assert [name.replace(">=3.11", "=3.11") for name in mine.pop("dependencies")] == binder.pop(
        "dependencies"
    )
    assert mine == binder


def test_constraints_pin_all_that_is_asked_for_and_fit_it() -> None:
    pinned = constraints()
    for name, wanted in requirements("core", "notebooks", "train", "dev", "bench").items():
        assert name in pinned, f"{name} is not in constraints.txt"
        assert pinned[name] in wanted.specifier, f"{name} is pinned to {pinned[name]}"
    assert all(version.local is None for version in pinned.values())


def test_one_version_everywhere() -> None:
    import zeta_edu

    version = PROJECT["version"]
    assert zeta_edu.__version__ == version
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert f"## [{version}]" in read("CHANGELOG.md")


def test_the_readme_begins_with_the_two_commands() -> None:
    head = re.sub(r"^\[!\[.*\n", "", read("README.md"), flags=re.MULTILINE)  # without its badges
    assert head.index("make lab") < head.index("make test") < 200


@pytest.mark.parametrize(
    "lesson", sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.stem
)
def test_the_readme_shows_every_lesson_with_a_picture(lesson: Path) -> None:
    picture = f"docs/lessons/{lesson.name[:2]}.png"
    assert (ROOT / picture).exists()
    rows = [line for line in read("README.md").splitlines() if line.startswith("|")]
    (row,) = (line for line in rows if f"notebooks/{lesson.name}" in line)
    assert picture in row


def test_make_help_names_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", read("Makefile"), flags=re.MULTILINE)
    assert targets is not None
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    for target in set(targets.group(1).split()) - {"help"}:
        assert f"make {target} " in shown


@pytest.mark.parametrize(
    ("line", "loaded"),
    [
        ("import zeta_edu.cli; zeta_edu.cli.build_parser()", {"zeta_edu.cli"}),
        ("from zeta_edu import TransformerBlock", {"torch", "zeta_edu.block"}),
        ("from zeta_edu import load_pretrained", {"torch", "zeta_edu.lm.checkpoints"}),
    ],
)
def test_an_import_loads_what_it_needs_and_no_more(line: str, loaded: set[str]) -> None:
    program = f"import sys; {line}; print(*sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    late = {"torch", "matplotlib", "ipywidgets", "anywidget", "IPython", "tokenizers"}
    late |= {"zeta_edu.block", "zeta_edu.lm.model", "zeta_edu.views.display", "zeta_edu.exercises"}
    if "zeta_edu.lm.checkpoints" in loaded:
        loaded = loaded | {"zeta_edu.block", "zeta_edu.lm.model"}
    assert loaded <= set(shown)
    assert (late - loaded).isdisjoint(shown)


def test_every_public_name_is_found_and_no_other() -> None:
    import zeta_edu
    import zeta_edu.lm

    for package in (zeta_edu, zeta_edu.lm, zeta_edu.views):
        for name in package.__all__:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'transformer'"):
            package.transformer  # noqa: B018


def test_the_command_line_explains_itself_without_the_extras() -> None:
    program = (
        "import sys\n"
        "extras = 'matplotlib ipywidgets anywidget tokenizers tqdm jupyterlab'\n"
        "sys.modules.update(dict.fromkeys(extras.split()))\n"
        "from zeta_edu.cli import main\n"
        "main([])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a first hour:" in done.stdout


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [str(node.module), *names]


def imported_parts(path: Path) -> set[str]:
    names = [name.split(".") for name in imports(path)]
    return {name[1] for name in names if name[0] == "zeta_edu" and len(name) > 1}


@pytest.mark.parametrize("name", CORE)
def test_a_part_of_the_block_imports_torch_einops_and_other_parts(name: str) -> None:
    path = ROOT / "zeta_edu" / f"{name}.py"
    others = {module.split(".")[0] for module in imports(path)} - set(sys.stdlib_module_names)
    assert others <= {"torch", "einops", "jaxtyping", "zeta_edu"}
    assert imported_parts(path).isdisjoint({"lm", "views", "exercises", "cli", "lab"})
    if name not in ("block", "ablation"):
        assert "block" not in imported_parts(path)


@pytest.mark.parametrize(
    ("folder", "above"),
    [
        ("lm", {"views", "exercises", "cli", "lab"}),
        ("views", {"lm", "exercises", "cli", "lab"}),
        ("exercises", {"lm", "views", "cli", "lab"}),
    ],
)
def test_nothing_imports_upwards(folder: str, above: set[str]) -> None:
    for path in (ROOT / "zeta_edu" / folder).rglob("*.py"):
        assert imported_parts(path).isdisjoint(above), path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_fit_on_a_screen_or_two(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 310
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            written = lines[body[0].lineno - 1 : node.end_lineno] if body else []
            length = sum(not re.match(r"\s*(#|$)", line) for line in written)
            assert length <= 35, f"{node.name} has {length} lines of code"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_code_lessons_scripts_and_models(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {path.relative_to(ROOT).as_posix() for path in MODULES}
    for kind in ("zeta_edu/views/js/**/*.js", "zeta_edu/lm/shipped/**/*"):
        files = {path for path in ROOT.glob(kind) if path.is_file()}
        assert files, f"there is no {kind}"
        wanted |= {path.relative_to(ROOT).as_posix() for path in files}
    lessons = list((ROOT / "notebooks").glob("*.ipynb"))
    wanted |= {f"zeta_edu/notebooks/{path.name}" for path in lessons}
    assert wanted <= names
    assert not [name for name in names if "/source/" in name or name.endswith("build.py")]
    assert {name.split("/")[0] for name in names} == {
        "zeta_edu",
        f"zeta_edu-{PROJECT['version']}.dist-info",
    }


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import zeta_edu; from zeta_edu import lab\n"
        "model, tokenizer = zeta_edu.load_pretrained('python-small')\n"
        "print(zeta_edu.__file__, lab.find_lessons(), len(tokenizer), sep='\\n')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "installed")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    package, lessons, size = done.stdout.split("\n")[:3]
    assert package.startswith(str(tmp_path))
    assert lessons == str(tmp_path / "installed" / "zeta_edu" / "notebooks")
    assert int(size) > 256


def test_annotated_shapes_are_the_true_ones() -> None:
    program = (
        "import tests.typechecking\nfrom jaxtyping import install_import_hook\n"
        f"names = [f'zeta_edu.{{name}}' for name in {[*CORE, 'lm.model', 'lm.generation']}]\n"
        "install_import_hook(names, 'tests.typechecking.check')\n"
        "import itertools, torch\n"
        "from zeta_edu import LoRA, TransformerBlock, TransformerLM, record_attention\n"
        "torch.manual_seed(0)\n"
        "mask = torch.ones(2, 6, dtype=torch.bool)\n"
        "for kv, flash, norm, xpos in itertools.product((1, 2, 4), *3 * [(False, True)]):\n"
        "    block = TransformerBlock(8, dim_head=4, heads=4, kv_heads=kv, flash_attn=flash,\n"
        "                             qk_rmsnorm=norm, use_xpos=xpos)\n"
        "    x, cache = torch.randn(2, 6, 8, requires_grad=True), block.new_cache(2)\n"
        "    block(x, mask).sum().backward()\n"
        "    with torch.no_grad(), record_attention(block) as record:\n"
        "        block(x[:, :4], cache=cache), block(x[:, 4:], mask, cache=cache)\n"
        "    assert record[1].shape == (2, 4, 2, 6)\n"
        "loras = [LoRA(8, 16, 2), LoRA(8, 4, 2), LoRA(8, 4, 2), LoRA(16, 8, 2)]\n"
        "TransformerBlock(8, dim_head=4, heads=4, finetune_modules=tuple(loras))(x)\n"
        "model = TransformerLM(num_tokens=11, dim=8, depth=2, dim_head=4, heads=2)\n"
        "model(torch.randint(11, (2, 6)))\n"
        "model.generate(torch.randint(11, (1, 3)), 4, seed=0)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_what_github_reads_follows_its_schema(schema: str, files: str) -> None:
    found = sorted(map(str, ROOT.glob(files)))
    assert found
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *found], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_workflows_call_what_is_there() -> None:
    """Every command line in a workflow that names a file or an extra of the project."""
    extras = PROJECT["optional-dependencies"]
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        lines = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
        for word in " ".join(lines).split():
            for group in re.findall(r"[.)]\[([a-z,]+)\]", word):
                assert set(group.split(",")) <= set(extras), (path.name, word)
            if word.startswith(("tests/", "--ignore=", ".ci/")):
                assert (ROOT / word.removeprefix("--ignore=")).exists(), (path.name, word)
