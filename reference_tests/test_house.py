"""The house: every module in its room, imports downwards only, and a front door that opens at once."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import refsnn

ROOT = Path(refsnn.__file__).parent
#: From the ground up. A module may import from its own room and from those in lines above this one's.
FLOORS = (
    "_version errors files parallel process progress schema shared workers",
    "ops",
    "model",
    "readings data",
    "storage",
    "distillation",
    "models",
    "evaluation",
    "pages",
    "reproduction conformance",
    "commands",
    "__main__",
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}


def name_of(path: Path) -> str:
    return ".".join(("refsnn", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def imports(source: str, package: str) -> list[str]:
    """Modules that a source imports from refsnn, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.startswith("refsnn.")]


def climbs(source: str, module: str, package: str) -> list[str]:
    """Imports of a module that lead up, or sideways into a room of the same floor."""
    room = module.split(".")[1]
    others = (name.split(".")[1] for name in imports(source, package))
    return [other for other in others if other in FLOOR and other != room and FLOOR[other] >= FLOOR[room]]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=name_of)
def test_imports_point_downwards(path):
    module = name_of(path)
    if module == "refsnn":
        return  # the front door leads everywhere
    assert module.split(".")[1] in FLOOR, f"{module} is in no room; add it to FLOORS"
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = climbs(path.read_text(encoding="utf-8"), module, package)
    # The ground has no floors of its own: its modules may import each other.
    found = [other for other in found if FLOOR[other] or FLOOR[module.split(".")[1]]]
    assert not found, f"{module} imports {', '.join(found)}, which stands above it or beside it"


def test_an_import_that_is_turned_round_is_seen():
    assert climbs("from ..storage.run import Run", "refsnn.model.network", "refsnn.model") == ["storage"]
    assert climbs("def f():\n    from ..pages import plot", "refsnn.evaluation.sweep", "refsnn.evaluation") == ["pages"]
    assert climbs("import refsnn.data.tasks", "refsnn.readings.energy", "refsnn.readings") == ["data"]
    assert climbs("from .network import Network", "refsnn.model.families", "refsnn.model") == []
    assert climbs("from ..model.network import Network", "refsnn.readings.simulate", "refsnn.readings") == []


def test_only_a_run_knows_the_names_of_its_files():
    for name in ('"run.json"', '"log.jsonl"', '"timings.json"'):
        spelled = {name_of(p) for p in ROOT.rglob("*.py") if name in p.read_text(encoding="utf-8")}
        allowed = {"refsnn.storage.run"} | {"refsnn.storage.convert", "refsnn.reproduction.progress"}
        assert "refsnn.storage.run" in spelled and spelled <= allowed, f"{name} is spelled in {spelled}"


def test_modules_are_found_and_their_imports_too():
    """What the tests above and below go through would also pass if nothing were found."""
    modules = {name_of(path) for path in ROOT.rglob("*.py")}
    assert len(modules) > 80 and {"refsnn", "refsnn.ops.attention", "refsnn.conformance.cases"} <= modules
    source = (ROOT / "readings" / "simulate.py").read_text(encoding="utf-8")
    assert {"refsnn.errors.InputError", "refsnn.model.network.Network"} <= set(imports(source, "refsnn.readings"))


def test_the_library_speaks_of_arguments_and_the_command_line_of_flags():
    flags = []
    for path in ROOT.rglob("*.py"):
        if name_of(path).startswith(("refsnn.commands", "refsnn.conformance.plugin")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and "--" in (text := ast.unparse(node)) and "`refsnn" not in text:
                flags.append(f"{name_of(path)}, line {node.lineno}: {text[:100]}")
    # Commands of refsnn, and those of the authors' program, are named whole.
    assert not [flag for flag in flags if "refsnn convert" not in flag and "refsnn distill" not in flag], flags


# ---------------------------------------------------------------------------------------------------------------------
# The front door


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_the_front_door_has_every_name_it_promises():
    assert sorted(refsnn.__all__) == sorted([*refsnn._HOMES, "__version__"]) and dir(refsnn) == refsnn.__all__
    for name in refsnn.__all__:
        assert getattr(refsnn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'simulte'; it has Batch"):
        refsnn.simulte  # noqa: B018


def test_types_are_told_of_the_same_names():
    """What a type checker reads under TYPE_CHECKING is what is found when the program runs."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {name: home if ":" in home else f"{home}:{name}" for name, home in refsnn._HOMES.items()}
    homes |= {"neurons": "model:neurons", "plot": "pages:plot"}  # modules
    assert told == homes


def test_importing_refsnn_loads_nothing():
    loaded = run("import sys; import refsnn; print(*sorted(sys.modules))").split()
    assert not [name for name in loaded if name.startswith("refsnn.") and name != "refsnn._version"]
    assert not {"scipy", "tokenizers", "datasets", "matplotlib", "torch", "jax"} & set(loaded)


def test_the_core_of_the_front_door_takes_numpy_alone():
    program = """
import sys
import refsnn
config = refsnn.BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
refsnn.spiking_bert(config), refsnn.simulate, refsnn.rate_map, refsnn.equilibrium, refsnn.gradient, refsnn.certify
print(*sorted(sys.modules))
"""
    loaded = set(run(program).split())
    assert "numpy" in loaded
    assert not {"scipy", "tokenizers", "datasets", "safetensors", "tqdm", "matplotlib", "jinja2"} & loaded
