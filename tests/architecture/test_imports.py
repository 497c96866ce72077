"""The shape of the code, read from its syntax trees: where imports point, how long things are, what is banned."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A package may import itself and those to its right.
ORDER = ("bench", "deploy", "searchkit")
FILES = sorted(path for package in ORDER for path in (ROOT / package).rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
VAGUE = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers", "core", "base", "tools"}
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
BANNED_CALLS = {"eval", "exec", "compile", "torch.load", "tempfile.mktemp", "os.system", "os.popen"}
BANNED_METHODS = {"extractall", "unsafe_load", "load_lib"}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}
TREES = {name: ast.parse(path.read_bytes(), str(path)) for name, path in MODULES.items()}


@pytest.fixture(params=sorted(MODULES), ids=str)
def module(request):
    return request.param


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(module, *, at_module_level):
    """(line, name) of what a module imports; names of our own modules in full."""
    found = []

    def visit(node, in_function):
        if is_type_checking(node):
            return
        if isinstance(node, ast.Import | ast.ImportFrom) and in_function != at_module_level:
            found.extend((node.lineno, name) for name in imported(module, node))
        inner = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    visit(TREES[module], False)
    return found


def imported(module, node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        is_package = MODULES[module].name == "__init__.py"
        parts = module.split(".")
        kept = parts[: len(parts) - node.level + is_package]
        base = ".".join([*kept, node.module] if node.module else kept)
    # `from package import module` imports the module.
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_everything_is_looked_at():
    assert len(FILES) > 50
    assert {"searchkit.cli", "deploy.bundle", "bench.cli", "searchkit.spaces.ssr"} <= set(MODULES)
    assert (4, "searchkit") not in imports("searchkit.cli", at_module_level=True)
    level = {name for _, name in imports("deploy.export", at_module_level=True)}
    assert {"searchkit.errors", "deploy.bundle", "deploy.verify"} <= level
    assert "deploy.export" in {name for _, name in imports("searchkit.export_cli", at_module_level=False)}


def test_arrows_point_one_way(module):
    package = module.split(".")[0]
    higher = ORDER[: ORDER.index(package)]
    wrong = [(line, name) for line, name in imports(module, at_module_level=True) if name.split(".")[0] in higher]
    # The commands are the edge: they reach for what they run, inside their functions.
    if module != "searchkit.cli" and not module.endswith("_cli"):
        inside = imports(module, at_module_level=False)
        wrong += [(line, name) for line, name in inside if name.split(".")[0] in higher]
    assert not wrong


def test_no_cycles():
    """At module level; a package's `__init__` counts as imported with each of its modules."""
    edges = {}
    for module in MODULES:
        names = {name for _, name in imports(module, at_module_level=True) if name in MODULES}
        edges[module] = names - {module}
    done, path = set(), []

    def visit(module):
        if module in path:
            raise AssertionError(" -> ".join([*path[path.index(module) :], module]))
        if module not in done:
            path.append(module)
            for name in sorted(edges[module]):
                visit(name)
            done.add(path.pop())

    for module in sorted(MODULES):
        visit(module)
    assert len(done) == len(MODULES)


def test_length(module):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines < MAX_FILE_LINES
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions(TREES[module])
        if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


def is_public(node):
    """An overload has the docstring of what it is an overload of."""
    overload = any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
    return not node.name.startswith("_") and not overload


def test_docstrings(module):
    tree = TREES[module]
    missing = [] if ast.get_docstring(tree) or not tree.body else [module]
    body = [] if module.rpartition(".")[2].startswith("_") else tree.body
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and is_public(node):
            missing += [] if ast.get_docstring(node) else [f"{node.name}, line {node.lineno}"]
    assert not missing


def test_annotations(module):
    bare = []
    for node in functions(TREES[module]):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments += [a for a in (node.args.vararg, node.args.kwarg) if a]
        unannotated = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        if unannotated or node.returns is None:
            bare.append((node.lineno, node.name, unannotated))
    assert not bare


def banned_in(tree):
    """(line, what) of every banned construct."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [(node.lineno, name) for name in names if name.split(".")[0] in BANNED_MODULES]
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append((node.lineno, "bare except"))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in BANNED_CALLS or called.rpartition(".")[2] in BANNED_METHODS:
                found.append((node.lineno, called))
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                if (keyword.arg, value) in (("shell", "True"), ("allow_pickle", "True"), ("weights_only", "False")):
                    found.append((node.lineno, f"{keyword.arg}={value}"))
    return found


def test_nothing_banned(module):
    assert not banned_in(TREES[module])


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "torch.load(path)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "archive.extractall(path)",
        "tempfile.mktemp()",
        "numpy.load(path, allow_pickle=True)",
        "try:\n    go()\nexcept:\n    pass",
    ],
)
def test_what_is_banned_is_found(code):
    assert banned_in(ast.parse(code))


def test_module_names_say_something(module):
    assert not {part.strip("_") for part in module.split(".")} & VAGUE


def tracked():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name]


def test_no_path_of_one_machine_in_tracked_text():
    """Of a home or of a scratch folder."""
    path = re.compile(r"(?<![\w.])/(?:home|Users|root|tmp|var/tmp|private)/[\w.-]+")
    files = tracked()
    assert len(files) > 50
    wrong = []
    for file in files:
        # A path in the Dockerfile is one of the image.
        if not file.is_file() or file.name == "Dockerfile":
            continue
        data = file.read_bytes()
        if b"\0" not in data:
            wrong += [(file.name, found) for found in path.findall(data.decode(errors="replace"))]
    assert not wrong
