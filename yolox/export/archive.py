"""TorchScript archives: what is in them is looked at before PyTorch is let near them.

A TorchScript file is a program. `torch.jit.load` and a run of it do whatever its code says, files
written included, so its code is read here as text first: straight lines that call functions of
`yolox.export.torchscript_ops` and one another, and nothing else. PyTorch is then given an archive
of those very bytes, so that there is no second way to read the file.
"""

from __future__ import annotations

import ast
import hashlib
import io
import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from yolox.export.seal import SEAL
from yolox.export.settings import ExportError
from yolox.export.torchscript_ops import BUILTINS, PRIMITIVES, TENSOR_FUNCTIONS

METADATA_FILE = "metadata.json"  # within the archive
_METADATA, _SEAL = f"extra/{METADATA_FILE}", f"extra/{SEAL}"
_ROOM = 64 * 2**20  # bytes that an archive's compressed text may take, above twice the file's size
# What PyTorch reads of an archive, and what it writes beside that: neither it nor we need it.
_NEEDED = re.compile(
    r"data\.pkl|constants\.pkl|version|byteorder|(?:data|constants)/\d+|code/__torch__/[\w/]+\.py"
)
_IDLE = re.compile(
    r"code/__torch__/[\w/]+\.py\.debug_pkl|traced_inputs\.pkl|traced_inputs/\d+"
    r"|\.data/serialization_id|\.format_version|\.storage_alignment"
)
# PyTorch's own reader of code is another than Python's: on these characters the two agree.
_ALPHABET = re.compile(r'[A-Za-z0-9_ \n"(),.:=>\[\]+-]*')
_METHOD = re.compile(r"forward\d*")
_WORD = re.compile(r"[\w. ]{0,40}")
_TYPES = {"Tensor", "int", "float", "bool", "number", "NoneType", "Device"}
_GENERIC = {"Optional", "List", "Tuple"}
_PICKLE_OPS = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
}
_PICKLE_NAMES = {
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    *(f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int")),
    *(f"torch {kind}Storage" for kind in ("Short", "Char", "Byte", "Bool")),
    *(f"torch.jit._pickle build_{kind}list" for kind in ("int", "double", "bool", "tensor")),
}

Records = Mapping[str, bytes]


def seal_archive(path: Path) -> None:
    """Add the digest of all records to an archive that `torch.jit.save` has just written."""
    records = _read(path)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(f"{root}/{_SEAL}"), _digest(records))


def open_archive(path: Path) -> tuple[bytes, io.BytesIO]:
    """The metadata of an archive, and what `torch.jit.load` may read of it, both checked.

    Raises:
        ExportError: damaged, of another program, or code that an exported detector has no need of.
    """
    records = _read(path)
    if not {_METADATA, _SEAL} <= records.keys():
        raise ExportError(
            f"{path} does not say how it is to be run: it is no file of tools/export.py, or one of "
            "an earlier version. TorchScript files are programs, so others are not run: export "
            "the checkpoint"
        )
    if records[_SEAL] != _digest(records).encode():
        raise ExportError(
            f"{path} is not as exported: damaged, or changed by another program. Copy it again, or "
            "export the checkpoint again"
        )
    problems = list(_problems(records))
    if problems:
        raise ExportError(
            f"{path} was not run: TorchScript files are programs, and this one holds what an "
            f"exported detector has no need of: {'; '.join(dict.fromkeys(problems[:5]))}. Do not "
            "trust it; export the checkpoint again, or use another --format for a network of your "
            "own"
        )
    clean = io.BytesIO()
    with zipfile.ZipFile(clean, "w") as archive:
        for name, content in records.items():
            if _NEEDED.fullmatch(name):
                archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    clean.seek(0)
    return records[_METADATA], clean


def _read(path: Path) -> Records:
    """Every record by its name below the archive's root. Their CRCs are checked on the way."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            root = infos[0].filename.partition("/")[0] + "/"
            names = [info.filename.removeprefix(root) for info in infos]
            if len(set(names)) < len(names):
                raise ValueError("a record comes twice")
            if not all(info.filename.startswith(root) for info in infos):
                raise ValueError("records in several folders")
            if sum(info.file_size for info in infos) > 2 * path.stat().st_size + _ROOM:
                raise ValueError("it holds more than its size allows")
            return {name: archive.read(info) for name, info in zip(names, infos, strict=True)}
    except Exception as error:  # on damaged bytes zipfile raises whatever comes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"{path} ({path.stat().st_size} bytes) is damaged or no TorchScript file ({reason}): "
            "copy it again, or export the checkpoint again"
        ) from None


def _digest(records: Records) -> str:
    """SHA-256 of the names, sizes and contents of all records but the seal."""
    digest = hashlib.sha256()
    for name in sorted(records.keys() - {_SEAL}):
        digest.update(f"{name}\0{len(records[name])}\0".encode())
        digest.update(records[name])
    return digest.hexdigest()


def _problems(records: Records) -> Iterable[str]:
    """What is in an archive that must not be, in words."""
    classes: set[str] = set()
    for name, content in records.items():
        if name.endswith(".py") and _NEEDED.fullmatch(name):
            module = name.removeprefix("code/").removesuffix(".py").replace("/", ".")
            code = _Code(module)
            code.check(content)
            classes |= code.classes
            yield from code.problems
        elif not (_NEEDED.fullmatch(name) or _IDLE.fullmatch(name) or name in (_METADATA, _SEAL)):
            yield f"a record {name!r}"
    for name in ("data.pkl", "constants.pkl"):
        yield from _pickle_problems(name, records.get(name, b""), classes)


def _pickle_problems(name: str, content: bytes, classes: set[str]) -> Iterable[str]:
    """Names of code in a pickle that are none of the archive's classes or of tensors."""
    known = _PICKLE_NAMES | {" ".join(name.rsplit(".", 1)) for name in classes}
    try:
        for op, value, _ in pickletools.genops(content):
            if op.name not in _PICKLE_OPS:
                yield f"the pickle operation {op.name} in {name}"
            elif op.name == "GLOBAL" and str(value) not in known:
                yield f"the name {value} in {name}"
    except Exception as error:  # of its readers, each in its own way
        yield f"no pickle in {name} ({error})"


