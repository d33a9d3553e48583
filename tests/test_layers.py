"""Imports only point down, from the command line to the facts, and every module stays small."""

import ast
import sys

import pytest
from repository import REPOSITORY

# From the bottom to the top. Packages of one layer do not import each other; within a package there are no cycles.
LAYERS = (
    {"errors"},
    {"regions", "runtime"},
    {"config"},
    {"data", "models", "pipeline"},
    {"preprocessing", "runs"},
    {"inference", "visualisation"},
    {"clinical", "evaluation"},
    {"training", "report", "exporting", "serving"},
    {"cli"},
    {"__main__"},
)
TENSORFLOW = {
    "models.normalisation",
    "models.one_pass",
    "models.activations",
    "models.kernel_gradients",
    "models.onednn",
    "models.random_weights",
    "models.winograd",
    "pipeline",
    "training",
    "inference",
    "exporting",
    "runs.network",
    "runs.stored_weights",
    "runtime.tensorflow",
}
# Who may import which library, by package or module; everything else is the stdlib or NumPy.
ONLY_IN = {
    "tensorflow": TENSORFLOW,
    "keras": {"models", "pipeline.augment_ops", "cli.demo", *TENSORFLOW},
    "tensorboard": {"training"},
    "nibabel": {"data", "preprocessing", "evaluation.submission", "clinical"},
    "isal": {"data", "preprocessing"},
    "scipy": {"preprocessing", "evaluation", "data.phantoms", "inference.postprocessing"},
    "matplotlib": {"visualisation", "report"},
    "jinja2": {"report"},
    "psutil": {"runtime"},
    "rich": {"runtime", "cli", "data.inspection", "runs.table", "evaluation"},
    **{name: {"clinical"} for name in ("SimpleITK", "pydicom", "highdicom", "dcm2niix")},
    **{name: {"exporting"} for name in ("tensorflow_serving", "onnx", "onnxruntime", "tf2onnx", "ai_edge_litert")},
    **{name: {"serving"} for name in ("starlette", "prometheus_client")},
    "ray": {"runtime.ray_pool"},
    "uvicorn": {"cli.serve_commands"},
    "segmentation_models": {"models.backbones"},
    "efficientnet": {"models.backbones"},
}
KERAS_ALONE_BUT_FOR = {
    "models.backbones": {"segmentation_models", "efficientnet"},
    "models.normalisation": {"tensorflow"},
    "models.one_pass": {"tensorflow"},
    "models.activations": {"tensorflow"},
    "models.kernel_gradients": {"tensorflow"},
    "models.onednn": {"tensorflow"},
    "models.precision": {"torch"},
    "models.random_weights": {"tensorflow"},
    "models.winograd": {"tensorflow"},
}
PACKAGE = REPOSITORY / "brats_tf"
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def imports(path):
    """The modules that a file imports, at any depth in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def siblings(module):
    """The modules of this package that a module imports."""
    names = {name.removeprefix("brats_tf.") for name in imports(MODULES[module]) if name.startswith("brats_tf.")}
    return {name for name in names if name in MODULES} - {module}


def layer(module):
    package = module.split(".")[0]
    return next(number for number, packages in enumerate(LAYERS) if package in packages)


def test_the_package_is_its_layers():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found - {"__init__"} == {name for packages in LAYERS for name in packages}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__"}))
def test_imports_point_down(module):
    for imported in siblings(module):
        if imported.split(".")[0] != module.split(".")[0]:
            assert layer(imported) < layer(module), f"{module} imports {imported}"


def test_no_module_imports_itself_through_others():
    seen, open_modules = set(), []

    def visit(module):
        assert module not in open_modules, f"cycle: {' -> '.join([*open_modules, module])}"
        if module not in seen:
            open_modules.append(module)
            for imported in siblings(module):
                visit(imported)
            seen.add(open_modules.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_some_modules_know_a_library(module):
    for imported in imports(MODULES[module]):
        library = imported.split(".")[0]
        if library == "matplotlib" and module == "report":
            continue
        allowed = ONLY_IN.get(library)
        assert allowed is None or {module, module.split(".")[0]} & allowed, f"{module} imports {library}"


@pytest.mark.parametrize("module", sorted(module for module in MODULES if module.startswith("models.")))
def test_networks_and_losses_know_keras_alone(module):
    outside = {name.split(".")[0] for name in imports(MODULES[module])}
    allowed = {"brats_tf", "keras", "numpy", *KERAS_ALONE_BUT_FOR.get(module, ()), *sys.stdlib_module_names}
    assert outside <= allowed


def test_nothing_loads_a_pickle():
    for module, path in MODULES.items():
        source = path.read_text()
        assert not {"pickle", "dill", "joblib"} & {name.split(".")[0] for name in imports(path)}, module
        assert "allow_pickle" not in source, module
        assert "safe_mode=False" not in source, module


def test_modules_and_functions_stay_small():
    lengths = []
    for path in MODULES.values():
        assert len(path.read_text().splitlines()) <= 250, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lengths.append(node.end_lineno - node.lineno + 1)
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([argument for argument in given if argument.arg not in ("self", "cls")])
                assert count <= 6, f"{path}: {node.name} takes {count} arguments"
    assert sorted(lengths)[int(0.9 * len(lengths))] <= 30
