"""What stands around the code: workflows, forms, and the versions that they repeat."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import yolox
from tests.runs import REPO
from yolox.tools.door import COMMANDS

FORMS = sorted((REPO / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((REPO / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (REPO / "Makefile").read_text(), re.M))
PROSE = ("CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


def test_there_is_what_is_looked_for() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "lint", "tests"]
    assert [path.stem for path in FORMS] == ["bug", "config", "feature"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_make_with_targets_that_there_are(workflow: Path) -> None:
    content = read(workflow)
    assert content[True].keys() >= {"push", "pull_request"}  # YAML 1.1 reads `on` as true
    assert content["permissions"] == {"contents": "read"}
    called = re.findall(r"make ([\w-]+)", " ".join(step.get("run", "") for step in steps(workflow)))
    assert called
    assert set(called) <= TARGETS
    for job in content["jobs"].values():
        assert "runs-on" in job
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_tests_run_on_the_oldest_python_that_is_supported() -> None:
    versions = read(REPO / ".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    required = re.search(r'requires-python = ">=([\d.]+)"', (REPO / "pyproject.toml").read_text())
    assert required
    assert versions["python"] == [required[1], "3.13"]


def test_the_example_in_cpp_is_compiled_there() -> None:
    runs = [step.get("run", "") for step in steps(REPO / ".github/workflows/tests.yml")]
    assert any("libopencv-dev" in run for run in runs)


@pytest.mark.parametrize("form", [form for form in FORMS if form.stem != "config"], ids=str)
def test_forms_have_what_a_form_needs(form: Path) -> None:
    content = read(form)
    assert {"name", "description", "body"} <= content.keys()
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    ids = [field["id"] for field in fields]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_the_bug_form_asks_for_the_environment() -> None:
    body = {field["id"]: field for field in read(REPO / ".github/ISSUE_TEMPLATE/bug.yml")["body"]}
    assert "yolox env" in body["env"]["attributes"]["label"]
    assert body["env"]["validations"]["required"]


def test_versions_are_those_of_the_package() -> None:
    assert str(read(REPO / "CITATION.cff")["version"]) == yolox.__version__
    pinned = re.search(r"^ruff==(.+)$", (REPO / "constraints.txt").read_text(), re.M)
    repos = {repo["repo"]: repo for repo in read(REPO / ".pre-commit-config.yaml")["repos"]}
    hooks = repos["https://github.com/astral-sh/ruff-pre-commit"]
    assert pinned
    assert hooks["rev"] == f"v{pinned[1]}"
    assert [hook["id"] for hook in hooks["hooks"]] == ["ruff", "ruff-format"]
    assert f"## {yolox.__version__}" in (REPO / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PROSE)
def test_files_and_commands_that_are_named_are_there(page: str) -> None:
    text = (REPO / page).read_text(encoding="utf-8")
    paths = re.findall(r"(?<![\w/.*])((?:yolox|tests|docs|exps|benchmarks|tools)/[\w/.-]*\w)", text)
    assert [path for path in paths if not (REPO / path).exists()] == []
    assert set(re.findall(r"make ([a-z][\w-]+)`", text)) <= TARGETS
    assert set(re.findall(r"`yolox ([a-z][\w-]+)", text)) <= COMMANDS.keys()


def private_names(tree: ast.AST) -> set[str]:
    """Names with a leading underscore that a module gives to functions, classes and values."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return {name for name in names if re.fullmatch(r"_[A-Za-z]\w*", name)}


def reached_into(tree: ast.AST, private: set[str]) -> set[str]:
    """Which of the package's private names a test imports, replaces or asks an object for."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("yolox"):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value.rpartition(".")[2]} if node.value.startswith("yolox.") else set()
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            found |= {arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)}
    return (found & private) - private_names(tree)


def test_tests_use_public_names_alone() -> None:
    code = {
        folder: [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in files]
        for folder in ("yolox", "tests")
        for files in [sorted((REPO / folder).rglob("*.py"))]
    }
    private = set[str]().union(*(private_names(tree) for _, tree in code["yolox"]))
    private -= {"_config"}  # of a process of multiprocessing, too
    found = {
        str(path.relative_to(REPO)): names
        for path, tree in code["tests"]
        if (names := reached_into(tree, private))
    }
    assert private
    assert found == {}