class _Code:
    """A file of an archive's code: classes whose methods are straight lines of known calls.

    Attributes:
        classes: full names of those that it defines.
        problems: in words.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._locals: set[str] = set()
        self.classes: set[str] = set()
        self.problems: list[str] = []

    def check(self, content: bytes) -> None:
        """Fill the attributes."""
        try:
            text = content.decode("ascii")
            if not _ALPHABET.fullmatch(text):
                raise SyntaxError("a character that exported code never has")
            tree = ast.parse(text)
            for node in tree.body:
                self._class(node)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.problems.append(f"code that is none, in {self._module} ({error})")

    def _refuse(self, node: ast.AST, what: str = "") -> None:
        text = what or f"{ast.unparse(node)[:80]!r}"
        self.problems.append(f"{text} in {self._module}")

    def _class(self, node: ast.AST) -> None:
        if not (
            isinstance(node, ast.ClassDef)
            and [ast.unparse(base) for base in node.bases] == ["Module"]
            and not (node.keywords or node.decorator_list)
        ):
            return self._refuse(node)
        self.classes.add(f"{self._module}.{node.name}")
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                self._method(part)
            elif isinstance(part, ast.AnnAssign):
                if part.value is not None or not isinstance(part.target, ast.Name):
                    self._refuse(part)
                self._type(part.annotation)
            elif isinstance(part, ast.Assign):
                self._class_assignment(part)
            else:
                self._refuse(part)
        return None

    def _class_assignment(self, node: ast.Assign) -> None:
        """``__parameters__ = ["weight"]``, ``__annotations__["0"] = __torch__.x.Y``."""
        target, *more = map(ast.unparse, node.targets)
        if re.fullmatch(r"__annotations__\['\w+'\]", target) and not more:
            return self._type(node.value)
        names = node.value.elts if isinstance(node.value, ast.List) else [None]
        is_words = all(isinstance(name, ast.Constant) for name in names)
        if target not in ("__parameters__", "__buffers__") or more or not is_words:
            self._refuse(node)
        return None

    def _method(self, node: ast.FunctionDef) -> None:
        args = node.args
        odd = (args.posonlyargs, args.kwonlyargs, args.defaults, args.vararg, args.kwarg)
        if not _METHOD.fullmatch(node.name):
            return self._refuse(node, f"a method {node.name}")
        if any(odd) or node.decorator_list:
            return self._refuse(node)
        self._locals = {arg.arg for arg in args.args}
        for annotation in (*(arg.annotation for arg in args.args), node.returns):
            if annotation is not None:
                self._type(annotation)
        for statement in node.body:
            if isinstance(statement, ast.Assign):
                self._expression(statement.value)
                for target in statement.targets:
                    self._bind(target)
            elif isinstance(statement, (ast.Return, ast.Expr)):
                if statement.value is not None:
                    self._expression(statement.value)
            else:
                self._refuse(statement)
        return None

    def _bind(self, target: ast.expr) -> None:
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        for name in names:
            if isinstance(name, ast.Name) and name.id not in ("torch", "ops", *BUILTINS):
                self._locals.add(name.id)
            else:
                self._refuse(target)

    def _type(self, node: ast.expr) -> None:
        name = ast.unparse(node)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in _GENERIC:
            inner = node.slice
            for part in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
                self._type(part)
        elif name in _TYPES or (isinstance(node, ast.Constant) and node.value is None):
            return
        elif not re.fullmatch(r"__torch__(\.\w+)+", name) or "torch.classes" in name:
            self._refuse(node, f"the type {name[:80]}")

    def _expression(self, node: ast.expr) -> None:
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not _WORD.fullmatch(node.value):
                self._refuse(node)
        elif isinstance(node, ast.Name):
            if node.id not in self._locals | {"inf", "nan"}:
                self._refuse(node)
        elif isinstance(node, (ast.List, ast.Tuple)):
            for item in node.elts:
                self._expression(item)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            self._expression(node.operand)
        elif isinstance(node, ast.Attribute):
            if not re.fullmatch(r"CONSTANTS\.c\d+", ast.unparse(node)):
                self._expression(node.value)
        elif isinstance(node, ast.Call):
            self._call(node)
        else:
            self._refuse(node)

    def _call(self, node: ast.Call) -> None:
        function, arguments = node.func, list(node.args)
        name = ast.unparse(function)
        space, _, op = name.rpartition(".")
        if isinstance(function, ast.Attribute) and _METHOD.fullmatch(function.attr):
            self._expression(function.value)
        elif name == "annotate" and len(arguments) == 2:
            self._type(arguments.pop(0))
        elif name == "getattr" and len(arguments) == 2:
            if not isinstance(arguments[1], ast.Constant):
                self._refuse(node)
        elif not (
            name in BUILTINS
            or (space == "torch" and op in TENSOR_FUNCTIONS)
            or (space == "ops.prim" and op in PRIMITIVES)
        ):
            self._refuse(node, f"the operation {name[:80]}")
        for argument in (*arguments, *(keyword.value for keyword in node.keywords)):
            self._expression(argument)
