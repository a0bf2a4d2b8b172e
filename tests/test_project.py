"""The project holds together: pins, environments, import order, notebooks, licence, citations."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from xai_lib import __version__
from xai_lib.errors import EXTRAS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[!.]*.ipynb"))
PACKAGE = ROOT / "xai_lib"


def tracked_files():
    """Return the text files that git would commit from this checkout."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    files = [ROOT / name for name in names] or [p for p in ROOT.rglob("*.py") if p.is_file()]
    binary = {".safetensors", ".png", ".pdf", ".npz", ".jpg", ".parquet"}
    return [path for path in files if path.is_file() and path.suffix not in binary]


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line)


def requirements(extra=None):
    """Return what the core or an extra needs; the extra dev names others, which are looked up."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    found = [Requirement(line) for line in lines]
    within = [inner for r in found if r.name == PROJECT["name"] for inner in r.extras]
    plain = [requirement for requirement in found if requirement.name != PROJECT["name"]]
    return plain + [requirement for inner in within for requirement in requirements(inner)]


def names(*extras):
    return {canonicalize_name(r.name) for extra in extras for r in requirements(extra)}


def test_constraints_are_plain_pins_that_satisfy_the_project():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][A-Za-z0-9.]*", line), line
    pinned = pins()
    assert not {"pip", "setuptools", "xai-lib"} & set(pinned)
    for requirement in requirements() + requirements("dev"):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement} but {version} is pinned"


def test_environment_yml_is_the_same_environment():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (nested,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    (python,) = [entry.removeprefix("python") for entry in plain if entry.startswith("python")]
    assert SpecifierSet(python) == SpecifierSet(PROJECT["requires-python"])
    assert set(plain) == {f"python{python}", "pip"} and environment["name"] == PROJECT["name"]
    assert nested == ["-c constraints.txt", "-e .[dev]"]
    stack = {"jupyterlab", "ipywidgets", "torch", "transformers", "timm", "matplotlib", "seaborn"}
    assert stack | {"papermill"} <= names(None, "dev")


def test_make_installs_the_workbook_without_what_tests_need():
    """Each set of packages has its own stamp; a report asks for the smaller one."""
    make = (ROOT / "Makefile").read_text()
    rules = dict(re.findall(r"^(\S+):[ \t]*([^#\n]*?)[ \t]*(?:## .*)?$", make, re.MULTILINE))
    assert rules["report"] == rules["lab"] == "$(WORKBOOK)" and rules["lint"] == "$(DEV)"
    assert rules["test"] == rules["check"] == "lint"
    assert "-c constraints.txt" in make and "-e '.[workbook]'" in make and "-e '.[dev]'" in make
    assert not names(None, "workbook") & {"pytest", "captum", "playwright", "accelerate"}


def test_extras_and_python_range():
    offered = {*EXTRAS, "jax", "dev"}
    assert set(PROJECT["optional-dependencies"]) == offered
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [v for v in range(9, 17) if supported.contains(f"3.{v}")] == [11, 12, 13]
    assert names(*EXTRAS) <= names("dev")


def test_every_third_party_import_is_a_dependency():
    """Whatever the package imports is declared, so that no transitive install is relied on.

    What only an extra brings is imported by the core nowhere at the top of a module, and each
    `needs_extra` names a package of its extra.
    """
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    for path in PACKAGE.rglob("*.py"):
        for name in imported_modules(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "xai_lib":
                continue
            found = {canonicalize_name(owner) for owner in owners.get(top, [top])}
            assert found & names(None, *EXTRAS), f"{path.name} imports {top}"
        for extra, packages in re.findall(r"needs_extra\((\"\w+\"), ([^)]+)\)", path.read_text()):
            tops = {owners.get(top, [top])[0] for top in re.findall(r'"(\w+)"', packages)}
            assert {canonicalize_name(top) for top in tops} <= names(extra.strip('"')), path


def test_every_third_party_import_of_tests_and_scripts_is_a_dependency():
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    declared = names(None, "dev")
    files = [path for folder in ("tests", "data_scripts") for path in (ROOT / folder).rglob("*.py")]
    local = {path.stem for path in files} | {path.parent.name for path in files}
    local |= {"xai_lib", "benchmarks"}
    for path in files:
        for name in imported_modules(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in local:
                continue
            found = {canonicalize_name(owner) for owner in owners.get(top, [top])}
            assert found & declared, f"{path.name} imports {top}: add it to the extra dev"


def imported_modules(path):
    """Return the absolute names of all modules that a file imports, at its top or later."""
    inside = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else Path(path.name)
    package = ["xai_lib", *inside.parent.parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            if source == "xai_lib":
                found += [f"{source}.{alias.name}" for alias in node.names]
            else:
                found.append(source)
    return found


def test_nothing_names_a_registry_host():
    hosts = ["pypi" + ".org", "python" + "hosted.org", "download.py" + "torch.org"]
    hosts += ["registry.npm" + "js.org", "conda.ana" + "conda.org", "index" + "-url"]
    for path in tracked_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [host for host in hosts if host in text], path


def test_nothing_opens_a_pickle():
    opened = re.compile(
        r"\bpickle\.loads?\(|\bjoblib\.load\(|allow_" r"pickle\s*=\s*True|read_pickle\("
    )
    torch_load = re.compile(r"\btorch\.load\((?![^)]*weights_only\s*=\s*True)")
    for path in tracked_files():
        if path.suffix in (".py", ".ipynb") and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            assert not opened.search(text) and not torch_load.search(text), path


def test_weights_fit_their_budget():
    size = sum(path.stat().st_size for path in (PACKAGE / "weights").glob("*"))
    assert size <= 20 * 2**20


def test_licence_and_citations():
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License") and "2026 xai-lib founders" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["license"] == PROJECT["license"] == "MIT"
    assert citation["version"] == __version__
    # What a reference may hold is closed in the Citation File Format 1.2.0; of that, what we use.
    needed = {"type", "abbreviation", "title", "authors", "year"}
    allowed = {"collection-title", "journal", "publisher", "volume", "issue", "start", "end", "doi"}
    for reference in citation["references"]:
        assert needed <= set(reference) <= needed | allowed | {"notes"}, reference["title"]
        assert reference["type"] in {"article", "book", "conference-paper"}
    titles = [reference["title"] for reference in citation["references"]]
    assert len(titles) == len(set(titles)) >= 16


def test_the_changelog_has_the_version_and_what_is_to_come():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)[:2] == ["Unreleased", __version__]


def test_links_between_pages_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
    for page in (*pages, *PACKAGE.glob("*/README.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_ci_runs_what_make_test_runs_on_every_python():
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    supported = SpecifierSet(PROJECT["requires-python"])
    versions = [f"3.{minor}" for minor in range(9, 17) if supported.contains(f"3.{minor}")]
    assert job["strategy"]["matrix"]["python"] == versions
    assert job["steps"][-1] == {"run": ".ci/run"} and "make test" in (ROOT / ".ci/run").read_text()


def test_every_method_cites_a_reference():
    from xai_lib.errors import OptionError
    from xai_lib.explainers.citations import citation, references
    from xai_lib.explainers.registry import all_methods

    for method in all_methods().values():
        assert re.fullmatch(r"\w[^,]+, [^,]+ (19|20)\d\d", method.citation), method.citation
    assert citation("chefer2021cvpr") == "Chefer et al., CVPR 2021"
    assert citation("simonyan2014") == "Simonyan et al., ICLR-W 2014"
    assert citation("wu2021") == "Wu & Ong, arXiv 2021"
    assert citation("holm1979") == "Holm, Scandinavian Journal of Statistics 1979"
    with pytest.raises(OptionError, match="Did you mean 'chefer2021cvpr'"):
        citation("chefer2021cvp")
    listed = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert len(references()) == len(listed), "every reference has a key of its own"


def test_explaining_reads_no_citation():
    script = (
        "import sys; from xai_lib.explainers.registry import find; find('lrp', {});"
        "from xai_lib.explainers.citations import references;"
        "sys.exit(references.cache_info().misses)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):", text, re.MULTILINE)
    documented = re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE)
    assert set(targets) == set(documented) >= {"report", "test", "check", "bench", "lab", "lint"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_thin_clean_and_opens_in_colab(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        assert not cell.outputs and cell.execution_count is None, "strip it with nbstripout"
        assert len(cell.source.splitlines()) <= 25, "a longer cell belongs in the library"
    assert "find_spec" in code[0].source and "pip install" in code[0].source
    assert not re.search(r"pip install.*torch", code[0].source), "Colab's own torch must stay"
    assert "released package" in code[0].source and "pip install -e ." in code[0].source
    # The pictures of the model that was loaded, which the profile decides.
    assert not any("sample_images(model" in cell.source for cell in code)
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and re.search(r"^profile\s*=", tagged[0].source, re.MULTILINE)
    assert notebook.cells[0].cell_type == "markdown" or notebook.cells[0] is code[0]
